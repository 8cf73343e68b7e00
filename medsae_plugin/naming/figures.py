"""Figures of a judge's answers, and of judges beside each other, as pure functions. What is undefined is nan.

Truth is 1 for an image on which the unit fires and 0 for a silent one; an answer is 1 (fits the name), 0, or nan
(unanswered), which counts as neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import hypergeom


@dataclass(frozen=True)
class Confusion:
    """Counts of answers to one name."""

    tp: int
    fp: int
    fn: int
    tn: int
    unanswered: int

    @classmethod
    def of(cls, truth: Int[np.ndarray, " images"], answers: Float[np.ndarray, " images"]) -> Confusion:
        fires, fits, doesnt = truth == 1, answers == 1, answers == 0
        counts = [(fits & fires), (fits & ~fires), (doesnt & fires), (doesnt & ~fires), np.isnan(answers)]
        return cls(*(int(c.sum()) for c in counts))

    @property
    def balanced_accuracy(self) -> float:
        """The mean of sensitivity and specificity."""
        return (_share(self.tp, self.tp + self.fn) + _share(self.tn, self.tn + self.fp)) / 2

    @property
    def precision(self) -> float:
        return _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        return _share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def p_value(self) -> float:
        """The exact one-sided permutation p value.

        Over all ways to say which images fire, as many as do, the share of those in which as many as here or more of
        the images that the judge holds to fit do fire. With both margins fixed the true positives are hypergeometric
        (Fisher's exact test), and balanced accuracy rises with them, so it is balanced accuracy's p value as well.
        """
        n, fires, fits = self.tp + self.fp + self.fn + self.tn, self.tp + self.fn, self.tp + self.fp
        return float(hypergeom.sf(self.tp - 1, n, fires, fits)) if n else math.nan


def combined_p_value(confusions: Sequence[Confusion]) -> float:
    """The exact p value of several names together: of the sum of their true positives, each name permuted alone."""
    pmf, total = np.ones(1), 0
    for c in confusions:
        n, fires, fits = c.tp + c.fp + c.fn + c.tn, c.tp + c.fn, c.tp + c.fp
        if n:
            pmf = np.convolve(pmf, hypergeom.pmf(np.arange(min(fires, fits) + 1), n, fires, fits))
            total += c.tp
    return float(min(1.0, pmf[total:].sum())) if len(confusions) else math.nan


def bootstrap_interval(
    values: Float[np.ndarray, " names"], seed: int, level: float = 0.95, draws: int = 2000
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean over names, which are drawn with replacement."""
    if len(values) < 2:
        return math.nan, math.nan
    means = np.random.default_rng(seed).choice(values, (draws, len(values))).mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def cohen_kappa(a: Float[np.ndarray, " items"], b: Float[np.ndarray, " items"]) -> float:
    """Cohen's kappa of two judges over the items that both answered (Cohen 1960): (p_o - p_e) / (1 - p_e)."""
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    if len(a) == 0:
        return math.nan
    expected = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return _above_chance(float((a == b).mean()), float(expected))


def fleiss_kappa(answers: Float[np.ndarray, "judges items"]) -> float:
    """Fleiss' kappa of several judges over the items that all answered (Fleiss 1971)."""
    answered = answers[:, ~np.isnan(answers).any(0)]
    judges, items = answered.shape
    if judges < 2 or items == 0:
        return math.nan
    fits = answered.sum(0)
    agreeing = (fits * (fits - 1) + (judges - fits) * (judges - fits - 1)) / (judges * (judges - 1))
    share = answered.mean()
    return _above_chance(float(agreeing.mean()), float(share**2 + (1 - share) ** 2))


def majority(answers: Float[np.ndarray, "judges items"]) -> Float[np.ndarray, " items"]:
    """What most of the judges who answered say; nan on a tie, and where none did."""
    fits, doesnt = (answers == 1).sum(0), (answers == 0).sum(0)
    return np.where(fits > doesnt, 1.0, np.where(doesnt > fits, 0.0, np.nan))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _above_chance(observed: float, expected: float) -> float:
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan
