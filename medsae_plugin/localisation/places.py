"""Where regions lie in an encoder's input, and what units do there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from medsae_plugin.data.regions import Regions
from medsae_plugin.encoders.preprocessing import Preprocessor
from medsae_plugin.errors import MedSAEError
from medsae_plugin.localisation.maps import bilinear
from medsae_plugin.scores.heatmaps import has_heatmaps, heatmaps
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.units import Units
from medsae_plugin.store.reader import ActivationStore

_BATCH_ROWS = 8192


@dataclass(frozen=True)
class Places:
    """A store's images and their regions, in the cells of a hook's grid or (`pixels`) in the pixels of the input."""

    store: ActivationStore
    images: LabelledImages
    regions: Regions
    pixels: bool = False
    _kept: dict[tuple[str, int, tuple[int, int]], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def check(self, hook: str) -> None:
        """Raises MedSAEError unless the store has all positions of a hook that has some, and its preprocessing."""
        if not self.store.preprocessing:
            raise MedSAEError(f"{self.store.path} does not say how its images were prepared, so regions have no place")
        if self.store.hooks[hook].grid is None:
            raise MedSAEError(f"{hook} has one activation an image and no positions, so nothing is localised there")
        if not has_heatmaps(self.store, hook):
            kept = self.store.manifest.positions
            raise MedSAEError(
                f"{self.store.path} keeps {kept!r} of the positions of {hook}; a map needs all: extract with "
                "--positions all"
            )

    def with_region(self, rows: Int[np.ndarray, " rows"], finding: str) -> Int[np.ndarray, " some"]:
        """Those of these images that have a region of the finding."""
        paths = self.images.frame["path"].to_numpy()
        return np.array([row for row in rows if finding in self.regions[paths[row]]], dtype=np.int64)

    def covers(self, rows: Int[np.ndarray, " images"], finding: str, hook: str) -> Float[np.ndarray, "images _ _"]:
        """The share of each cell that the region takes, float32; what the encoder does not see of it is left out."""
        preprocessor = Preprocessor.from_config(self.store.preprocessing)
        grid = preprocessor.shape if self.pixels else self.store.hooks[hook].grid
        assert grid is not None
        paths = self.images.frame["path"].to_numpy()
        for row in rows:
            if (finding, row, grid) not in self._kept:  # phantoms draw each anew
                region = self.regions[paths[row]][finding]
                cover = region.cover(preprocessor.framing(region.image).edges(grid))
                self._kept[finding, row, grid] = cover.astype(np.float32)
        return np.array([self._kept[finding, row, grid] for row in rows], dtype=np.float32).reshape(-1, *grid)

    def maps(
        self, units: Units, which: list[int], rows: Int[np.ndarray, " images"]
    ) -> Iterator[tuple[slice, Float[np.ndarray, "images units _ _"]]]:
        """Maps of some units on these images, a batch of them after another: which of `rows`, and their maps."""
        ids = self.images.frame["image_id"].to_numpy()[rows]
        store = units.rows_from(self.store)
        step = max(1, _BATCH_ROWS // store.hooks[units.hook].rows_per_image)
        shape = Preprocessor.from_config(self.store.preprocessing).shape
        for first in range(0, len(rows), step):
            mine = slice(first, min(first + step, len(rows)))
            grids = heatmaps(store, units, which, ids[mine])
            if not np.isfinite(grids).all():
                raise MedSAEError("activations hold nan or infinity; check the encoder's weights and the SAE")
            if self.pixels:
                flat = bilinear(grids.reshape(-1, *grids.shape[2:]), shape)
                grids = flat.reshape(*grids.shape[:2], *shape)
            yield mine, grids
