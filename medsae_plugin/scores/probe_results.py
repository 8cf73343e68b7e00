"""`Probes`: what probes of units, of all neurons and of reconstructions tell, typed, as in `probes.json`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from medsae_plugin._version import __version__
from medsae_plugin.files import make_folder
from medsae_plugin.scores.models import Encoder, Figures, Result, Split
from medsae_plugin.scores.registry import mean_known, number
from medsae_plugin.scores.table import without_rows
from medsae_plugin.scores.units import Kind
from medsae_plugin.text import aligned, fixed

PROBES_FILE = "probes.json"
_TITLES = {"reconstructed": "rebuilt", "sparse": "L1", "single_auroc": "one"}


class ProbedLabel(Figures):
    """What probes of some units tell of a label: AUROC on `report`, None where the label does not vary.

    latents: those chosen, best first, of which the k-sparse probe of k takes the first k; one list, or one of each
        fold. k_sparse: by k; of fewer units all.
    sparse, sparse_units: of the probe with an L1 penalty, and how many units it kept, over folds the mean.
    reconstructed: of the probe of all neurons, on what the SAE makes of them; None of what does not reconstruct.
    single: the unit whose own regression has the least cross-entropy on `select`; of that regression its weight, AUROC
        and cross-entropy in nats, beside that of the label's share on `select` alone (`prevalence_bce`). Of folds the
        unit that most chose, `single_in` of them, and its mean weight there.
    intervals, no_interval: 95% over patients, of every AUROC by its figure's name or k; or why there is none.
    """

    label: str
    positives: int
    known: int
    latents: list[list[int | str | None]]
    k_sparse: dict[str, float | None]
    sparse: float | None
    sparse_units: float | None
    reconstructed: float | None
    single: int | str | None = None
    single_in: int | None = None
    single_weight: float | None = None
    single_auroc: float | None = None
    single_bce: float | None = None
    prevalence_bce: float | None = None
    intervals: dict[str, tuple[float, float]]
    no_interval: dict[str, str]


class ProbedUnits(Figures):
    """The probes of an SAE's latents, of a baseline's, or of a hook's neurons.

    held_out_from: of an SAE, in words, whether it and its encoder have seen the patients of `report`.
    """

    name: str
    kind: Kind
    hook: str
    baseline_of: str | None
    labels: list[ProbedLabel]
    held_out_from: str | None = None

    def mean(self, k: int | None = None, figure: str = "sparse") -> float | None:
        """The mean AUROC over labels: of the k-sparse probes, or of another figure."""
        return number(mean_known([o.k_sparse[str(k)] if k else o.value(figure) for o in self.labels]))


class HookProbe(Figures):
    """The probe of all d neurons of a hook: for each label its AUROC, with its 95% interval or why there is none."""

    hook: str
    d: int
    auroc: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    no_interval: dict[str, str]

    @property
    def mean(self) -> float | None:
        return number(mean_known(list(self.auroc.values())))


class Probes(Result):
    """What `probe_units` found; `str()` is its tables."""

    FILE: ClassVar[str] = PROBES_FILE
    COMMAND: ClassVar[str] = "medsae probe"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    aggregate: str
    select: Split
    report: Split
    ks: list[int]
    hooks: list[HookProbe]
    units: list[ProbedUnits]

    def save(self, path: str | Path) -> None:
        """Write `probes.json` into a folder."""
        super().save(make_folder(Path(path)))

    def ceiling(self, hook: str) -> HookProbe:
        return next(h for h in self.hooks if h.hook == hook)

    def recovered(self, auroc: float | None, hook: str) -> float | None:
        """The share of what all neurons tell beyond chance: (AUROC - 0.5) / (theirs - 0.5); None where they tell
        nothing."""
        most = self.ceiling(hook).mean
        return None if auroc is None or most is None or most <= 0.5 else (auroc - 0.5) / (most - 0.5)

    def __str__(self) -> str:
        head = [
            *self._roles(),
            "k: logistic regression on the k units that correlate most with the observation where it is fitted; L1: on",
            "all, and how many it kept. all: on all neurons, the ceiling; rebuilt: that on the SAE's reconstruction.",
            "Means over observations, in brackets the share of the ceiling's AUROC above 0.5.",
        ]
        return "\n".join(["\n".join(head), *(f"\n{self._of_hook(h)}" for h in self.hooks),
                          *(f"\n{self._of_sae(u)}" for u in self.units if u.kind == "sae")])  # fmt: skip

    def _roles(self) -> list[str]:
        select, report, end = self.select, self.report, f"{self.aggregate} over positions."
        sizes = f"({report.images} images, {report.patients} patients)"
        gone = [f"Left out: {report.left_out} patients that an SAE was trained on."] if report.left_out else []
        if report.folds:
            return [
                f"Probes cross-fitted over {report.folds} folds of the patients of {report.split} {sizes}: units",
                "chosen and probes fitted on all folds but one, scored on that one, in turn, AUROC of pairs in a fold; "
                f"{end}",
                *gone,
                *without_rows(report),
            ]
        return [
            f"Probes fitted on {select.split} ({select.images} images, {select.patients} patients), AUROC on "
            f"{report.split} {sizes}; {end}",
            *gone,
            *without_rows(select, report),
        ]

    def _of_hook(self, hook: HookProbe) -> str:
        rows = [["", *(f"k={k}" for k in self.ks), "L1", "units", "rebuilt"]]
        for u in self.units:
            if u.hook != hook.hook:
                continue
            means = [*(u.mean(k) for k in self.ks), u.mean()]
            kept = mean_known([o.value("sparse_units") for o in u.labels])
            rows.append(
                [
                    u.name,
                    *(self._share(x, hook.hook) for x in means),
                    "-" if kept != kept else f"{kept:.0f}",
                    self._share(u.mean(figure="reconstructed"), hook.hook),
                ]
            )
        title = f"{hook.hook}: all {hook.d} neurons {fixed(hook.mean)}"
        return "\n".join([title, *aligned(rows, rule_after=(1,))])

    def _of_sae(self, sae: ProbedUnits) -> str:
        """Two rows an observation: AUROCs, and below them their intervals."""
        ceiling, figures = self.ceiling(sae.hook), ["reconstructed", *map(str, self.ks), "sparse"]
        heads = ["observation", "+", "all", *map(_title, figures), "latents", "one", "AUROC", "BCE", "(share alone)"]
        rows = [heads]
        for o in sae.labels:
            rows.append(
                [
                    o.label,
                    str(o.positives),
                    fixed(ceiling.auroc[o.label]),
                    fixed(o.reconstructed),
                    *(fixed(o.k_sparse[str(k)]) for k in self.ks),
                    fixed(o.sparse),
                    fixed(o.sparse_units, 0),
                    self._single(o),
                    fixed(o.single_auroc),
                    fixed(o.single_bce, 3),
                    f"({fixed(o.prevalence_bce, 3)})",
                ]
            )
            between = [ceiling.intervals.get(o.label), *(o.intervals.get(figure) for figure in figures)]
            alone = o.intervals.get("single_auroc")
            if any([*between, alone]):
                rows.append(["  [95%]", "", *map(_between, between), "", "", _between(alone), "", ""])
        title = (
            f"{sae.name} by observation; one: the latent of the least cross-entropy by itself, -# where it is silent"
        )
        seen = [sae.held_out_from] if sae.held_out_from else []
        return "\n".join([title, *aligned(rows, rule_after=(1,)), *_without_interval(sae), *seen])

    def _single(self, o: ProbedLabel) -> str:
        if o.single is None:
            return "-"
        chosen_in = f" ({o.single_in}/{self.report.folds})" if o.single_in is not None else ""
        return f"{'-' if (o.single_weight or 0) < 0 else ''}#{o.single}{chosen_in}"

    def _share(self, auroc: float | None, hook: str) -> str:
        share = self.recovered(auroc, hook)
        return fixed(auroc) + ("" if share is None else f" ({share:.0%})")


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else "{:.2f}-{:.2f}".format(*interval)


def _without_interval(units: ProbedUnits) -> list[str]:
    """A line for each reason why there is no interval: the observations, and of which probes where not of all."""
    reasons: dict[str, list[str]] = {}
    for o in units.labels:
        for why in dict.fromkeys(o.no_interval.values()):
            probes = [_title(figure) for figure, one in o.no_interval.items() if one == why]
            only = "" if len(probes) > len(o.k_sparse) + 2 else f" {' '.join(probes)}"
            reasons.setdefault(why, []).append(o.label + only)
    return [f"no interval: {', '.join(of)} ({why})" for why, of in reasons.items()]


def _title(figure: str) -> str:
    return _TITLES.get(figure, f"k={figure}")
