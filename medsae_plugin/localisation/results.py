"""`Localisation`: where units fire, typed, as in `localisation.json`, with a row a figure in `localisation.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from pydantic import Field, PrivateAttr

from medsae_plugin._version import __version__
from medsae_plugin.files import make_folder, write_parquet
from medsae_plugin.scores.models import Encoder, Figures, Result, Split
from medsae_plugin.scores.registry import mean_known, number
from medsae_plugin.scores.units import Kind
from medsae_plugin.text import aligned, fixed

LOCALISATION_FILE, FIGURES_FILE, INSIDE_FILE = "localisation.json", "localisation.parquet", "inside.parquet"
SIZES = ("small", "medium", "large")
BY_SIZE = "average_precision"
FIGURES = ("pointing", "iou", "dice", "average_precision", "mass", "morans_i")


class Figure(Figures):
    """The mean over images of a figure, with its interval over patients; beside, the same with other patients' regions.

    images: those where it is defined. chance: None of what no region enters (Moran's I), or where no other patient has
    a region. gain: the mean of figure less chance, image by image. no_interval: why there is none, of either.
    """

    images: int
    mean: float | None
    interval: tuple[float, float] | None = None
    chance: float | None = None
    gain: float | None = None
    gain_interval: tuple[float, float] | None = None
    no_interval: str | None = None


class SizeBand(Figures):
    """The figures on images whose region takes from `low` to `high` of the input; None is no bound.

    The bounds part the images of `select` that show the finding into thirds.
    """

    size: str
    low: float | None
    high: float | None
    images: int
    figures: dict[str, Figure]


class LocalisedUnit(Figures):
    """Where a unit fires on the images of `report` that show a finding and have a region of it.

    rank: among the units of largest r with the label on `select`, from 1; None of one that was asked for.
    fires: on how many of the images. iou_threshold, dice_threshold: of the map, chosen on `select_images` images of
        `select`; None, as both figures, where none of them has a region. sizes: by how large the region is; none
        without images of `select`.
    """

    label: str
    unit: int | str | None
    rank: int | None
    r_select: float | None
    select_images: int
    images: int
    patients: int
    fires: int
    iou_threshold: float | None
    dice_threshold: float | None
    figures: dict[str, Figure]
    sizes: list[SizeBand]


class LocalisedUnits(Figures):
    """The units of an SAE, of an untrained one, or the neurons of a hook.

    held_out_from: of an SAE, whether it and the encoder have seen the patients of `report`, in words.
    """

    name: str
    kind: Kind
    hook: str
    baseline_of: str | None
    held_out_from: str | None = None
    sae_sha256: str | None = None
    latents: list[LocalisedUnit]

    def best(self, label: str) -> LocalisedUnit | None:
        """The label's top unit."""
        return next((x for x in self.latents if x.label == label and x.rank == 1), None)

    @property
    def tops(self) -> list[LocalisedUnit]:
        """Each label's top unit."""
        return [x for x in self.latents if x.rank == 1]

    def mean(self, figure: str) -> tuple[float | None, float | None]:
        """The mean over labels of a figure of their top units, and of its chance."""
        found = [x.figures[figure] for x in self.tops]
        return _mean([f.mean for f in found]), _mean([f.chance for f in found])

    def mean_by_size(self, size: str, figure: str) -> tuple[float | None, float | None]:
        """The same on images of one band of sizes, over the labels that have any."""
        found = [band.figures[figure] for x in self.tops for band in x.sizes if band.size == size]
        return _mean([f.mean for f in found]), _mean([f.chance for f in found])


class InsideUnits(Figures):
    """How units share their activation between a region and what is outside of it; each has a row in `inside.parquet`.

    units: those that fire on enough images to have an interval. outside, inside: those of these whose share inside is
    less, or more, than the region's share of the input, by an interval of the difference that leaves 0 out.
    """

    name: str
    kind: Kind
    hook: str
    units: int
    outside: list[int | str | None]
    inside: list[int | str | None]


class Localisation(Result):
    """What `score_regions` found; `str()` is its tables."""

    FILE: ClassVar[str] = LOCALISATION_FILE
    COMMAND: ClassVar[str] = "medsae localize"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    regions: str
    maps: Literal["grid", "pixels", "gradient", "occlusion"]
    stride: int | None = None
    seed: int
    select: Split
    report: Split
    without_regions: list[str]
    not_shown: dict[str, int]
    units: list[LocalisedUnits]
    inside_finding: str | None = None
    inside_images: int = 0
    inside_share: float | None = None
    inside: list[InsideUnits] = Field(default_factory=list)
    _inside_frame: pd.DataFrame | None = PrivateAttr(default=None)

    def save(self, path: str | Path) -> None:
        """Write `localisation.json` and its rows as parquet into a folder."""
        folder = make_folder(Path(path))
        frames = {FIGURES_FILE: self.frame(), INSIDE_FILE: self._inside_frame}
        for name, frame in frames.items():
            if frame is not None:
                write_parquet(folder / name, frame)
        super().save(folder)

    def frame(self) -> pd.DataFrame:
        """One row a unit, label, figure and size of region (`all`, or a band)."""
        rows = [
            {"sae": of.name, "kind": of.kind, "hook": of.hook, "label": x.label, "unit": str(x.unit), "rank": x.rank,
             "r_select": x.r_select, "size": size, "figure": name, "images": f.images, "mean": f.mean,
             "low": f.interval and f.interval[0], "high": f.interval and f.interval[1], "chance": f.chance,
             "gain": f.gain, "gain_low": f.gain_interval and f.gain_interval[0],
             "gain_high": f.gain_interval and f.gain_interval[1], "no_interval": f.no_interval}
            for of in self.units for x in of.latents
            for size, figures in [("all", x.figures), *((band.size, band.figures) for band in x.sizes)]
            for name, f in figures.items()
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        told = {"grid": "the grid", "pixels": "the pixels, bilinear", "gradient": "gradient times activation",
                "occlusion": "occlusion"}[self.maps]  # fmt: skip
        told += "" if self.stride is None else f" in cells of {self.stride} pixels"
        head = (
            f"Units chosen on {self.select.split}, localised on {self.report.split} ({self.report.images} images, "
            f"{self.report.patients} patients), maps of {told}.\nIn brackets the same maps with other patients' "
            "regions of the finding (chance). Thresholds are from the first split."
        )
        parts = [head]
        if self.without_regions:
            parts.append(f"without regions in {self.report.split}: {', '.join(self.without_regions)}")
        if self.not_shown:
            said = ", ".join(f"{label} {n}" for label, n in self.not_shown.items())
            parts.append(f"regions left out, for the table does not call the finding present there: {said}")
        if any(of.latents for of in self.units):
            parts += ["\nmeans over findings, of each finding's top unit", *self._means(), *self._by_size()]
        parts += [f"\n{of.name} at {of.hook}. {of.held_out_from or ''}\n" + "\n".join(_of_units(of))
                  for of in self.units if of.kind == "sae" and of.latents]  # fmt: skip
        return "\n".join([*parts, *self._said_inside()])

    def _means(self) -> list[str]:
        rows = [["", "findings", *FIGURES]]
        for of in self.units:
            rows.append([of.name, str(len(of.tops)), *(_beside(*of.mean(name)) for name in FIGURES)])
        return aligned(rows, rule_after=(1,))

    def _by_size(self) -> list[str]:
        if not any(x.sizes for of in self.units for x in of.latents):
            return []
        rows = [["", *SIZES]]
        for of in self.units:
            rows.append([of.name, *(_beside(*of.mean_by_size(size, BY_SIZE)) for size in SIZES)])
        return [
            f"\n{BY_SIZE} by how large the region is, thirds of {self.select.split}",
            *aligned(rows, rule_after=(1,)),
        ]

    def _said_inside(self) -> list[str]:
        if self.inside_finding is None:
            return []
        share = "-" if self.inside_share is None else f"{self.inside_share:.1%}"
        lines = [
            f"\n{self.inside_finding}: {self.inside_images} images of {self.report.split}, {share} of the input. "
            "Units that are tested, and those whose activation is more outside, or inside, than an even one's",
            *aligned(
                [["", "units", "outside", "inside"],
                 *([of.name, str(of.units), str(len(of.outside)), str(len(of.inside))] for of in self.inside)],
                rule_after=(1,),
            ),
        ]  # fmt: skip
        return lines


def _of_units(of: LocalisedUnits) -> list[str]:
    rows = [["finding", "unit", "r", "images", "patients", "fires", *FIGURES]]
    for x in of.latents:
        if x.rank in (1, None):
            cells = [_beside(x.figures[name].mean, x.figures[name].chance) for name in FIGURES]
            counts = [str(x.images), str(x.patients), str(x.fires)]
            rows.append([x.label, f"#{x.unit}", fixed(x.r_select), *counts, *cells])
    return aligned(rows, rule_after=(1,))


def _mean(values: list[float | None]) -> float | None:
    return number(mean_known(values)) if values else None


def _beside(mean: float | None, chance: float | None) -> str:
    return fixed(mean) + ("" if chance is None else f" ({fixed(chance)})")
