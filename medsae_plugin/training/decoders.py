"""Decoders that training may not move, or not far: baselines that tell what is learnt from what is drawn.

Korznikov et al. 2026 (arXiv 2602.14111): SAEs whose decoder directions stay as they were drawn ("frozen"), or within a
cosine of 0.8 of them ("soft-frozen"), come near SAEs that are trained in full by many measures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from sae_lens.saes.sae import TrainingSAE

LEAST_COSINE = 0.8


def hold_decoder(sae: TrainingSAE[Any], how: str, optimizer: torch.optim.Optimizer) -> None:
    """Keep an SAE's decoder directions as they are, or near, in every step of the optimizer from here on.

    Args:
        how: `free`, `frozen`, or `soft-frozen`: a direction that a step has turned further from where it began than
            `LEAST_COSINE` is turned back to there, its length kept. The decoder's bias is trained in any case.
    """
    if how == "frozen":
        sae.W_dec.requires_grad_(False)
    elif how == "soft-frozen":
        drawn = sae.W_dec.detach().clone()

        @torch.no_grad()
        def turn_back(*_: Any) -> None:
            sae.W_dec.copy_(within_cosine(sae.W_dec, drawn))

        optimizer.register_step_post_hook(turn_back)


def within_cosine(
    rows: Float[Tensor, "n d"], drawn: Float[Tensor, "n d"], least: float = LEAST_COSINE
) -> Float[Tensor, "n d"]:
    """Of each row the nearest direction within this cosine of the drawn one, of the row's length."""
    unit = torch.nn.functional.normalize
    axis, length = unit(drawn, dim=-1), rows.norm(dim=-1, keepdim=True)
    along = (rows * axis).sum(-1, keepdim=True)
    edge = unit(least * axis + (1 - least**2) ** 0.5 * unit(rows - along * axis, dim=-1), dim=-1)
    return torch.where(along < least * length, length * edge, rows)
