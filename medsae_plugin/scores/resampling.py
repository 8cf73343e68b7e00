"""What chance does: a permutation null and bootstrap intervals, both over patients, not images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import sparse

from medsae_plugin.scores.metrics import pearson_of

# Elements of the largest temporary array, which bounds memory whatever the number of images.
_CHUNK_ELEMENTS = 2**24


def patient_shuffles(
    patients: Sequence[str] | Shaped[np.ndarray, " images"], n: int, seed: int = 0
) -> Iterator[Int[np.ndarray, " images"]]:
    """`n` orders of the images under which whole patients exchange their labels: `labels[order]` are the shuffled ones.

    Patients exchange with patients of as many images, so the labels of one patient stay together. Those whose number
    of images nobody shares exchange theirs laid end to end.
    """
    _, code = np.unique(np.asarray(patients), return_inverse=True)
    by_patient = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    sizes = np.array([len(rows) for rows in by_patient])
    shared = np.bincount(sizes)[sizes] > 1
    strata = [np.flatnonzero(shared & (sizes == size)) for size in np.unique(sizes[shared])]
    strata += [np.flatnonzero(~shared)] if (~shared).any() else []
    rng = np.random.default_rng(seed)
    for _ in range(n):
        order = np.empty(len(code), dtype=np.int64)
        for members in strata:
            shuffled = rng.permutation(members)
            order[np.concatenate([by_patient[p] for p in members])] = np.concatenate([by_patient[p] for p in shuffled])
        yield order


def permutation_null(
    blocks: Iterable[sparse.csc_array],
    labels: Float[np.ndarray, "images labels"],
    patients: Sequence[str] | Shaped[np.ndarray, " images"],
    n_permutations: int = 200,
    seed: int = 0,
) -> Float[np.ndarray, "permutations labels"]:
    """The largest Pearson r of any latent with each label, when patients' labels are shuffled.

    Computed as matrix products of all latents with many shuffled labels at once.

    Args:
        blocks: the columns of the latents, block by block, `(images, latents)`.

    Returns:
        nan where no latent has an r, as for a label without positives.
    """
    n_images, n_labels = labels.shape
    values = [sparse.csr_array(block.T.astype(np.float64)) for block in blocks]
    widest = max((v.shape[0] for v in values), default=0)
    per_chunk = max(1, _CHUNK_ELEMENTS // max(1, n_labels * max(n_images, widest)))
    orders = patient_shuffles(patients, n_permutations, seed)
    largest = np.full((n_permutations, n_labels), np.nan)
    for first in range(0, n_permutations, per_chunk):
        count = min(per_chunk, n_permutations - first)
        shuffled = np.concatenate([labels[order] for order in islice(orders, count)], axis=1)
        for latents in values:
            r = np.fmax.reduce(pearson_of(latents, shuffled), axis=0, initial=np.nan).reshape(count, n_labels)
            largest[first : first + count] = np.fmax(largest[first : first + count], r)
    return largest


def permutation_p(observed: Float[np.ndarray, " labels"], null: Float[np.ndarray, "permutations labels"]) -> np.ndarray:
    """(1 + permutations whose largest r reaches the observed) / (1 + permutations), as Phipson and Smyth (2010)."""
    reached = (null >= observed).sum(0)
    return np.where(np.isnan(observed) | np.isnan(null).all(0), np.nan, (1 + reached) / (1 + len(null)))


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
