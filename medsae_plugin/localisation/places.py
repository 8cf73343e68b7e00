"""Where regions lie in an encoder's input, and what units do there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from medsae_plugin.data.regions import Regions
from medsae_plugin.encoders.preprocessing import Preprocessor, Shape
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.heatmaps import has_heatmaps, heatmaps
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.units import Units
from medsae_plugin.store.reader import ActivationStore

MapKind = Literal["grid", "pixels", "gradient", "occlusion"]
Wanted = Sequence[tuple[Units, Sequence[int]]]
Batch = tuple[slice, list[Float[np.ndarray, "images _ _ _"]]]

_BATCH_ROWS = 8192
_KEPT_ELEMENTS = 2**27  # of covers, which are made again once that many are there


@dataclass(frozen=True)
class Places:
    """The regions of images, in cells of the encoder's input."""

    images: LabelledImages
    regions: Regions
    preprocessor: Preprocessor
    _kept: dict[tuple[str, int, Shape], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, store: ActivationStore, images: LabelledImages, regions: Regions) -> Places:
        """Raises MedSAEError where a store does not say how its images were prepared."""
        if not store.preprocessing:
            raise MedSAEError(f"{store.path} does not say how its images were prepared, so regions have no place")
        return cls(images, regions, Preprocessor.from_config(store.preprocessing))

    def with_region(self, rows: Int[np.ndarray, " rows"], finding: str) -> Int[np.ndarray, " some"]:
        """Those of these images that have a region of the finding."""
        paths = self.images.frame["path"].to_numpy()
        return np.array([row for row in rows if finding in self.regions[paths[row]]], dtype=np.int64)

    def covers(self, rows: Int[np.ndarray, " images"], finding: str, cells: Shape) -> Float[np.ndarray, "images _ _"]:
        """The share of each of the input's cells that the region takes, float32; what the encoder does not see of it is
        left out."""
        made = np.empty((len(rows), *cells), np.float32)
        for k, row in enumerate(rows.tolist()):
            made[k] = self._cover(row, finding, cells)
        return made

    def keep(self, rows: Int[np.ndarray, " images"], findings: Collection[str], cells: Shape) -> None:
        """Make the covers of these findings, image by image: a phantom is drawn once for all of its findings."""
        for row in rows.tolist():
            for finding in self.regions[self.images.frame["path"].iloc[row]]:
                if finding in findings:
                    self._cover(row, finding, cells)

    def _cover(self, row: int, finding: str, cells: Shape) -> Float[np.ndarray, "_ _"]:
        key = finding, row, cells
        if (cover := self._kept.get(key)) is None:
            region = self.regions[self.images.frame["path"].iloc[row]][finding]
            cover = region.cover(self.preprocessor.framing(region.image).edges(cells)).astype(np.float32)
            if len(self._kept) < _KEPT_ELEMENTS // cover.size:
                self._kept[key] = cover
        return cover


@runtime_checkable
class MapSource(Protocol):
    """Where maps come from."""

    def check(self, hook: str) -> None:
        """Raises MedSAEError where there are no maps of a hook."""

    def cells(self, hook: str) -> Shape:
        """Rows and columns of a hook's maps."""

    def batches(self, hook: str, wanted: Wanted, rows: Int[np.ndarray, " images"]) -> Iterator[Batch]:
        """Maps of some of the units on these images, batch after batch: which of `rows`, and of each of `wanted` the
        maps."""


@dataclass(frozen=True)
class StoredMaps:
    """Units' activations over the grid of a hook, of a store that keeps all of its positions."""

    store: ActivationStore
    images: LabelledImages
    LACKS: ClassVar[str] = "--maps gradient or occlusion, with --encoder, makes maps of such a hook's units over pixels"

    def check(self, hook: str) -> None:
        if self.store.hooks[hook].grid is None:
            raise MedSAEError(f"{hook} has one activation an image and no positions, so it has no grid; {self.LACKS}")
        if not has_heatmaps(self.store, hook):
            kept = self.store.manifest.positions
            raise MedSAEError(
                f"{self.store.path} keeps {kept!r} of the positions of {hook}; a map needs all: extract with "
                "--positions all"
            )

    def cells(self, hook: str) -> Shape:
        grid = self.store.hooks[hook].grid
        assert grid is not None
        return grid

    def batches(self, hook: str, wanted: Wanted, rows: Int[np.ndarray, " images"]) -> Iterator[Batch]:
        ids = self.images.frame["image_id"].to_numpy()[rows]
        step = max(1, _BATCH_ROWS // self.store.hooks[hook].rows_per_image)
        for first in range(0, len(rows), step):
            mine = slice(first, min(first + step, len(rows)))
            yield mine, [check_finite(heatmaps(one.rows_from(self.store), one, which, ids[mine]))
                         for one, which in wanted]  # fmt: skip


def check_finite(maps: np.ndarray) -> np.ndarray:
    """Raises MedSAEError where a map has nan or infinity."""
    if not np.isfinite(maps).all():
        raise MedSAEError("activations hold nan or infinity; check the encoder's weights and the SAE")
    return maps
