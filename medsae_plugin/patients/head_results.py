"""`HeadReport`: how a concept head was made, and what it tells on patients that it was not fitted on; `head.json`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from medsae_plugin._version import __version__
from medsae_plugin.scores.models import Encoder, Figures, Result, Split
from medsae_plugin.scores.registry import mean_known, number
from medsae_plugin.text import aligned, fixed

HeadKind = Literal["l1", "top-k", "additive"]
_KINDS = {
    "l1": "logistic regression with an L1 penalty",
    "top-k": "logistic regression on the k latents of largest |r|",
    "additive": "a curve of straight pieces a latent, on the k latents of largest |r|",
}


class Bin(Figures):
    """Images of like prediction: their number, the mean probability, and the share that has the finding."""

    images: int
    predicted: float
    found: float


class Condition(Figures):
    """A latent that fires above a threshold, or does not."""

    latent: int
    above: bool
    threshold: float


class Rule(Figures):
    """Conditions that hold together, and how many images and patients of `report` meet them, with the share of those
    images that has the finding; None where no image of `report` meets them."""

    conditions: list[Condition]
    images: int
    patients: int
    share: float | None


class HeadLabel(Figures):
    """One finding's head on `report`; None where a figure is undefined.

    latents: how many have a part. strength: that was chosen: scikit-learn's C. k: of kinds that choose k.
    auroc: with its 95% interval over patients, or why there is none. probe, probe_interval: those of all neurons'
        probe. zero_shot: AUROC of the encoder's own words. brier: the mean squared error of the probability, beside
        `brier_of_share`, that of
        saying the share of `select` of every image. ece: the mean distance of predicted and found over `curve`'s bins,
        which have as many images each (Naeini et al. 2015; of equal mass: Nixon et al. 2019).
    rules: see `rules`.
    """

    label: str
    positives: int
    known: int
    latents: int
    k: int | None = None
    strength: float | None = None
    auroc: float | None
    interval: tuple[float, float] | None = None
    no_interval: str | None = None
    probe: float | None = None
    probe_interval: tuple[float, float] | None = None
    zero_shot: float | None = None
    brier: float | None = None
    brier_of_share: float | None = None
    ece: float | None = None
    curve: list[Bin] = Field(default_factory=list)
    rules: list[Rule] = Field(default_factory=list)

    @property
    def recovered(self) -> float | None:
        """The share of what all neurons tell beyond chance: (AUROC - 0.5) / (theirs - 0.5); None where they are not
        above it."""
        if self.auroc is None or self.probe is None or self.probe_interval is None or self.probe_interval[0] <= 0.5:
            return None
        return (self.auroc - 0.5) / (self.probe - 0.5)


class HeadReport(Result):
    """How a concept head was made, and its figures; `str()` is its table.

    n: the SAE's latents. tuned: the split that strengths, k and rules were chosen on.
    """

    FILE: ClassVar[str] = "head.json"
    COMMAND: ClassVar[str] = "medsae head"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    sae: str
    sae_sha256: str
    hook: str
    n: int
    aggregate: Literal["max", "mean"]
    kind: HeadKind
    select: Split
    tuned: Split
    report: Split
    held_out_from: str | None = None
    names: dict[int, str] = Field(default_factory=dict)
    labels: list[HeadLabel]

    def __str__(self) -> str:
        head = [
            f"{self.sae} at {self.hook}: {_KINDS[self.kind]}; {self.aggregate} over positions.",
            f"Fitted on {self.select.split} ({self.select.images} images, {self.select.patients} patients), its "
            f"strength chosen on {self.tuned.split} ({self.tuned.images}, {self.tuned.patients}),",
            f"figures on {self.report.split} ({self.report.images} images, {self.report.patients} patients). all: the "
            "probe of all neurons; share: of its AUROC above 0.5.",
            "Brier: the mean squared error of the probability, in brackets that of saying the label's share alone.",
            "",
        ]
        words = [*self._rules(), *([self.held_out_from] if self.held_out_from else [])]
        return "\n".join([*head, *aligned(self._rows(), rule_after=(1, len(self.labels) + 1)), *words])

    def _rows(self) -> list[list[str]]:
        with_words = any(one.zero_shot is not None for one in self.labels)
        rows = [["finding", "+", "latents", "AUROC", "[95%]", "all", "share",
                 *(["zero-shot"] if with_words else []), "Brier", "", "ECE"]]  # fmt: skip
        for one in self.labels:
            between = "-" if one.interval is None else "{:.2f}-{:.2f}".format(*one.interval)
            rows.append(
                [
                    one.label,
                    str(one.positives),
                    "-" if one.auroc is None else str(one.latents),
                    fixed(one.auroc),
                    between,
                    fixed(one.probe),
                    "-" if one.recovered is None else f"{one.recovered:.0%}",
                    *([fixed(one.zero_shot)] if with_words else []),
                    fixed(one.brier, 3),
                    f"({fixed(one.brier_of_share, 3)})",
                    fixed(one.ece, 3),
                ]
            )
        means = [self.mean(key) for key in ("auroc", "probe", "zero_shot", "brier", "brier_of_share", "ece")]
        auroc, probe, zero_shot, brier, of_share, ece = means
        rows.append(["mean", "", fixed(self.mean("latents"), 1), fixed(auroc), "", fixed(probe), "",
                     *([fixed(zero_shot)] if with_words else []), fixed(brier, 3), f"({fixed(of_share, 3)})",
                     fixed(ece, 3)])  # fmt: skip
        return rows

    def mean(self, figure: str) -> float | None:
        """Over the labels that could be scored."""
        return number(mean_known([one.value(figure) for one in self.labels if one.auroc is not None]))

    def above_chance(self) -> list[HeadLabel]:
        """The labels whose AUROC is."""
        return [one for one in self.labels if one.interval is not None and one.interval[0] > 0.5]

    def latent(self, j: int) -> str:
        """A latent as people read it: its number, and its name where it has one."""
        return f"#{j} ({self.names[j]})" if j in self.names else f"#{j}"

    def _rules(self) -> list[str]:
        lines = []
        for one in self.above_chance():
            for rule in one.rules:
                what = " and ".join(
                    f"{'' if c.above else 'not '}{self.latent(c.latent)} > {c.threshold:.2g}" for c in rule.conditions
                )
                share = "on no image" if rule.share is None else f"{rule.share:.0%} of {rule.images} images"
                lines.append(f"  {one.label}: {what}: {share}, {rule.patients} patients")
        return ["", f"Rules of findings above chance, learnt on {self.select.split}, and the share with the finding on "
                f"{self.report.split}",
                *lines, ""] if lines else []  # fmt: skip
