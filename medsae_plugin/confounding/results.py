"""`Confounders`: what latents lean on, typed, as in `confounders.json` and `confounders.parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from pydantic import Field

from medsae_plugin._version import __version__
from medsae_plugin.files import make_folder, write_parquet
from medsae_plugin.scores.models import Encoder, Figures, Result, Split
from medsae_plugin.scores.table import roles, without_rows
from medsae_plugin.text import aligned, fixed

ALL = "all"
"""Covariates at once."""
TOO_FEW = "too few to say"
"""How verdicts begin that say why there is none."""


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

    covariate: `all` of all of them at once, which has no strata.
    latent: as its units call it; None of a probe of all neurons. top: whether it is the label's top latent, chosen on
        `select`; others are above the null there. chosen_in: how many folds chose it; None without folds.
    r, partial: Pearson's r with the label, and what is left after a regression of both on the covariate.
    within: r within strata, pooled by Fisher's z. explained: 1 - partial / r, half_p: p of its being half or less.
    auroc, auroc_within: of all pairs, and of pairs within a stratum. kept: what the second is above 0.5, as a share of
        that of the first. no_share: why there is no `explained` or `kept`.
    with_covariate: r with the covariate; eta, without a sign, of more than two categories. strength: its size, less
        what chance gives (adjusted R). gap_low, gap_high: the interval of strength - |r|; gap_p: p of its being 0 or
        less. Both p are one-sided, corrected over the unit's covariates (Holm).
    worst: the stratum of the lowest AUROC.
    """

    label: str
    covariate: str
    images: int
    positives: int
    latent: int | str | None = None
    top: bool = True
    chosen_in: int | None = None
    r: float | None = None
    r_low: float | None = None
    r_high: float | None = None
    with_covariate: float | None = None
    strength: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    gap_p: float | None = None
    partial: float | None = None
    partial_low: float | None = None
    partial_high: float | None = None
    within: float | None = None
    explained: float | None = None
    explained_low: float | None = None
    explained_high: float | None = None
    half_p: float | None = None
    auroc: float | None = None
    auroc_within: float | None = None
    kept: float | None = None
    kept_low: float | None = None
    kept_high: float | None = None
    no_share: dict[str, str] = Field(default={})
    strata: list[Stratum] = Field(default=[])
    worst: str | None = None
    no_interval: str | None = None
    verdict: str = ""

    @property
    def leans(self) -> bool:
        """Whether the verdict says that a covariate stands behind the latent."""
        return self.verdict.startswith(("follows ", "mostly explained"))

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
    """What `score_confounders` found; `str()` is its tables.

    lacking: covariates that no image of `report` has, and so said in words.
    """

    FILE: ClassVar[str] = "confounders.json"
    COMMAND: ClassVar[str] = "medsae confounders"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    aggregate: str
    select: Split
    report: Split
    covariates: list[str]
    lacking: dict[str, str] = Field(default={})
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
                    **one.model_dump(exclude={"strata", "no_share"}),
                }
                row["latent"] = None if one.latent is None else str(one.latent)
                row["worst_auroc"] = None if worst is None else worst.auroc
                rows.append(row)
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> None:
        """Write `confounders.json` and `confounders.parquet` into a folder."""
        folder = make_folder(Path(path))
        write_parquet(folder / "confounders.parquet", self.frame())
        super().save(folder)

    def __str__(self) -> str:
        select, report = self.select, self.report
        head = [
            roles(select, report, self.aggregate),
            *without_rows(select, report),
            *(f"{name}: {why}." for name, why in self.lacking.items()),
            "r: with the observation; cov: with the covariate (of two categories the second by name is 1, as M of F",
            "and M; R, without a sign, of more, and of all covariates at once); partial: r after a regression on it;",
            "within: r in its strata; expl: the share of r that it explains; kept: of what AUROC is above 0.5, the",
            "share of pairs within a stratum; worst: the lowest AUROC of a stratum large enough. -: no figure. The",
            "files have intervals, why there is no figure, and latents above the null beside the top ones.",
        ]
        return "\n".join([*head, *(f"\n{_table(u, report.folds)}" for u in self.units), "", *_compared(self.units)])


def _table(units: LeaningUnits, folds: int | None) -> str:
    names = ("r", "covariate", "cov", "partial", "within", "expl", "kept", "worst", "", "verdict")
    rows = [["observation", "", *names]]
    for one in units.leanings:
        if one.top:
            worst = one.worst_stratum
            latent = "" if one.latent is None else f"#{one.latent}"
            latent += "" if one.chosen_in is None else f" ({one.chosen_in}/{folds})"
            figures = [fixed(one.r), one.covariate, *map(fixed, (one.with_covariate, one.partial, one.within))]
            lowest = ["-", ""] if worst is None else [fixed(worst.auroc), worst.stratum]
            said = TOO_FEW if one.verdict.startswith(TOO_FEW) else one.verdict
            rows.append([one.label, latent, *figures, _share(one.explained), _share(one.kept), *lowest, said])
    return "\n".join([f"{units.name} ({units.hook})", *aligned(rows, rule_after=(1,)), *_too_few(units)])


def _too_few(units: LeaningUnits) -> list[str]:
    """A line for each reason why there is too little to say, with the labels, and covariates, that it is of."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for one in units.leanings:
        if one.top and one.verdict.startswith(TOO_FEW):
            reasons.setdefault(one.verdict, {}).setdefault(one.label, []).append(one.covariate)
    beside = len({one.covariate for one in units.leanings})
    return [
        f"{verdict}: " + "; ".join(c if len(by) == beside else f"{c} by {', '.join(by)}" for c, by in of.items())
        for verdict, of in reasons.items()
    ]


def _compared(units: Sequence[LeaningUnits]) -> list[str]:
    """What is kept of each label's AUROC, of an SAE's top latents beside the encoder's neurons and its probe."""
    lines: list[str] = []
    for hook in dict.fromkeys(one.hook for one in units):
        here = [one for one in units if one.hook == hook]
        kept = [{(x.label, x.covariate): x.kept for x in one.leanings if x.top} for one in here]
        told = [key for key in dict.fromkeys(key for one in kept for key in one) if any(one.get(key) for one in kept)]
        if not told:
            lines.append(f"{hook}: of no observation is it known how much of its AUROC is kept within strata.")
            continue
        rows = [["observation", "covariate", *(one.name for one in here)]]
        rows += [[*key, *(_share(one.get(key)) for one in kept)] for key in told]
        lines += [f"{hook}: kept, side by side", *aligned(rows, rule_after=(1,))]
    return lines


def _share(x: float | None) -> str:
    return "-" if x is None else f"{x:.0%}"
