"""From what ablations change to what is written of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from medsae_plugin.scores.registry import number
from medsae_plugin.scores.units import Units
from medsae_plugin.selectivity.ablation import Sets
from medsae_plugin.selectivity.concepts import Concept
from medsae_plugin.selectivity.effects import Changed, Unedited
from medsae_plugin.selectivity.models import AblatedUnits, Ablation, Effect, MeanAblation, Measure
from medsae_plugin.statistics.intervals import FEW_LABELS

Silenced = Callable[[int, int], tuple[Float[np.ndarray, "rows labels"], Bool[np.ndarray, " rows"]]]
"""Of a place in `Sets.all` and a k: the scores when its first k units are silent, and where one of these would fire."""


def summarise(
    units: Units,
    measure: Measure,
    sets: Sequence[Sets],
    concepts: Sequence[Concept],
    ks: Sequence[int],
    unedited: Unedited,
    silenced: Silenced,
    seed: int,
) -> AblatedUnits:
    """Every concept's units silenced, and as many drawn at random, for each k."""
    findings = np.array([c.columns[0] for c in concepts if not c.is_covariate])
    ablations, means = [], []
    for k in ks:
        drawn = Changed.mean([unedited.changed(*silenced(len(concepts) + d, k)) for d in range(len(sets[0].drawn))])
        ablations.append(_Ablated(unedited, None, drawn, findings).model(k, [], None, seed))
        made = []
        for s, concept in enumerate(concepts):
            after, firing = silenced(s, k)
            one = _Ablated(unedited, concept, unedited.changed(after, firing), findings)
            chosen = [[units.label(j) for j in of_choice.of_concept[s][:k].tolist()] for of_choice in sets]
            ablations.append(one.model(k, chosen, after, seed))
            made.append(one)
        means.append(_mean(k, [one for one in made if one.is_finding], drawn))
    names = unedited.held_out.images.label_names
    return AblatedUnits(
        name=units.name,
        kind=units.kind,
        hook=units.hook,
        baseline_of=units.baseline_of,
        measure=measure,
        live=float(np.mean([one.live for one in sets])),
        unedited={name: number(x) for name, x in zip(names, unedited.auroc, strict=True)},
        ablations=ablations,
        means=means,
    )


class _Ablated:
    """One concept's units silenced, with the mean changes of its own labels and of the other findings; nan of none."""

    def __init__(
        self, unedited: Unedited, concept: Concept | None, changed: Changed, findings: Int[np.ndarray, " findings"]
    ) -> None:
        self.unedited, self.concept, self.changed = unedited, concept, changed
        mine = np.array(concept.columns if concept else (), dtype=np.int64)
        self.own, self.own_left_out = self._mean_of(mine)
        self.others, self.others_left_out = self._mean_of(np.setdiff1d(findings, mine))

    def _mean_of(self, columns: Int[np.ndarray, " columns"]) -> tuple[float, Float[np.ndarray, " patients"]]:
        columns = np.intersect1d(columns, self.unedited.defined)
        if not len(columns):
            return np.nan, np.full(self.unedited.held_out.jackknife.n_patients, np.nan)
        return float(self.changed.change[columns].mean()), self.changed.left_out[:, columns].mean(1)

    @property
    def is_finding(self) -> bool:
        """Whether it is a label's own, with a change."""
        return self.concept is not None and not self.concept.is_covariate and not np.isnan(self.own)

    @property
    def selectivity(self) -> float:
        return self.others - self.own

    def model(
        self,
        k: int,
        chosen: list[list[int | str | None]],
        after: Float[np.ndarray, "rows labels"] | None,
        seed: int,
    ) -> Ablation:
        unedited, changed, concept = self.unedited, self.changed, self.concept
        why = unedited.no_interval(changed.firing)
        names = unedited.held_out.images.label_names
        effects = [_effect(names[c], unedited, changed, c, after, why[c]) for c in range(len(names))]
        figures: dict[str, Any] = {"own": self.own, "others": self.others, "selectivity": self.selectivity}
        no_interval = None
        if concept is not None:
            c = concept.columns[0]
            no_interval = why[c]
            if no_interval is None:
                degrees = float(unedited.degrees[c])
                left_out = self.others_left_out - self.own_left_out
                bounds = unedited.interval(self.own, self.own_left_out, degrees)
                figures |= dict(zip(("own_low", "own_high"), bounds, strict=True))
                bounds = unedited.interval(self.selectivity, left_out, degrees)
                figures |= dict(zip(("selectivity_low", "selectivity_high"), bounds, strict=True))
            if after is not None and len(concept.columns) == 1:
                moved = unedited.moved(after, c, seed)
                figures |= dict(zip(("score", "score_low", "score_high"), moved, strict=True))
        return Ablation(
            concept=None if concept is None else concept.name,
            covariate=concept is not None and concept.is_covariate,
            k=k,
            units=chosen,
            effects=effects,
            no_interval=no_interval,
            **{name: None if x is None else number(x) for name, x in figures.items()},
        )


def _effect(
    name: str,
    unedited: Unedited,
    changed: Changed,
    c: int,
    after: Float[np.ndarray, "rows labels"] | None,
    why: str | None,
) -> Effect:
    low, high, moved = None, None, None
    if why is None:
        low, high = unedited.interval(changed.change[c], changed.left_out[:, c], float(unedited.degrees[c]))
    if after is not None and c in unedited.defined:
        present = unedited.held_out.labels[:, c] == 1
        moved = float((after - unedited.scores)[present, c].mean())
    change, auroc = number(changed.change[c]), number(changed.auroc[c])
    return Effect(target=name, auroc=auroc, change=change, low=low, high=high, no_interval=why, score=moved)


def _mean(k: int, findings: Sequence[_Ablated], drawn: Changed) -> MeanAblation:
    """Over the labels whose probe could be scored."""
    if not findings:
        return MeanAblation(k=k)
    unedited = findings[0].unedited
    own = float(np.mean([one.own for one in findings]))
    others = float(np.mean([one.others for one in findings]))
    columns = [one.concept.columns[0] for one in findings if one.concept]
    made = MeanAblation(k=k, own=own, others=number(others), selectivity=number(others - own))
    made.random = number(drawn.change[columns].mean())
    known = [
        one for one, c in zip(findings, columns, strict=True) if unedited.no_interval(one.changed.firing)[c] is None
    ]
    if len(known) * 2 < len(findings):
        made.no_interval = FEW_LABELS
        return made
    degrees = float(sum(unedited.degrees[one.concept.columns[0]] for one in known if one.concept))
    own_left_out = np.mean([one.own_left_out for one in findings], axis=0)
    left_out = np.mean([one.others_left_out for one in findings], axis=0) - own_left_out
    made.own_low, made.own_high = unedited.interval(own, own_left_out, degrees)
    made.selectivity_low, made.selectivity_high = unedited.interval(others - own, left_out, degrees)
    return made
