"""Fidelity and sparsity on the validation split, during training and after."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.fidelity import FidelitySums

if TYPE_CHECKING:
    from sae_lens.saes.sae import SAE, TrainingSAE

# Rows measured during training: enough for an explained variance to three digits, little beside a training step.
_SAMPLE_ROWS = 8192
_BATCH_ROWS = 1024


# Measures latents in training against labels: of a hook, and what makes latents, at least 0, of its raw rows, the mean
# top r; nan if it is undefined.
TopR = Callable[[str, Callable[[Tensor], Tensor]], float]


class Validation:
    """A fixed sample of validation rows, on which SAEs are measured while they train.

    rows: of each hook, in batches; empty where the store has no validation split.
    """

    def __init__(self, store: ActivationStore, hooks: list[str], seed: int, top_r: TopR | None = None) -> None:
        self.top_r = top_r
        self.rows: dict[str, list[Tensor]] = {}
        for hook in dict.fromkeys(hooks):
            n = min(store.n_rows(hook, "val"), _SAMPLE_ROWS)
            if n:
                batch = min(n, _BATCH_ROWS)
                batches = islice(store.batches(hook, batch, split="val", seed=seed), n // batch)
                self.rows[hook] = [b[hook] for b in batches]

    @torch.no_grad()
    def measure(
        self, sae: TrainingSAE[Any], hook: str, normalize: Callable[[Tensor], Tensor]
    ) -> dict[str, float | None]:
        """Explained variance, L0 and the share of dead latents on the sample, in the space that the SAE trains in.

        And `mean_top_r`, None where nothing measures it.
        """
        sums = FidelitySums(sae.cfg.d_in, sae.cfg.d_sae)
        was_training = sae.training
        sae.eval()
        for rows in self.rows[hook]:
            x = normalize(rows.to(sae.device))
            latents = sae.encode(x)
            sums.update(x, latents, sae.decode(latents))
        figures = sums.figures()
        measured: dict[str, float | None] = {key: figures[key] for key in ("explained_variance", "l0", "dead")}
        measured["mean_top_r"] = None
        if self.top_r is not None and math.isfinite(figures["explained_variance"]):  # else it diverged
            value = self.top_r(hook, lambda rows: _by_sign(sae, sae.encode(normalize(rows.to(sae.device)))))
            measured["mean_top_r"] = None if math.isnan(value) else value
        sae.train(was_training)
        return measured


def _by_sign(sae: TrainingSAE[Any], latents: Tensor) -> Tensor:
    """As the saved SAE has them: a latent for each sign where they are signed."""
    return torch.cat([latents, -latents], 1).clamp(min=0) if sae.cfg.architecture() == "abstopk" else latents


def fidelity_sums(store: ActivationStore, sae: SAE[Any], hook: str, split: str) -> FidelitySums:
    """The sums of a finished SAE over every row of a split, on raw activations; empty where it has no rows."""
    images = store.readable_images
    return fidelity_on(store, sae, hook, images.loc[images["split"] == split, "image_id"].to_numpy())


@torch.no_grad()
def fidelity_on(
    store: ActivationStore, sae: SAE[Any], hook: str, image_ids: Int[np.ndarray, " images"]
) -> FidelitySums:
    """The same over the rows of these images."""
    sums = FidelitySums(sae.cfg.d_in, sae.cfg.d_sae)
    per_batch = max(1, _BATCH_ROWS // store.hooks[hook].rows_per_image)
    for first in range(0, len(image_ids), per_batch):
        x = store.rows_of(hook, image_ids[first : first + per_batch]).flatten(0, 1).to(sae.device)
        latents = sae.encode(x)
        sums.update(x, latents, sae.decode(latents))
    return sums
