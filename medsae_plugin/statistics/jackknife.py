"""The jackknife over patients: a figure again and again, each time without one patient, all of whose images leave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import rankdata


class PatientJackknife:
    """Figures without each patient in turn; the same patients for every unit, so that differences are paired.

    Args:
        patients: of each image.
    """

    def __init__(self, patients: Sequence[str] | Shaped[np.ndarray, " images"]) -> None:
        names, self._code = np.unique(np.asarray(patients), return_inverse=True)
        self.n_patients = len(names)

    def pearson(
        self, activations: Float[np.ndarray, "images labels"], labels: Float[np.ndarray, "images labels"]
    ) -> Float[np.ndarray, "patients labels"]:
        """r of column c of the activations with label c, over the images where the label is known.

        nan without a patient without whom the activations or the label are constant.
        """
        left_out = np.full((self.n_patients, labels.shape[1]), np.nan)
        for c, (a, y) in enumerate(zip(activations.T.astype(np.float64), labels.T, strict=True)):
            known = ~np.isnan(y)
            a = np.where(known, a - (a[known].mean() if known.any() else 0), 0)
            y = np.nan_to_num(y)
            n, a_, aa, y_, yy, ay = (self.sums(v) for v in (known, a, a * a, y, y * y, a * y))
            with np.errstate(invalid="ignore", divide="ignore"):
                scatter, of_label = aa - a_ * a_ / n, yy - y_ * y_ / n
                r = (ay - a_ * y_ / n) / np.sqrt(scatter * of_label)
            # Of sums of this size less would be rounding error.
            varies = (scatter > 1e-12 * (a @ a)) & (of_label > 1e-12 * n)
            left_out[:, c] = np.where(varies, np.clip(r, -1, 1), np.nan)
        return left_out

    def auroc(
        self, activations: Float[np.ndarray, "images labels"], labels: Float[np.ndarray, "images labels"]
    ) -> Float[np.ndarray, "patients labels"]:
        """AUROC of column c of the activations for label c, ties counted half, over images where the label is known.

        From ranks, once for all patients: a patient takes along the pairs that its images are in, and a pair of its own
        images is one pair, not two. nan where no image with, or without, the label is left.
        """
        left_out = np.full((self.n_patients, labels.shape[1]), np.nan)
        for c, (a, y) in enumerate(zip(activations.T.astype(np.float64), labels.T, strict=True)):
            known = ~np.isnan(y)
            a, present, code = a[known], y[known] == 1, self._code[known]
            won = np.where(present, _below(a, present), present.sum() - _below(a, ~present))
            positives, negatives = (np.bincount(code, x, self.n_patients) for x in (present, ~present))
            won_by_patient = np.bincount(code, won, self.n_patients)
            # Ranks among a patient's own images: those of all images, patient by patient.
            place = np.unique(a, return_inverse=True)[1]
            own = rankdata(code * (int(place.max(initial=0)) + 1) + place) - np.cumsum(positives + negatives)[code]
            own += (positives + negatives)[code]
            pairs = np.bincount(code, own * present, self.n_patients) - positives * (positives + 1) / 2
            left = (positives.sum() - positives) * (negatives.sum() - negatives)
            with np.errstate(invalid="ignore", divide="ignore"):
                figure = (won[present].sum() - won_by_patient + pairs) / left
            left_out[:, c] = np.where(left > 0, figure, np.nan)
        return left_out

    def mean(self, values: Float[np.ndarray, " images"]) -> Float[np.ndarray, " patients"]:
        """The mean over images of a value an image."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.sums(values) / self.sums(np.ones(len(values)))

    def sums(self, values: Shaped[np.ndarray, " images"]) -> Float[np.ndarray, " patients"]:
        """The sum over images of a value an image."""
        own = self.of_patients(values)
        return own.sum() - own

    def of_patients(self, values: Shaped[np.ndarray, " images"]) -> Float[np.ndarray, " patients"]:
        """The sum over each patient's own images."""
        return np.bincount(self._code, values, self.n_patients)


def _below(a: np.ndarray, these: np.ndarray) -> Float[np.ndarray, " images"]:
    """Of each image of `these` how many of the others are below it, ties counted half; 0 of the others."""
    below = np.zeros(len(a))
    below[these] = rankdata(a)[these] - rankdata(a[these])
    return below
