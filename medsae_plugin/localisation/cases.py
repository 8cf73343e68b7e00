"""The maps of some units and the regions of a finding: every figure, image by image, beside chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int

from medsae_plugin.encoders.preprocessing import Shape
from medsae_plugin.localisation import maps as figures
from medsae_plugin.localisation.estimates import estimate, other_patients
from medsae_plugin.localisation.places import Places
from medsae_plugin.localisation.results import FIGURES, SIZES, LocalisedUnit, SizeBand
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.units import Units

Values = dict[str, Float[np.ndarray, " reported"]]

_CHUNK_CELLS, _TRIED_CELLS = 2**19, 2**22


@dataclass(frozen=True)
class Case:
    """A finding on images that show it, and what units of an SAE do there.

    rows: the images. reported: which of them are of `report`; the others are of `select`.
    which: the units, of which `top` follow the finding best. r: of every unit with the finding.
    maps: at the resolution they were made at; scored in `cells`, to which they are brought bilinear if that is finer.
    """

    places: Places
    finding: str
    rows: Int[np.ndarray, " images"]
    reported: Bool[np.ndarray, " images"]
    cells: Shape
    units: Units
    which: Sequence[int]
    top: Sequence[int]
    r: Float[np.ndarray, " units"]
    maps: Float[np.ndarray, "images which _ _"]
    seed: int

    def scored(self) -> list[LocalisedUnit]:
        """What is found of each unit; none where no image of `report` has a region that the encoder sees."""
        if not len(self.rows):
            return []
        grid = self.maps.shape[2], self.maps.shape[3]
        size = np.concatenate([cover.mean((1, 2)) for _, cover in self._covers(np.arange(len(self.rows)), grid)])
        report, select = (np.flatnonzero(role & (size > 0)) for role in (self.reported, ~self.reported))
        if not len(report):
            return []
        thresholds = [self._thresholds(select, k) for k in range(len(self.which))]
        own, chance = self._values(report, thresholds)
        return [self._of(k, report, select, size, thresholds[k], own[k], chance[k]) for k in range(len(self.which))]

    def _of(
        self,
        k: int,
        report: Int[np.ndarray, " reported"],
        select: Int[np.ndarray, " selected"],
        size: Float[np.ndarray, " images"],
        thresholds: dict[str, float],
        own: Values,
        chance: Values,
    ) -> LocalisedUnit:
        j, patients = self.which[k], self._patients(report)
        return LocalisedUnit(
            label=self.finding,
            unit=self.units.label(j),
            rank=list(self.top).index(j) + 1 if j in self.top else None,
            r_select=number(self.r[j]),
            select_images=len(select),
            images=len(report),
            patients=len(np.unique(patients)),
            fires=int((self.maps[report, k].max((1, 2)) > 0).sum()),
            iou_threshold=thresholds.get("iou"),
            dice_threshold=thresholds.get("dice"),
            figures={name: estimate(own[name], chance[name], patients) for name in FIGURES},
            sizes=_by_size(size[select], size[report], own, chance, patients),
        )

    def _patients(self, at: Int[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        return self.places.images.patient_codes[self.rows[at]]

    def _covers(self, at: Int[np.ndarray, " some"], cells: Shape) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The regions of these images, some after others: which, and their covers."""
        step = max(1, _CHUNK_CELLS // (cells[0] * cells[1]))
        for first in range(0, len(at), step):
            here = at[first : first + step]
            yield here, self.places.covers(self.rows[here], self.finding, cells)

    def _finer(self, maps: figures.Maps) -> Float[np.ndarray, "images _ _"]:
        return maps if maps.shape[1:] == self.cells else figures.bilinear(maps, self.cells)

    def _thresholds(self, select: Int[np.ndarray, " selected"], k: int) -> dict[str, float]:
        """Those of the largest mean on `select`; none without images there."""
        if not len(select):
            return {}
        # Quantiles of a part of many images are good enough to try.
        some = select[:: max(1, len(select) * self.cells[0] * self.cells[1] // _TRIED_CELLS)]
        tried = figures.thresholds_to_try(self._finer(self.maps[some, k]))

        def parts() -> Iterator[tuple[figures.Maps, figures.Maps]]:
            for here, covers in self._covers(select, self.cells):
                yield self._finer(self.maps[here, k]), covers

        return {name: figures.best_threshold(tried, parts(), figure)
                for name, figure in (("iou", figures.iou), ("dice", figures.dice))}  # fmt: skip

    def _values(
        self, report: Int[np.ndarray, " reported"], thresholds: Sequence[dict[str, float]]
    ) -> tuple[list[Values], list[Values]]:
        """Of each unit each figure image by image, and the same with the regions of others, the mean over rounds."""
        others = report[other_patients(self._patients(report), self.seed)]
        made: tuple[list[Values], ...] = tuple(
            [{name: np.full(len(report), np.nan) for name in FIGURES} for _ in self.which] for _ in range(2)
        )
        own, chance = made
        rounds, first = len(others), 0
        step = max(1, _CHUNK_CELLS // (self.cells[0] * self.cells[1] * (rounds + 1)))
        for first in range(0, len(report), step):
            mine = slice(first, min(first + step, len(report)))
            images = np.concatenate([report[mine], *others[:, mine]])
            covers = self.places.covers(self.rows[images], self.finding, self.cells)
            covers = covers.reshape(rounds + 1, -1, *self.cells)
            for k in range(len(self.which)):
                grid = self.maps[report[mine], k]
                finer = self._finer(grid)
                for name, figure in _against(thresholds[k]).items():
                    values = figure(finer, covers)
                    own[k][name][mine] = values[0]
                    if rounds:
                        chance[k][name][mine] = values[1:].mean(0)
                own[k]["morans_i"][mine] = figures.morans_i(grid)
        return own, chance


def _against(thresholds: dict[str, float]) -> dict[str, Callable[[figures.Maps, figures.Covers], figures.PerImage]]:
    """The figures that regions enter."""
    made: dict[str, Callable[[figures.Maps, figures.Covers], figures.PerImage]] = {
        "pointing": figures.pointing,
        "average_precision": figures.average_precision,
        "mass": figures.mass_inside,
    }
    for name, figure in (("iou", figures.iou), ("dice", figures.dice)):
        if name in thresholds:
            made[name] = partial(figure, threshold=thresholds[name])
    return made


def _by_size(
    on_select: Float[np.ndarray, " selected"],
    size: Float[np.ndarray, " reported"],
    own: Values,
    chance: Values,
    patients: Int[np.ndarray, " reported"],
) -> list[SizeBand]:
    """Bands of sizes that part the images of `select` into thirds."""
    if not len(on_select):
        return []
    bounds = [None, *np.quantile(on_select.astype(np.float64), [1 / 3, 2 / 3]).tolist(), None]
    band = np.searchsorted(bounds[1:-1], size, side="right")
    made = []
    for k, name in enumerate(SIZES):
        mine = band == k
        found = {f: estimate(own[f][mine], chance[f][mine], patients[mine]) for f in FIGURES}
        made.append(SizeBand(size=name, low=bounds[k], high=bounds[k + 1], images=int(mine.sum()), figures=found))
    return made
