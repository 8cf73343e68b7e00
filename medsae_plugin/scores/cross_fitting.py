"""Cross-fitting: top units are chosen on all folds but one and scored on that one, each fold in turn, and pooled.

For data sets of hundreds of patients, of which one held-out split has too few with a finding. Every image is scored
once, by units that its patient had no part in choosing; the unit of a label may be another in another fold.

How figures are pooled. A figure over images of several folds must not compare images of one fold with those of another,
where another unit, of another scale, was chosen (Forman and Scholz 2010, "Apples-to-apples in cross-validation
studies"; Parker, Günter and Bedo 2007, on the bias of pooling raw scores). So each fold's activations are put on one
scale within the fold, without its labels, and the images of all folds are then taken together:

- r: activations less the fold's mean, over the fold's standard deviation (0 in a fold where the unit is constant). With
  the label's deviation s_k in fold k of n_k images, and s over all n, this r is sum_k n_k s_k r_k / (n s): the mean of
  the folds' own r where folds are alike.
- AUROC, average precision: the share of the fold's images that lie below (mid-ranks). Where every fold has as many
  images with the label and without, the pooled AUROC is the mean of the folds' own: errors of pairs across two folds
  cancel, since in each fold images with and without the label share out the same ranks.
- precision, recall, F1: decisions above each fold's own threshold, counted together (Forman and Scholz 2010).
- whatever else there is of a top unit: the mean over folds, by their images.

Intervals resample, and tests shuffle, patients of all folds at once, choices held as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.stats import rankdata

from medsae_plugin.scores import metrics
from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.ranking import auroc_and_average_precision
from medsae_plugin.scores.scoring import HeldOut, Scored, sum_up
from medsae_plugin.scores.units import Units
from medsae_plugin.training.fidelity import FidelitySums

_Put = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


class CrossFitted(Scored):
    """Units scored by folds: what `Scored` is of one choice, this is of one a fold, pooled as the module says.

    `report`, and with it figures of all units, are of the images of all folds; figures of top units (`of_top`) are of
    images that these were not chosen on. `top` names for each label the unit that most folds chose.

    Attributes:
        folds: the units scored on each fold.
    """

    def __init__(self, folds: Sequence[Scored], held_out: HeldOut) -> None:
        self.folds = list(folds)
        first = self.folds[0]
        pooled = copy.deepcopy(first.report)
        for fold in self.folds[1:]:
            pooled.merge(fold.report)
        pooled.patients = held_out.images.count_patients("report")
        sums = {"select": pooled, "report": pooled}
        super().__init__(first.units, sums, fidelity=first.fidelity, matrix=first.matrix, held_out=held_out)

    @cached_property
    def eligible(self) -> Bool[np.ndarray, " units"]:
        """The units that could be chosen in some fold."""
        return np.any([fold.eligible for fold in self.folds], axis=0)

    @cached_property
    def chosen(self) -> Int[np.ndarray, "folds labels"]:
        """The top unit of each label in each fold; -1 for none."""
        return np.stack([fold.top for fold in self.folds])

    @cached_property
    def top(self) -> Int[np.ndarray, " labels"]:
        """Of each label the unit that most folds chose, the lowest of several; -1 where none chose one."""
        counts = [np.unique(tops[tops >= 0], return_counts=True) for tops in self.chosen.T]
        return np.array([units[n.argmax()] if len(units) else -1 for units, n in counts])

    @property
    def folds_of_top(self) -> Int[np.ndarray, " labels"]:
        """How many folds chose it."""
        return (self.chosen == self.top).sum(0)

    @cached_property
    def top_activations(self) -> Float[np.ndarray, "rows labels"]:
        """Of each label its fold's top unit on the images of `report`, standardised within the fold."""
        return self._within_folds(_standardised)

    @cached_property
    def top_ranks(self) -> Float[np.ndarray, "rows labels"]:
        """The same as the share of the fold's images below."""
        return self._within_folds(_mid_ranks)

    @cached_property
    def top_r(self) -> Float[np.ndarray, "labels labels"]:
        """r of each label's top unit with every label."""
        _, held_out = self._images()
        rows = sparse.csr_array(self.top_activations.T)
        return self._where_chosen(metrics.pearson_of(rows, held_out.labels).T).T

    @cached_property
    def rankings(self) -> dict[str, np.ndarray]:
        """Of each unit the mean over folds, by their images."""
        return {name: self._mean_over_folds([f.rankings[name] for f in self.folds]) for name in self.folds[0].rankings}

    def of_top(self, name: str) -> Float[np.ndarray, " labels"]:
        if name in self._pooled:
            return self._where_chosen(self._pooled[name])
        if name == "entropy":
            return metrics.entropy(self.top_r)
        return self._where_chosen(self._mean_over_folds([fold.of_top(name) for fold in self.folds]))

    @cached_property
    def _pooled(self) -> dict[str, Float[np.ndarray, " labels"]]:
        """r, ranking and detection of each label's top units for their own label."""
        _, held_out = self._images()
        y = held_out.labels
        ranked = [auroc_and_average_precision(sparse.csc_array(self.top_ranks[:, [c]]), y[:, [c]]) for c in
                  range(y.shape[1])]  # fmt: skip
        fires = self._within_folds(_above) == 1
        present = np.nansum(np.where(fires, y, 0), axis=0)
        detected = metrics.detection(present, (fires & ~np.isnan(y)).sum(0), np.nansum(y, axis=0))
        return {
            "r": np.diagonal(self.top_r),
            "auroc": np.array([auroc.item() for auroc, _ in ranked]),
            "average_precision": np.array([precision.item() for _, precision in ranked]),
            **detected,
        }

    def _within_folds(self, put: _Put) -> Float[np.ndarray, "rows labels"]:
        """Of each label its fold's top unit on `report`, put on a scale within each fold; 0 where a fold has none."""
        _, held_out = self._images()
        made = np.zeros(held_out.labels.shape)
        for fold in self.folds:
            _, own = fold._images()
            rows = np.searchsorted(held_out.report, own.report)
            threshold = fold.of_top("threshold")
            for c in np.flatnonzero(fold.top >= 0):
                made[rows, c] = put(fold.top_activations[:, c], ~np.isnan(own.labels[:, c]), threshold[c])
        return made

    def _mean_over_folds(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """By the folds' images, over the folds where it is defined."""
        stacked = np.stack(values).astype(np.float64)
        n = np.array([fold.report.n_images for fold in self.folds]).reshape(-1, *[1] * (stacked.ndim - 1))
        weights = np.where(np.isnan(stacked), 0, n)
        with np.errstate(invalid="ignore"):
            return (np.where(weights > 0, stacked, 0) * weights).sum(0) / weights.sum(0)


def cross_fit(
    units: Units,
    matrix: LatentMatrix,
    held_out: HeldOut,
    fidelity: FidelitySums | None = None,
) -> CrossFitted:
    """Units scored fold by fold; `held_out` is of images that have folds (`LabelledImages.cross_fitted`)."""
    scored = [
        Scored(units, sum_up(matrix, fold), fidelity=fidelity, matrix=matrix, held_out=replace(held_out, images=fold))
        for fold in held_out.images.folds
    ]
    return CrossFitted(scored, held_out)


def mid_ranks(
    scores: Float[np.ndarray, "rows labels"], labels: Float[np.ndarray, "rows labels"]
) -> Float[np.ndarray, "rows labels"]:
    """Each column's ranks among the images where its label is known, as `top_ranks` has them."""
    columns = [_mid_ranks(a, ~np.isnan(y), 0) for a, y in zip(scores.T, labels.T, strict=True)]
    return np.stack(columns, axis=1)


def _standardised(a: np.ndarray, known: np.ndarray, threshold: float) -> np.ndarray:
    """0 for a unit that is constant over the images where the label is known."""
    of_known = a[known].astype(np.float64)
    if not len(of_known) or np.ptp(of_known) == 0:
        return np.zeros(len(a))
    return np.where(known, (a - of_known.mean()) / of_known.std(), 0.0)


def _mid_ranks(a: np.ndarray, known: np.ndarray, threshold: float) -> np.ndarray:
    """Ranks less a half, over their number: 0.5 on average."""
    made = np.zeros(len(a))
    made[known] = (rankdata(a[known]) - 0.5) / max(1, known.sum())
    return made


def _above(a: np.ndarray, known: np.ndarray, threshold: float) -> np.ndarray:
    return a > threshold
