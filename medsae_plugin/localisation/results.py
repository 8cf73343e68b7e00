"""`Localisation`: where units fire, typed, as in `localisation.json`, with a row a figure in `localisation.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from pydantic import Field, PrivateAttr

from medsae_plugin._version import __version__
from medsae_plugin.files import make_folder, replacing
from medsae_plugin.scores.models import Encoder, Figures, Result, Split
from medsae_plugin.scores.registry import mean_known
from medsae_plugin.scores.units import Kind
from medsae_plugin.text import aligned

LOCALISATION_FILE, FIGURES_FILE, INSIDE_FILE = "localisation.json", "localisation.parquet", "inside.parquet"
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
    """The means over a third of the images, by the share of the input that the region takes: from the least to most."""

    low: float
    high: float
    images: int
    figures: dict[str, float | None]
    chance: dict[str, float | None]


class LocalisedUnit(Figures):
    """Where a unit fires on the images of `report` that show a finding and have a region of it.

    rank: among the units of largest r with the label on `select`, from 1; None of one that was asked for.
    fires: on how many of the images. iou_threshold, dice_threshold: of the activation, chosen on `select_images` images
        of `select`; None, as both figures, where none of them has a region.
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
    """The units of an SAE, of an untrained one, or the neurons of a hook."""

    name: str
    kind: Kind
    hook: str
    baseline_of: str | None
    latents: list[LocalisedUnit]

    def best(self, label: str) -> LocalisedUnit | None:
        """The label's top unit."""
        return next((x for x in self.latents if x.label == label and x.rank == 1), None)


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
    maps: Literal["grid", "pixels"]
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
                with replacing(folder / name) as temporary:
                    frame.to_parquet(temporary, index=False)
        super().save(folder)

    def frame(self) -> pd.DataFrame:
        """One row a unit, label and figure."""
        rows = [
            {"sae": of.name, "kind": of.kind, "hook": of.hook, "label": x.label, "unit": str(x.unit), "rank": x.rank,
             "r_select": x.r_select, "patients": x.patients, "fires": x.fires, "figure": name, "images": f.images,
             "mean": f.mean, "low": f.interval and f.interval[0], "high": f.interval and f.interval[1],
             "chance": f.chance, "gain": f.gain, "gain_low": f.gain_interval and f.gain_interval[0],
             "gain_high": f.gain_interval and f.gain_interval[1], "no_interval": f.no_interval}
            for of in self.units for x in of.latents for name, f in x.figures.items()
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        head = (
            f"Units chosen on {self.select.split}, localised on {self.report.split} ({self.report.images} images, "
            f"{self.report.patients} patients), maps of the {self.maps}.\nIn brackets the same maps with other "
            "patients' regions of the finding (chance). Thresholds are from the first split."
        )
        parts = [head]
        if self.without_regions:
            parts.append(f"without regions in {self.report.split}: {', '.join(self.without_regions)}")
        if self.not_shown:
            said = ", ".join(f"{label} {n}" for label, n in self.not_shown.items())
            parts.append(f"regions left out, for the table does not call the finding present there: {said}")
        if any(of.latents for of in self.units):
            parts += ["\nmeans over findings, of each finding's top unit", *self._means()]
        parts += [f"\n{of.name} at {of.hook}\n" + "\n".join(_of_units(of)) for of in self.units
                  if of.kind == "sae" and of.latents]  # fmt: skip
        return "\n".join([*parts, *self._said_inside()])

    def _means(self) -> list[str]:
        rows = [["", "findings", *FIGURES]]
        for of in self.units:
            tops = [x for x in of.latents if x.rank == 1]
            cells = []
            for name in FIGURES:
                mean, chance = ([getattr(x.figures[name], what) for x in tops] for what in ("mean", "chance"))
                cells.append(_beside(_mean(mean), _mean(chance)))
            rows.append([of.name, str(len(tops)), *cells])
        return aligned(rows, rule_after=(1,))

    def _said_inside(self) -> list[str]:
        if self.inside_finding is None:
            return []
        share = "-" if self.inside_share is None else f"{self.inside_share:.1%}"
        lines = [
            f"\n{self.inside_finding}: {self.inside_images} images of {self.report.split}, {share} of the input. "
            "Units that have an interval, and those whose activation is more outside, or inside, than an even one's",
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
            rows.append([x.label, f"#{x.unit}", _form(x.r_select), *counts, *cells])
    return aligned(rows, rule_after=(1,))


def _mean(values: list[float | None]) -> float | None:
    mean = mean_known(values) if values else float("nan")
    return None if mean != mean else mean


def _beside(mean: float | None, chance: float | None) -> str:
    return _form(mean) + ("" if chance is None else f" ({_form(chance)})")


def _form(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}"
