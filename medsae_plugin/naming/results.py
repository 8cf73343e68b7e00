"""`NameScores`: what judges make of names, typed, as it stands in `scores.json` and `scores.csv`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, ClassVar, Literal

from medsae_plugin._version import __version__
from medsae_plugin.files import make_folder, write_text
from medsae_plugin.scores.models import Figures, Result
from medsae_plugin.text import fixed, to_the_left

Condition = Literal["latents", "shuffled", "neurons"]
"""Whose names: a latent's own, another latent's, or a neuron's own."""

CONDITIONS: tuple[Condition, ...] = ("latents", "shuffled", "neurons")


class NameFigures(Figures):
    """Means over the names of one condition.

    names: how many were tried; answers, unanswered: of the judge, on their images. interval: of balanced accuracy, 95 %
    over names. p_value: of all names together, exact.
    """

    names: int
    answers: int
    unanswered: int
    balanced_accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    interval: tuple[float | None, float | None]
    p_value: float | None


class JudgeScores(Figures):
    """One judge's figures, or the majority's; None where no name was tried in a condition.

    identity: what answers depend on besides the question, as the judge says it.
    """

    judge: str
    identity: dict[str, Any]
    latents: NameFigures | None
    shuffled: NameFigures | None
    neurons: NameFigures | None

    def of(self, condition: Condition) -> NameFigures | None:
        """The figures of a condition."""
        return {"latents": self.latents, "shuffled": self.shuffled, "neurons": self.neurons}[condition]


class Kappa(Figures):
    """Cohen's kappa of two judges."""

    judges: tuple[str, str]
    kappa: float | None


class Agreement(Figures):
    """How far the judges agree on latents under their own names, over all images."""

    images: int
    cohen_kappa: list[Kappa]
    fleiss_kappa: float | None


class Leak(Figures):
    """Of the images on which latents fire, over all latents, how many their names were made from."""

    firing_images: int
    in_evidence: int


class TriedName(Figures):
    """A name, as one judge found it: counts of answers, and their figures, None where undefined."""

    judge: str
    condition: Condition
    latent: str
    concept: str
    tp: int
    fp: int
    fn: int
    tn: int
    unanswered: int
    balanced_accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    p_value: float | None


class NameScores(Result):
    """What judges make of names; `str()` is the table.

    names: how these were made (`Names.made`). trial: the rule by which images were chosen, up to images_each that fire
    and as many silent ones; a unit fires from the 1 - firing_quantile quantile on. untested: by condition, the names of
    units that fire or are silent on too few patients. leak: where nothing is held out, and is known. judges: the
    majority last, where there are several. by_name: a line for each judge and name.
    """

    FILE: ClassVar[str] = "scores.json"
    CSV: ClassVar[str] = "scores.csv"
    COMMAND: ClassVar[str] = "medsae name score"

    schema_version: Literal[1] = 1
    medsae_plugin: str = __version__
    names: dict[str, Any]
    split: str
    trial: str
    images_each: int
    firing_quantile: float
    seed: int
    untested: dict[str, int]
    leak: Leak | None
    judges: list[JudgeScores]
    agreement: Agreement | None
    by_name: list[TriedName]

    def __getitem__(self, judge: str) -> JudgeScores:
        """The figures of the judge of this name."""
        for scores in self.judges:
            if scores.judge == judge:
                return scores
        raise KeyError(judge)

    def save(self, path: str | Path) -> None:
        """Write `scores.json` and `scores.csv` into a folder."""
        folder, text = make_folder(Path(path)), io.StringIO()
        writer = csv.DictWriter(text, list(TriedName.model_fields), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(line.model_dump() for line in self.by_name)
        write_text(folder / self.CSV, text.getvalue())
        super().save(folder)

    def __str__(self) -> str:
        lines = to_the_left(self._rows())
        if untested := {kind: n for kind, n in self.untested.items() if n}:
            told = " and ".join(f"{n} named {kind}" for kind, n in untested.items())
            lines += ["", f"not tested: {told}, which fire or are silent on too few patients of split {self.split!r}"]
        if self.trial != "held-out":
            lines += ["", *self._reservations()]
        if self.agreement:
            pairs = [f"{' and '.join(p.judges)} {fixed(p.kappa)}" for p in self.agreement.cohen_kappa]
            fleiss = f"Fleiss' kappa: {fixed(self.agreement.fleiss_kappa)}"
            lines += ["", f"Cohen's kappa: {', '.join(pairs)}", fleiss]
        return "\n".join(lines)

    def _rows(self) -> list[list[str]]:
        rows = [["judge", "names of", "n", "balanced accuracy", "precision", "recall", "F1", "p", "unanswered"]]
        for judge in self.judges:
            for condition in CONDITIONS:
                if (f := judge.of(condition)) is None:
                    continue
                low, high = f.interval
                interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
                accuracy, p = (
                    f"{fixed(f.balanced_accuracy)}{interval}",
                    "-" if f.p_value is None else f"{f.p_value:.2g}",
                )
                rest = [fixed(x) for x in (f.precision, f.recall, f.f1)]
                rows.append([judge.judge, condition, str(f.names), accuracy, *rest, p, str(f.unanswered)])
        return rows

    def _reservations(self) -> list[str]:
        """What the figures of a trial that holds nothing out are worth."""
        lines = [f"trial {self.trial}: the strongest images of split {self.split!r}; an unread answer counts as no"]
        if self.split in [run.get("split") for run in (self.names, *self.names.get("runs", ()))]:
            known = self.leak and f"{self.leak.in_evidence} of the {self.leak.firing_images} firing"
            lines.append(
                f"this leaks: names were made from these images, and {known or 'an unknown number of the firing'} "
                "images were in their own name's evidence"
            )
        return lines
