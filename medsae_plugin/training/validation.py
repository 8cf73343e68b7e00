"""Fidelity and sparsity on the validation split, during training and after."""

from __future__ import annotations

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


class Validation:
    """A fixed sample of validation rows, on which SAEs are measured while they train."""

    def __init__(self, store: ActivationStore, hooks: list[str], seed: int) -> None:
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
    ) -> dict[str, float] | None:
        """Explained variance, L0 and the share of dead latents on the sample, in the space that the SAE trains in.

        None where the store has no validation rows.
        """
        if hook not in self.rows:
            return None
        sums = FidelitySums(sae.cfg.d_in, sae.cfg.d_sae)
        was_training = sae.training
        sae.eval()
        for rows in self.rows[hook]:
            x = normalize(rows.to(sae.device))
            latents = sae.encode(x)
            sums.update(x, latents, sae.decode(latents))
        sae.train(was_training)
        figures = sums.figures()
        return {key: figures[key] for key in ("explained_variance", "l0", "dead")}


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
