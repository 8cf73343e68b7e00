"""The parts of a `Selectivity`: units, their ablations, and what each changes of every label."""

from __future__ import annotations

from typing import Literal

from medsae_plugin.scores.models import Figures
from medsae_plugin.scores.units import Kind

Measure = Literal["probe", "zero-shot"]


class Effect(Figures):
    """What an ablation changes of one label.

    auroc: after it. change: of the AUROC, after less before; low, high: its 95% interval over patients, or why there is
        none. score: the mean change of the log-odds (of zero-shot scores, of these) on images that show the label.
    """

    target: str
    auroc: float | None
    change: float | None
    low: float | None = None
    high: float | None = None
    no_interval: str | None = None
    score: float | None = None


class Ablation(Figures):
    """The units of a concept silenced; of as many live units drawn at random, means over draws, and `concept` is None.

    covariate: whether the concept was named as one. units: as they are called, best first; one list, or one a fold;
        fewer than k where no more carry it.
    own: the change of AUROC of the concept's own label (of a covariate with several, their mean). others: the mean
        change of the other findings. selectivity: others less own, so that more is more selective.
    score: as `Effect.score`, of the own label. Bounds are 95% intervals over patients, or why there are none.
    """

    concept: str | None
    covariate: bool
    k: int
    units: list[list[int | str | None]]
    effects: list[Effect]
    own: float | None = None
    own_low: float | None = None
    own_high: float | None = None
    others: float | None = None
    selectivity: float | None = None
    selectivity_low: float | None = None
    selectivity_high: float | None = None
    score: float | None = None
    score_low: float | None = None
    score_high: float | None = None
    no_interval: str | None = None

    def on(self, target: str) -> Effect | None:
        """What it changes of a label."""
        return next((e for e in self.effects if e.target == target), None)


class MeanAblation(Figures):
    """Means over findings, each with its own units silenced; `random`: of each finding's change, with random ones."""

    k: int
    own: float | None = None
    own_low: float | None = None
    own_high: float | None = None
    others: float | None = None
    selectivity: float | None = None
    selectivity_low: float | None = None
    selectivity_high: float | None = None
    random: float | None = None
    no_interval: str | None = None


class AblatedUnits(Figures):
    """The ablations of an SAE's latents, of an untrained one's, or of a hook's neurons.

    measure: whether probes at the hook were read, or the encoder's zero-shot scores. live: how many units could be
        chosen (of folds, in the mean). unedited: AUROC by label while nothing is silent.
    held_out_from: of an SAE, in words, whether it and its encoder have seen the patients of `report`.
    """

    name: str
    kind: Kind
    hook: str
    baseline_of: str | None
    measure: Measure
    live: float
    unedited: dict[str, float | None]
    ablations: list[Ablation]
    means: list[MeanAblation]
    held_out_from: str | None = None

    def of(self, concept: str | None, k: int, covariate: bool = False) -> Ablation | None:
        """The ablation of a concept's k units; None of random ones."""
        return next(
            (a for a in self.ablations if (a.concept, a.k, a.covariate) == (concept, k, covariate)),
            None,
        )
