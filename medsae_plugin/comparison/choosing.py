"""Choosing among recipes by four figures at once: the front that nothing beats, and on it the best mean rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from medsae_plugin.scores.metrics import mean_ranks
from medsae_plugin.scores.registry import number

CRITERIA = {"explained_variance": True, "l0": False, "dead": False, "mean_top_r": True}
"""The figures that recipes are chosen by, and whether more is better."""
WORDS = "explained variance, L0, dead share and mean top r"
_TOLD = {
    "explained_variance": "explained variance {:.3f}",
    "l0": "L0 {:.1f}",
    "dead": "dead {:.1%}",
    "mean_top_r": "mean top r {:.3f}",
}
_NAMES = {"explained_variance": "explained variance", "l0": "L0", "dead": "dead share", "mean_top_r": "mean top r"}


class Candidate(NamedTuple):
    """A recipe, and its figures (`CRITERIA`) as means over its seeds, None where undefined.

    is_sparse: whether less than a quarter of its latents fire on a row.
    """

    name: str
    figures: Mapping[str, float | None]
    is_sparse: bool = True

    @property
    def is_sound(self) -> bool:
        """Whether it is an SAE to speak of: sparse, and better than the mean of all activations."""
        return self.is_sparse and (self.figures.get("explained_variance") or 0.0) > 0.0

    @property
    def told(self) -> str:
        return ", ".join(_said(name, self.figures.get(name)) for name in CRITERIA)


class Placed(NamedTuple):
    """A candidate in the order of choice; front: 1 is the front that no other candidate beats, 2 that without the first
    front, and so on."""

    candidate: Candidate
    front: int
    mean_rank: float


def mean_figures(seeds: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each criterion over seeds; None where it is undefined for one of them."""
    told = {name: [seed.get(name) for seed in seeds] for name in CRITERIA}
    return {name: number(np.mean([math.nan if x is None else x for x in xs])) for name, xs in told.items()}


def ordered(candidates: Sequence[Candidate]) -> list[Placed]:
    """Candidates from the best: sound ones first, of these those on an earlier front, on a front those of a smaller
    mean rank (of all candidates, over the criteria), and then those that were given earlier.

    A candidate beats another that is in no criterion better and in one worse; an undefined figure is the worst of all.
    Fronts are those of non-dominated sorting (Deb et al. 2002, doi:10.1109/4235.996017).
    """
    ranks = mean_ranks([c.figures for c in candidates], CRITERIA)
    front = _fronts([c.figures for c in candidates])
    placed = [Placed(c, f, r or 0.0) for c, f, r in zip(candidates, front, ranks, strict=True)]
    return sorted(placed, key=lambda p: (not p.candidate.is_sound, p.front, p.mean_rank))


def going_on(candidates: Sequence[Candidate], keep: float, of: int) -> list[str]:
    """The names of the share `keep` of `of` candidates, rounded up, that goes on, in the order given.

    Args:
        of: how many candidates there were, with those that diverged and are not given.
    """
    best = {p.candidate.name for p in ordered(candidates)[: max(math.ceil(keep * of), 1)]}
    return [c.name for c in candidates if c.name in best]


def reason(candidates: Sequence[Candidate], split: str) -> str:
    """Why the first of `ordered` is recommended, in words."""
    order = ordered(candidates)
    best, *others = order
    if not others:
        return f"The only one that was trained to the end; on {split}: {best.candidate.told}."
    front = [p.candidate.name for p in order if p.front == 1]
    many = f"{len(front)} of {len(order)} are" if len(front) > 1 else f"It alone of {len(order)} is"
    words = [f"{many} on the front of {WORDS} on {split} (none is as good in all four and better in one)"]
    if best.front != 1:
        words.append("those on it are not sparse or explain nothing, and this one is the next")
    words.append(f"its mean rank over the four is {best.mean_rank:.2f}: {_with_places(best.candidate, candidates)}")
    if not best.candidate.is_sound:
        words.append("it is not sparse or explains nothing, as all here: none is to be recommended")
    return "; ".join(words) + f". Next: {_beside(others[0], best)}."


def _with_places(best: Candidate, candidates: Sequence[Candidate]) -> str:
    parts = []
    for name, larger in CRITERIA.items():
        mine = _signed(best.figures.get(name), larger)
        better = sum(_signed(c.figures.get(name), larger) > mine for c in candidates)
        parts.append(f"{_said(name, best.figures.get(name))} ({'best' if not better else f'place {better + 1}'})")
    return ", ".join(parts)


def _beside(other: Placed, best: Placed) -> str:
    """The runner-up, and in what it is better."""
    theirs, mine = other.candidate.figures, best.candidate.figures
    better = [
        _said(name, theirs.get(name))
        for name, larger in CRITERIA.items()
        if _signed(theirs.get(name), larger) > _signed(mine.get(name), larger)
    ]
    why = f"better in {', '.join(better)}" if better else "better in none of the four"
    return f"{other.candidate.name} (mean rank {other.mean_rank:.2f}), {why}"


def _fronts(figures: Sequence[Mapping[str, float | None]]) -> list[int]:
    points = np.array([[_signed(f.get(name), larger) for name, larger in CRITERIA.items()] for f in figures])
    no_worse, better = points[None] >= points[:, None], points[None] > points[:, None]
    beaten_by: Bool[np.ndarray, "n n"] = np.all(no_worse, axis=2) & np.any(better, axis=2)
    fronts = np.zeros(len(points), dtype=int)
    depth = 0
    while (left := fronts == 0).any():
        depth += 1
        fronts[left & ~beaten_by[:, left].any(1)] = depth
    return [int(front) for front in fronts]


def _signed(value: float | None, larger_is_better: bool) -> float:
    """So that more is better, and undefined the worst."""
    if value is None or math.isnan(value):
        return -math.inf
    return value if larger_is_better else -value


def _said(name: str, value: float | None) -> str:
    return f"{_NAMES[name]} undefined" if value is None else _TOLD[name].format(value)
