"""Latents against labels while SAEs train: the mean top r on a sample of the validation split."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.declared import mean_top_r
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.scoring import Scored
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.scores.units import Units

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.store import ActivationStore

# Rows of each split: enough for a mean over labels to two digits, little beside the steps between two measurements.
_SAMPLE_ROWS = 16_384
_LEAST_IMAGES = 256
_BATCH_ROWS = 1024


class MeanTopR:
    """Mean over labels of their top latents' r: chosen on a sample of `train`, measured on a sample of `val`.

    As `mean top r` of an evaluation, of the maximum over an image's positions: a silent latent counts as 0, and a label
    that all or none of the sampled images have is left out.

    Raises:
        MedSAEError: the table has no image of one of the splits, or no labels.
    """

    def __init__(self, store: ActivationStore, table: ImageTable, seed: int = 0) -> None:
        if not table.label_names:
            raise MedSAEError("the table has no labels to measure latents against; name them with --labels")
        images = LabelledImages.of(store, table)
        self._store, self._labels, self._names = store, images.labels, images.label_names
        self._ids = images.frame["image_id"].to_numpy()
        known = ~np.isnan(images.labels).all(1)
        self._rows: dict[str, Int[np.ndarray, " images"]] = {}
        for split in ("train", "val"):
            rows = np.flatnonzero((images.frame["split"] == split).to_numpy() & known)
            if not len(rows):
                raise MedSAEError(f"no image of the store's split {split!r} has a label in the table")
            self._rows[split] = np.random.default_rng(seed).permutation(rows)

    def __call__(self, hook: str, encode: Callable[[Tensor], Tensor]) -> float:
        """Of an SAE in training: `encode` makes latents, at least 0, of the hook's raw rows."""
        sums = {"select": self._sums(hook, encode, "train"), "report": self._sums(hook, encode, "val")}
        units = Units("in training", "sae", hook, self._store.hooks[hook].d, sums["select"].n_latents)
        return mean_top_r(Scored(units, sums))

    def _sums(self, hook: str, encode: Callable[[Tensor], Tensor], split: str) -> LatentStatistics:
        per_image = self._store.hooks[hook].rows_per_image
        rows = np.sort(self._rows[split][: max(_LEAST_IMAGES, _SAMPLE_ROWS // per_image)])
        sums: LatentStatistics | None = None
        for part in np.array_split(rows, -(-len(rows) * per_image // _BATCH_ROWS)):
            x = self._store.rows_of(hook, self._ids[part])
            latents = encode(x.flatten(0, 1)).unflatten(0, x.shape[:2]).amax(1)
            sums = sums or LatentStatistics(latents.shape[1], self._names)
            sums.update(latents.to(torch.float64).cpu(), self._labels[part])
        assert sums is not None
        return sums
