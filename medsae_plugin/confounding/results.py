"""`Confounders`: what latents lean on, typed, as in `confounders.json` and `confounders.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from pydantic import Field

from medsae_plugin._version import __version__
from medsae_plugin.files import make_folder, replacing
from medsae_plugin.scores.models import Encoder, Figures, Result, Split
from medsae_plugin.scores.table import without_rows
from medsae_plugin.text import aligned


class Stratum(Figures):
    """A latent and a label in one stratum; without figures where it is too small, and `no_interval` says why."""

    stratum: str
    images: int
    positives: int
    r: float | None = None
    auroc: float | None = None
    auroc_low: float | None = None
    auroc_high: float | None = None
    no_interval: str | None = None


class Leaning(Figures):
    """One latent of one label beside one covariate, over images of `report` where both are known.

    latent: as its units call it; None of a probe of all neurons. top: whether it is the label's top latent, chosen on
        `select`; others are above the null there.
    r, partial: Pearson's r with the label, and what is left after a regression of both on the covariate.
    within: r within strata, pooled by Fisher's z. explained: 1 - partial / r, where r is not 0 by its interval.
    with_covariate: r with the covariate; eta, without a sign, of more than two categories. strength: its size, less
        what chance gives (adjusted R). gap_low, gap_high: the interval of strength - |r|.
    worst: the stratum of the lowest AUROC.
    """

    label: str
    covariate: str
    images: int
    positives: int
    latent: int | str | None = None
    top: bool = True
    r: float | None = None
    r_low: float | None = None
    r_high: float | None = None
    with_covariate: float | None = None
    strength: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    partial: float | None = None
    partial_low: float | None = None
    partial_high: float | None = None
    within: float | None = None
    explained: float | None = None
    strata: list[Stratum] = Field(default=[])
    worst: str | None = None
    no_interval: str | None = None
    verdict: str = ""

    @property
    def worst_stratum(self) -> Stratum | None:
        return next((s for s in self.strata if s.stratum == self.worst), None)


class LeaningUnits(Figures):
    """An SAE, a hook's raw neurons, or a probe of all of them."""

    name: str
    kind: Literal["sae", "neurons", "probe"]
    hook: str
    leanings: list[Leaning]


class Confounders(Result):
    """What `score_confounders` found; `str()` is its tables."""

    FILE: ClassVar[str] = "confounders.json"
    COMMAND: ClassVar[str] = "medsae confounders"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    aggregate: str
    select: Split
    report: Split
    covariates: list[str]
    units: list[LeaningUnits]

    def frame(self) -> pd.DataFrame:
        """A row a latent, label and covariate; of its strata the worst."""
        rows = []
        for units in self.units:
            for one in units.leanings:
                worst = one.worst_stratum
                row = {
                    "units": units.name,
                    "kind": units.kind,
                    "hook": units.hook,
                    **one.model_dump(exclude={"strata"}),
                }
                row["latent"] = None if one.latent is None else str(one.latent)
                row["worst_auroc"] = None if worst is None else worst.auroc
                rows.append(row)
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> None:
        """Write `confounders.json` and `confounders.parquet` into a folder."""
        folder = make_folder(Path(path))
        with replacing(folder / "confounders.parquet") as temporary:
            self.frame().to_parquet(temporary, index=False)
        super().save(folder)

    def __str__(self) -> str:
        select, report = self.select, self.report
        head = [
            f"Top latents chosen on {select.split} ({select.images} images, {select.patients} patients), figures on "
            f"{report.split} ({report.images} images, {report.patients} patients); {self.aggregate} over positions.",
            *without_rows(select, report),
            "r: with the observation; cov: with the covariate (of two categories the second by name is 1, as M of F",
            "and M; eta, without a sign, of more); partial: r after a regression on it; within: in its strata; expl:",
            "the share of r that it explains; worst: the lowest AUROC of a stratum large enough. Latents above",
            "the null, beside the top ones, are in the files.",
        ]
        return "\n".join([*head, *(f"\n{_table(u)}" for u in self.units)])


def _table(units: LeaningUnits) -> str:
    rows = [["observation", "", "r", "covariate", "cov", "partial", "within", "expl", "worst", "", "verdict"]]
    for one in units.leanings:
        if one.top:
            worst = one.worst_stratum
            latent = "" if one.latent is None else f"#{one.latent}"
            figures = [_form(one.r), one.covariate, *map(_form, (one.with_covariate, one.partial, one.within))]
            share = "-" if one.explained is None else f"{one.explained:.0%}"
            lowest = ["-", ""] if worst is None else [_form(worst.auroc), worst.stratum]
            rows.append([one.label, latent, *figures, share, *lowest, one.verdict])
    return "\n".join([f"{units.name} ({units.hook})", *aligned(rows, rule_after=(1,))])


def _form(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}"
