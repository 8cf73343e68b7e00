"""Cross-fitting: top units are chosen on all folds but one and scored on that one, each fold in turn, and pooled.

For data sets of hundreds of patients, of which one held-out split has too few with a finding. Every image is scored
once, by units that its patient had no part in choosing; the unit of a label may be another in another fold.

How figures are pooled. A figure over images of several folds must not compare images of one fold with those of another,
where another unit, of another scale, was chosen (Forman and Scholz 2010, "Apples-to-apples in cross-validation
studies"; Parker, Günter and Bedo 2007, on the bias of pooling raw scores):

- r: of the images of all folds, each fold's activations less their mean there, over their standard deviation (0 in a
  fold where the unit is constant). With the label's deviation s_k in fold k of n_k images, and s over all n, this r is
  sum_k n_k s_k r_k / (n s): the mean of the folds' own r where folds are alike.
- AUROC: the share of pairs that are in order, of pairs within a fold alone: sum_k m_k n_k AUROC_k / sum_k m_k n_k with
  m_k images that show the label and n_k that do not.
- precision, recall, F1: decisions above each fold's own threshold, counted together (Forman and Scholz 2010).
- whatever else there is of a top unit: the mean over folds, by their images.

Chance is that of the whole: patients' labels are shuffled, units are chosen anew on every fold's others, and scored
(`cross_fitted_r`). Shuffles that held the choices as they are would call 9 to 16 of 100 latents of no worth significant
at 0.05, since a patient's labels have a part in what is chosen for all folds but their own
(`benchmarks/calibration_folds.py`; Bates, Hastie and Tibshirani 2023 on why intervals of cross-validation are narrow).
So intervals, which hold choices as they are, are given where the label's r is above that chance (p < 0.05), of means
where most labels' are: they hold once a latent is strong enough that folds agree on it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from medsae_plugin.scores import metrics
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.ranking import aurocs
from medsae_plugin.scores.scoring import HeldOut, Scored, sum_up
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.scores.units import Units
from medsae_plugin.statistics.correlation import pearson_of
from medsae_plugin.statistics.jackknife import PatientJackknife
from medsae_plugin.statistics.permutation import patient_shuffles
from medsae_plugin.training.fidelity import FidelitySums

NOT_ABOVE = "not above chance where units are chosen anew, and choices differ from fold to fold"
_CHUNK_ELEMENTS = 2**22  # of the largest temporary array
_Put = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


class CrossFitted(Scored):
    """Units scored by folds: what `Scored` is of one choice, this is of one a fold, pooled as the module says.

    `report`, and with it figures of all units, are of the images of all folds; figures of top units (`of_top`) are of
    images that these were not chosen on. `top` names for each label the unit that most folds chose.

    Attributes:
        folds: the units scored on each fold.
    """

    def __init__(self, folds: Sequence[Scored], held_out: HeldOut, judged: LatentStatistics | None = None) -> None:
        self.folds = list(folds)
        first = self.folds[0]
        pooled = copy.deepcopy(first.report)
        for fold in self.folds[1:]:
            pooled.merge(fold.report)
        pooled.patients = held_out.images.count_patients("report")
        sums = {"select": pooled, "report": pooled}
        super().__init__(
            first.units, sums, fidelity=first.fidelity, matrix=first.matrix, held_out=held_out, judged=judged
        )

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
    def fold(self) -> Int[np.ndarray, " rows"]:
        """Of each image of `report` its fold."""
        return fold_of(self._images()[1].images)

    @cached_property
    def top_r(self) -> Float[np.ndarray, "labels labels"]:
        """r of each label's top unit with every label."""
        _, held_out = self._images()
        rows = sparse.csr_array(self.top_activations.T)
        return self._where_chosen(pearson_of(rows, held_out.labels).T).T

    @cached_property
    def rankings(self) -> dict[str, np.ndarray]:
        """Of each unit the mean over folds, by their images."""
        return {name: self.mean_over_folds([f.rankings[name] for f in self.folds]) for name in self.folds[0].rankings}

    def of_top(self, name: str) -> Float[np.ndarray, " labels"]:
        if name in self._pooled:
            return self._where_chosen(self._pooled[name])
        if name == "entropy":
            return metrics.entropy(self.top_r)
        return self._where_chosen(self.mean_over_folds([fold.of_top(name) for fold in self.folds]))

    def expected_top_r(self, n: int) -> Float[np.ndarray, " labels"]:
        """The mean over folds, of units that are chosen on the others."""
        return self.mean_over_folds([fold.expected_top_r(n) for fold in self.folds])

    @cached_property
    def own_null(self) -> Float[np.ndarray, "permutations labels"]:
        """r of top units when patients' labels are shuffled, of units that are chosen by the shuffled labels."""
        matrix, held_out = self._images()
        y, drawn, n_labels = held_out.labels, held_out.resampling, held_out.labels.shape[1]
        eligible = np.stack([fold.eligible for fold in self.folds])[:, self.eligible]
        blocks = [block[:, self.eligible[at : at + block.shape[1]]][held_out.report] for at, block in matrix.blocks()]
        values = sparse.csr_array(sparse.hstack(blocks, format="csr").T.astype(np.float64))
        orders = patient_shuffles(held_out.images.patients[held_out.report], drawn.n_permutations, drawn.seed)
        per_chunk = max(1, _CHUNK_ELEMENTS // max(1, n_labels * max(values.shape)))
        made = []
        while chunk := list(islice(orders, per_chunk)):
            shuffled = np.concatenate([y[order] for order in chunk], axis=1)
            made.append(cross_fitted_r(values, shuffled, self.fold, eligible)[0].reshape(len(chunk), n_labels))
        null = np.concatenate(made) if made else np.empty((0, n_labels))
        # Units that are silent on every fold say nothing of a label, as in the mean; where all are, there is no null.
        return np.where(np.isnan(null).all(0), np.nan, np.nan_to_num(null))

    @cached_property
    def above_chance(self) -> Bool[np.ndarray, " labels"]:
        """The labels whose intervals hold."""
        return self["p_top"] < 0.05

    @property
    def firing(self) -> Bool[np.ndarray, "rows labels"]:
        return self._raw > 0

    @cached_property
    def no_interval(self) -> list[str | None]:
        """As of one choice; and where choosing anew on shuffled labels does as well, so that no interval holds."""
        return [
            why or (None if above else NOT_ABOVE)
            for why, above in zip(self._no_interval(), self.above_chance, strict=True)
        ]

    @cached_property
    def auroc_left_out(self) -> Float[np.ndarray, "patients labels"]:
        """AUROC of each label's top units without each patient, of pairs within a fold."""
        _, held_out = self._images()
        made = auroc_within_folds_left_out(held_out.jackknife, self._raw, held_out.labels, self.fold)
        return self._where_chosen(made)

    @cached_property
    def _told(self) -> Bool[np.ndarray, " labels"]:
        """The labels that vary on some fold on which a chosen unit varies; of others r is 0 by rounding alone."""
        y = self._images()[1].labels
        parts = [(self.top_activations[self.fold == k], y[self.fold == k]) for k in range(len(self.folds))]
        return np.any([_varies(a, y) for a, y in parts], axis=0)

    @cached_property
    def _raw(self) -> Float[np.ndarray, "rows labels"]:
        """Activations as they are."""
        return self._within_folds(lambda a, known, threshold: a)

    @cached_property
    def _pooled(self) -> dict[str, Float[np.ndarray, " labels"]]:
        """r, AUROC and detection of each label's top units for their own label."""
        y = self._images()[1].labels
        fires = self._within_folds(lambda a, known, threshold: a > threshold) == 1
        present = np.nansum(np.where(fires, y, 0), axis=0)
        return {
            "r": np.where(self._told, np.diagonal(self.top_r), np.nan),
            "auroc": auroc_within_folds(self._raw, y, self.fold),
            **metrics.detection(present, (fires & ~np.isnan(y)).sum(0), np.nansum(y, axis=0)),
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

    def mean_over_folds(self, values: Sequence[np.ndarray]) -> np.ndarray:
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
    judged: LatentStatistics | None = None,
) -> CrossFitted:
    """Units scored fold by fold; `held_out` is of images that have folds (`LabelledImages.cross_fitted`)."""
    scored = [
        Scored(units, sum_up(matrix, fold), fidelity=fidelity, matrix=matrix, held_out=replace(held_out, images=fold))
        for fold in held_out.images.folds
    ]
    return CrossFitted(scored, held_out, judged)


def cross_fitted_r(
    values: sparse.csr_array,
    labels: Float[np.ndarray, "images many"],
    fold: Int[np.ndarray, " images"],
    eligible: Bool[np.ndarray, "folds units"],
) -> tuple[Float[np.ndarray, " many"], Int[np.ndarray, "folds many"]]:
    """The pooled r of each label, and of every fold its unit of the largest r on the others, -1 for none.

    nan where no fold's unit varies on that fold and its label too.

    Args:
        values: `(units, images)`. eligible: the units to choose from, fold by fold.
    """
    known, y = (~np.isnan(labels)).astype(np.float64), np.nan_to_num(labels)
    cross, square = np.zeros((2, labels.shape[1]))
    told = np.zeros(labels.shape[1], dtype=bool)
    tops = np.full((len(eligible), labels.shape[1]), -1)
    for k, units in enumerate(eligible):
        mine, others = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        top = metrics.top_latent(pearson_of(sparse.csr_array(values[:, others]), labels[others]), units)
        tops[k] = top
        chosen, place = np.unique(np.maximum(top, 0), return_inverse=True)
        a = values[chosen][:, mine].toarray().T[:, place] * (top >= 0)
        n = np.maximum(known[mine].sum(0), 1)
        a = (a - (a * known[mine]).sum(0) / n) * known[mine]
        deviation = np.sqrt((a**2).sum(0) / n)
        a = np.divide(a, deviation, out=np.zeros_like(a), where=deviation > 1e-9)
        told |= _varies(a, labels[mine])
        cross += (a * y[mine]).sum(0)
        square += (a**2).sum(0)
    n = np.maximum(known.sum(0), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = cross / np.sqrt(square * ((y**2).sum(0) - y.sum(0) ** 2 / n))
    return np.where(told, r, np.nan), tops


def fold_of(images: LabelledImages) -> Int[np.ndarray, " rows"]:
    """Of each image of `report` which fold reports it; 0 where there are no folds."""
    if not images.folds:
        return np.zeros(len(images.rows("report")), dtype=np.int64)
    reported = np.array([part.roles == "report" for part in images.folds])
    return reported.argmax(0)[images.rows("report")]


def standardised_within(a: Float[np.ndarray, " rows"], fold: Int[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    """Mean 0 and deviation 1 within each fold; zeros of one where it is constant. Ties stay ties."""
    made = np.zeros(len(a))
    for k in np.unique(fold):
        made[fold == k] = _standardised(a[fold == k], np.ones((fold == k).sum(), dtype=bool), 0.0)
    return made


def auroc_within_folds(
    scores: Float[np.ndarray, "rows labels"], labels: Float[np.ndarray, "rows labels"], fold: Int[np.ndarray, " rows"]
) -> Float[np.ndarray, " labels"]:
    """The AUROC of each column of scores for its own label, of pairs within a fold."""
    parts = [(scores[fold == k], labels[fold == k]) for k in np.unique(fold)]
    pairs = np.array([(y == 1).sum(0) * (y == 0).sum(0) for _, y in parts])
    return _mean_by_pairs(np.array([aurocs(a, y) for a, y in parts]), pairs)


def auroc_within_folds_left_out(
    jackknife: PatientJackknife,
    scores: Float[np.ndarray, "rows labels"],
    labels: Float[np.ndarray, "rows labels"],
    fold: Int[np.ndarray, " rows"],
) -> Float[np.ndarray, "patients labels"]:
    """The same without each patient in turn."""
    parts = [np.where((fold == k)[:, None], labels, np.nan) for k in np.unique(fold)]
    with_it, without = (
        np.array([np.stack([jackknife.sums(1.0 * (c == value)) for c in y.T], axis=1) for y in parts])
        for value in (1, 0)
    )
    return _mean_by_pairs(np.array([jackknife.auroc(scores, y) for y in parts]), with_it * without)


def _mean_by_pairs(auroc: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (np.nan_to_num(auroc) * pairs).sum(0) / pairs.sum(0)


def _varies(a: np.ndarray, labels: np.ndarray) -> Bool[np.ndarray, " labels"]:
    """Whether standardised activations vary over a fold, and their label does."""
    return (a != 0).any(0) & (labels == 1).any(0) & (labels == 0).any(0)


def _standardised(a: np.ndarray, known: np.ndarray, threshold: float) -> np.ndarray:
    """0 for a unit that is constant over the images where the label is known."""
    of_known = a[known].astype(np.float64)
    if not len(of_known) or np.ptp(of_known) == 0:
        return np.zeros(len(a))
    return np.where(known, (a - of_known.mean()) / of_known.std(), 0.0)
