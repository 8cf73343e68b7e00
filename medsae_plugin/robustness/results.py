"""`Robustness`: what perturbations keep of latents, typed, as in `robustness.json` and `robustness.parquet`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from pydantic import Field, PrivateAttr

from medsae_plugin._version import __version__
from medsae_plugin.files import make_folder, write_parquet
from medsae_plugin.scores.models import Encoder, Figures, Result, Split
from medsae_plugin.scores.registry import mean_known
from medsae_plugin.scores.units import Kind
from medsae_plugin.text import aligned

ROBUSTNESS_FILE, FIGURES_FILE = "robustness.json", "robustness.parquet"


class KeptR(Figures):
    """r of a top latent's activation on perturbed images with its label, and by how much that is off `r` on the images.

    change_low, change_high: the interval of the change over patients; no_interval: why there is none.
    """

    r: float | None
    change: float | None
    change_low: float | None = None
    change_high: float | None = None
    no_interval: str | None = None


class RobustLabel(Figures):
    """A label's top unit, chosen on `select`. r: with the label on the images of `report`; perturbed: by perturbation.

    hangs_on: see `RobustUnits`.
    """

    label: str
    latent: int | str | None
    r: float | None
    perturbed: dict[str, KeptR] = Field(default_factory=dict)
    hangs_on: str = ""


class Summary(Figures):
    """A perturbation over those units of an SAE that fire on enough patients: medians, and how many keep or change.

    jaccard_chance: of units that fire as often, independently.
    """

    jaccard: float | None
    jaccard_chance: float | None
    r: float | None
    keeps: int
    changes: int
    cannot_say: int


class RobustUnits(Figures):
    """An SAE, an untrained one, or the neurons of a hook. judged: units that fire on enough patients to be judged.

    hangs_on: by what they seem to hang on, in words, the units; every unit has its rows in `robustness.parquet`.
    held_out_from: of an SAE, whether it and the encoder have seen the patients of `report`.
    """

    name: str
    kind: Kind
    hook: str
    baseline_of: str | None
    held_out_from: str | None = None
    units: int
    judged: int
    perturbations: dict[str, Summary]
    top: list[RobustLabel]
    hangs_on: dict[str, list[int | str | None]]

    def mean_top_r(self, perturbation: str | None = None) -> float:
        """The mean over labels of their top units' r, on the images or on a perturbation; undefined ones are 0."""
        if perturbation is None:
            return mean_known([x.r or 0.0 for x in self.top])
        return mean_known([x.perturbed[perturbation].r or 0.0 if x.perturbed else 0.0 for x in self.top])


class Robustness(Result):
    """What `score_robustness` found; `str()` is its tables.

    perturbations: by name, in words. groups: of patients, each left out in turn for intervals.
    """

    FILE: ClassVar[str] = ROBUSTNESS_FILE
    COMMAND: ClassVar[str] = "medsae robustness"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    aggregate: str
    select: Split
    report: Split
    seed: int
    groups: int
    perturbations: dict[str, str]
    units: list[RobustUnits]
    _frame: pd.DataFrame | None = PrivateAttr(default=None)

    @classmethod
    def open(cls, path: str | Path) -> Robustness:
        found = super().open(path)
        file = cls.file_at(path).parent / FIGURES_FILE
        found._frame = pd.read_parquet(file) if file.is_file() else None
        return found

    def save(self, path: str | Path) -> None:
        """Write `robustness.json`, and `robustness.parquet` with a row a unit and perturbation, into a folder."""
        folder = make_folder(Path(path))
        if self._frame is not None:
            write_parquet(folder / FIGURES_FILE, self._frame)
        super().save(folder)

    def frame(self) -> pd.DataFrame:
        """One row a unit and perturbation."""
        return pd.DataFrame() if self._frame is None else self._frame

    def __str__(self) -> str:
        select, report = self.select, self.report
        head = (
            f"The same units on images of {report.split} and on the same images perturbed ({report.images} images, "
            f"{report.patients} patients).\nTop units are chosen on {select.split}. Medians over the units that fire "
            "on enough patients; in brackets what chance gives units that fire as often."
        )
        parts = [head, "\n".join(self._summary()), "\n".join(self._labels())]
        parts += ["\n".join(_hanging(of)) for of in self.units if of.kind == "sae"]
        parts.append("\n".join(f"{name}: {words}" for name, words in self.perturbations.items()))
        return "\n\n".join(part for part in parts if part)

    def _summary(self) -> list[str]:
        rows = [["", "perturbed", "units", "Jaccard", "r with itself", "keep", "change", "mean top r"]]
        for of in self.units:
            rows.append([of.name, "-", str(of.judged), "", "", "", "", _form(of.mean_top_r())])
            for name, s in of.perturbations.items():
                shares = [f"{n / of.judged:.0%}" if of.judged else "-" for n in (s.keeps, s.changes)]
                jaccard = f"{_form(s.jaccard)} ({_form(s.jaccard_chance)})"
                rows.append(["", name, "", jaccard, _form(s.r), *shares, _form(of.mean_top_r(name))])
        return aligned(rows, rule_after=(1,))

    def _labels(self) -> list[str]:
        lines = []
        for of in self.units:
            if of.kind == "sae":
                rows = [["observation", "", "r", *self.perturbations]]
                for x in of.top:
                    cells = [_changed(x.perturbed.get(name)) for name in self.perturbations]
                    rows.append([x.label, f"#{x.latent}" if x.latent is not None else "-", _form(x.r), *cells])
                lines += [
                    f"{of.name} at {of.hook}. {of.held_out_from or ''}".rstrip(),
                    *aligned(rows, rule_after=(1,)),
                    "r of top latents with their observation, on the images and perturbed; *: off it by an interval "
                    "that leaves 0 out.",
                ]
        return lines


def _hanging(of: RobustUnits) -> list[str]:
    if not of.hangs_on:
        return [f"{of.name}: no latent seems to hang on an edge, a side or on grey levels."]
    tops = {x.latent: x.label for x in of.top if x.hangs_on}
    lines = [f"{of.name}: of {of.judged} latents"]
    for words, latents in of.hangs_on.items():
        mine = _listed(f"#{j} ({tops[j]})" for j in latents if j in tops)
        lines.append(f"  {len(latents)} on {words}" + (f"; top latents: {mine}" if mine else ""))
    return lines


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _changed(kept: KeptR | None) -> str:
    if kept is None:
        return "-"
    low, high = kept.change_low, kept.change_high
    return _form(kept.r) + ("*" if low is not None and high is not None and low * high > 0 else "")


def _form(x: float | None) -> str:
    return "-" if x is None or x != x else f"{x:.2f}"
