"""Bootstrap intervals, over patients, not images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Shaped

# Elements of the largest temporary array, which bounds memory whatever the number of images.
_CHUNK_ELEMENTS = 2**24


class PatientBootstrap:
    """Resamples of patients with replacement, the same for every latent, so that differences are paired.

    Args:
        patients: of each image.
        n_resamples, seed: how many, and of the draw.
    """

    def __init__(
        self, patients: Sequence[str] | Shaped[np.ndarray, " images"], n_resamples: int = 1000, seed: int = 0
    ) -> None:
        names, self._code = np.unique(np.asarray(patients), return_inverse=True)
        rng = np.random.default_rng(seed)
        self._n_patients = len(names)
        self._draws = rng.integers(0, max(1, len(names)), size=(n_resamples, len(names)), dtype=np.int32)

    def pearson(
        self, activations: Float[np.ndarray, "images labels"], labels: Float[np.ndarray, "images labels"]
    ) -> Float[np.ndarray, "resamples labels"]:
        """r of column c of the activations with label c in every resample; nan where undefined there."""
        result = np.full((len(self._draws), labels.shape[1]), np.nan)
        sums = []
        for a, y in zip(activations.T.astype(np.float64), labels.T, strict=True):
            known = ~np.isnan(y)
            a = np.where(known, a - (a[known].mean() if known.any() else 0), 0)
            y = np.nan_to_num(y)
            sums.append([self._per_patient(v) for v in (known, a, a * a, y, a * y)])
        per_patient = np.array(sums).transpose(2, 0, 1).reshape(self._n_patients, -1)
        for rows, weights in self._weights(self._n_patients):
            n, a, aa, y, ay = (weights @ per_patient).reshape(len(weights), -1, 5).transpose(2, 0, 1)
            with np.errstate(invalid="ignore", divide="ignore"):
                r = (ay - a * y / n) / np.sqrt((aa - a * a / n) * (y - y * y / n))
            result[rows] = np.where(np.isfinite(r), np.clip(r, -1, 1), np.nan)
        return result

    def auroc(
        self, activations: Float[np.ndarray, "images labels"], labels: Float[np.ndarray, "images labels"]
    ) -> Float[np.ndarray, "resamples labels"]:
        """AUROC of column c of the activations for label c in every resample, ties counted half."""
        result = np.full((len(self._draws), labels.shape[1]), np.nan)
        for c, (a, y) in enumerate(zip(activations.T, labels.T, strict=True)):
            present, absent = self._per_patient(y == 1), self._per_patient(y == 0)
            # Images at 0 are one tie, which needs no ranking: only the others are listed.
            listed = np.flatnonzero(~np.isnan(y) & (a != 0))
            listed = listed[np.argsort(-a[listed], kind="stable")]
            above = int((a[listed] > 0).sum())
            order = np.insert(listed, above, -1)
            starts = np.flatnonzero(np.diff(np.insert(a[listed], above, 0), prepend=np.nan) != 0)
            for rows, weights in self._weights(len(order)):
                w = weights[:, self._code[order]]
                positives, negatives = w * (y[order] == 1), w * (y[order] == 0)
                all_positives, all_negatives = weights @ present, weights @ absent
                positives[:, above] = negatives[:, above] = 0
                positives[:, above] = all_positives - positives.sum(1)
                negatives[:, above] = all_negatives - negatives.sum(1)
                positives = np.add.reduceat(positives, starts, axis=1)
                negatives = np.add.reduceat(negatives, starts, axis=1)
                won = negatives * (np.cumsum(positives, axis=1) - positives / 2)
                with np.errstate(invalid="ignore", divide="ignore"):
                    result[rows, c] = won.sum(1) / (all_positives * all_negatives)
        return result

    def mean(self, values: Float[np.ndarray, " images"]) -> Float[np.ndarray, " resamples"]:
        """The mean over images of a value an image, in every resample."""
        return self.sums(values) / self.sums(np.ones(len(values)))

    def sums(self, values: Float[np.ndarray, " images"]) -> Float[np.ndarray, " resamples"]:
        """The sum over images of a value an image, in every resample."""
        per_patient = self._per_patient(values)
        return np.concatenate([weights @ per_patient for _, weights in self._weights(self._n_patients)])

    def _per_patient(self, values: np.ndarray) -> np.ndarray:
        """Sums over each patient's images."""
        return np.bincount(self._code, values, self._n_patients)

    def _weights(self, width: int) -> Iterator[tuple[slice, np.ndarray]]:
        """How often each patient is in each resample, in chunks of resamples."""
        per_chunk = max(1, _CHUNK_ELEMENTS // 4 // max(1, width, self._n_patients))
        for first in range(0, len(self._draws), per_chunk):
            draws = self._draws[first : first + per_chunk]
            flat = draws + np.arange(len(draws))[:, None] * self._n_patients
            counts = np.bincount(flat.ravel(), minlength=len(draws) * self._n_patients)
            yield slice(first, first + len(draws)), counts.reshape(len(draws), -1).astype(np.float64)


def interval(replicates: Float[np.ndarray, "resamples ..."], level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the first axis; nan where a replicate is undefined in more than a tenth of resamples."""
    undefined = np.isnan(replicates).mean(0) > 0.1
    safe = np.where(undefined, 0.0, replicates)
    low, high = np.nanpercentile(safe, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
