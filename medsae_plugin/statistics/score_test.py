"""Whether latents go with a label: a score test between patients, with a saddlepoint tail.

Over the images where the label is known, patient p has the mean activation u_p and the share v_p of positive images.
The statistic is T = sum_p u_p (v_p - mean of v in p's band), in bands of patients of as many such images
(`size_bands`). Under the null each v_p is a draw from those of its band, whatever u_p. T's tail is approximated from
the exact cumulant generating function of that (Dey et al. 2017, for rare variants and few cases): with few positives,
or few patients on whom a latent fires, T is too skewed for a normal or a t distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse, stats

from medsae_plugin.statistics.permutation import size_bands

_FAR = 2.0  # |z| from which the tail is worth more than a normal distribution's
_MOST_STEPS = 30
_LARGEST_EXPONENT = 200.0
_LUMPY = 1.5  # v / w above this: the saddlepoint lies between lumps of the distribution, where its tail is no good
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class PatientLabel:
    """A label by patient, over the images where it is known.

    to_patients: makes of activations of images the patients' means. share: the patients' shares of positive images.
    band: of each patient; n, centre: patients of each band, and their mean share. scale: sqrt(n / (n - 1)), which makes
        the variance of draws from a band that of a permutation.
    values, frequency: the shares that there are in the bands, less the band's centre, and how frequent each is; those
        of band b from start[b] to start[b + 1].
    """

    to_patients: sparse.csr_array
    share: Float[np.ndarray, " patients"]
    band: Int[np.ndarray, " patients"]
    n: Float[np.ndarray, " bands"]
    centre: Float[np.ndarray, " bands"]
    scale: Float[np.ndarray, " bands"]
    values: Float[np.ndarray, " values"]
    frequency: Float[np.ndarray, " values"]
    start: Int[np.ndarray, " bands+1"]

    @classmethod
    def of(cls, label: Float[np.ndarray, " images"], patients: Int[np.ndarray, " images"]) -> PatientLabel:
        """A label in {0, 1, nan = unknown}, and a number of the patient of each image."""
        known = np.flatnonzero(~np.isnan(label))
        _, code, sizes = np.unique(patients[known], return_inverse=True, return_counts=True)
        to_patients = sparse.csr_array((1 / sizes[code], (code, known)), shape=(len(sizes), len(label)))
        share = np.bincount(code, label[known], len(sizes)) / sizes
        band = size_bands(sizes)
        n = np.bincount(band).astype(np.float64)
        centre = np.bincount(band, share) / n
        scale = np.sqrt(n / np.maximum(n - 1, 1)) * (n > 1)
        found, counts = np.unique(np.stack([band, share]), axis=1, return_counts=True)
        of = found[0].astype(np.int64)
        start = np.searchsorted(of, np.arange(len(n) + 1))
        return cls(to_patients, share, band, n, centre, scale, found[1] - centre[of], counts / n[of], start)

    @property
    def n_values(self) -> Int[np.ndarray, " bands"]:
        return np.diff(self.start)

    def moment(self, k: int) -> Float[np.ndarray, " bands"]:
        """The k-th central moment of the shares in each band."""
        of = np.repeat(np.arange(len(self.n)), self.n_values)
        return np.bincount(of, self.frequency * self.values**k, len(self.n))


def score_p(
    activations: sparse.csr_array, label: PatientLabel, tested: Bool[np.ndarray, " latents"] | None = None
) -> Float[np.ndarray, " latents"]:
    """Two-sided p of each latent, twice the smaller tail; nan where the latent or the label is constant.

    Args:
        activations: `(images, latents)`.
        tested: the latents to test, all by default; nan for the others.
    """
    p = np.full(activations.shape[1], np.nan)
    chosen = np.arange(len(p)) if tested is None else np.flatnonzero(tested)
    if len(chosen) == 0 or len(label.n) == 0:
        return p
    means = sparse.csc_array(label.to_patients @ activations)[:, chosen].astype(np.float64)
    total = means.T @ (label.share - label.centre[label.band])
    centre, variance, third, squares = _moments(means, label)
    varies = variance > 1e-12 * squares * label.moment(2).max()
    z = np.abs(total[varies]) / np.sqrt(variance[varies])
    p[chosen[varies]] = 2 * stats.norm.sf(z)
    far = np.flatnonzero(varies)[z > _FAR]
    if len(far):
        # Where a gamma distribution of the same first three cumulants has its saddlepoint.
        slope = variance[far] + third[far] * total[far] / (2 * variance[far])
        near = total[far] / np.maximum(slope, 0.2 * variance[far])
        p[chosen[far]] = np.minimum(1.0, 2 * _Cumulants(means[:, far], centre[:, far], label).tail(total[far], near))
    return p


def _moments(means: sparse.csc_array, label: PatientLabel) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each latent its mean in each band `(bands, latents)`, the statistic's variance and third cumulant, and the sum
    of the latent's squares.
    """
    n_patients = len(label.band)
    bands = sparse.csr_array((np.ones(n_patients), (label.band, np.arange(n_patients))))
    s1, s2, s3 = ((bands @ means.power(k)).toarray() for k in (1, 2, 3))
    n, scale = label.n[:, None], label.scale[:, None]
    centre = s1 / n
    c2, c3 = s2 - n * centre**2, s3 - 3 * centre * s2 + 2 * n * centre**3
    variance = (c2 * scale**2 * label.moment(2)[:, None]).sum(0)
    third = (c3 * scale**3 * label.moment(3)[:, None]).sum(0)
    return centre, variance, third, s2.sum(0)


class _Cumulants:
    """The cumulant generating function of the statistic of some latents.

    K(t) = sum over patients of log sum_k f_k exp(t u_p v_k), with u less its mean in the band: a term for each patient
    on whom the latent fires, and one for all patients of a band on whom it is silent.
    """

    def __init__(
        self, means: sparse.csc_array, centre: Float[np.ndarray, "bands latents"], label: PatientLabel
    ) -> None:
        n_bands, self._n_latents = centre.shape
        latent = np.repeat(np.arange(self._n_latents), np.diff(means.indptr))
        band = label.band[means.indices]
        firing = np.bincount(latent * n_bands + band, minlength=centre.size)
        silent = np.tile(label.n, self._n_latents) - firing
        u = np.concatenate([means.data - centre[band, latent], -centre.T.ravel()])
        times = np.concatenate([np.ones(len(latent)), silent])
        latent = np.concatenate([latent, np.repeat(np.arange(self._n_latents), n_bands)])
        band = np.concatenate([band, np.tile(np.arange(n_bands), self._n_latents)])
        used = (times > 0) & (label.n_values[band] > 1)
        u, self._times, self._latent, band = u[used], times[used], latent[used], band[used]
        width = label.n_values[band]
        self._starts = np.cumsum(width) - width
        term = np.repeat(np.arange(len(u)), width)
        value = (label.start[band] - self._starts)[term] + np.arange(len(term))
        self._of, self._frequency = self._latent[term], label.frequency[value]
        self._exponent = (u * label.scale[band])[term] * label.values[value]
        largest = np.zeros(self._n_latents)
        np.maximum.at(largest, self._of, np.abs(self._exponent))
        self._most = _LARGEST_EXPONENT / np.maximum(largest, _TINY)

    def at(self, t: Float[np.ndarray, " latents"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """K and its first two derivatives, each latent's at its own t."""
        e = self._frequency * np.exp(t[self._of] * self._exponent)
        total = np.add.reduceat(e, self._starts)
        e *= self._exponent
        first = np.add.reduceat(e, self._starts) / total
        e *= self._exponent
        second = np.add.reduceat(e, self._starts) / total - first**2
        k, k1, k2 = (
            np.bincount(self._latent, self._times * x, self._n_latents) for x in (np.log(total), first, second)
        )
        return k, k1, k2

    def tail(self, x: Float[np.ndarray, " latents"], t: Float[np.ndarray, " latents"]) -> Float[np.ndarray, " latents"]:
        """The chance of the statistic lying as far out as x, on its side; `t` is where the search begins.

        Lugannani and Rice (1980) in the form of Barndorff-Nielsen (1991), and never more than Chernoff's bound, which
        stands in where that does not hold.
        """
        t = np.clip(t, -self._most, self._most)
        k, k1, k2 = self.at(t)
        for _ in range(_MOST_STEPS):
            gap = x - k1
            if (np.abs(gap) <= 1e-4 * np.abs(x)).all():
                break
            step = np.clip(gap / np.maximum(k2, _TINY), -np.abs(t), np.abs(t))
            t = np.clip(t + step, -self._most, self._most)
            k, k1, k2 = self.at(t)
        bound = np.minimum(k - t * x, 0.0)
        w, v = np.sqrt(-2 * bound), np.abs(t) * np.sqrt(np.maximum(k2, 0))
        holds = (np.abs(x - k1) <= 0.01 * np.abs(x)) & (w > 0.1) & (v > 0) & (v < _LUMPY * w)
        with np.errstate(invalid="ignore", divide="ignore"):
            tail = stats.norm.sf(w + np.log(v / w) / w)
        return np.where(holds, np.minimum(tail, np.exp(bound)), np.exp(bound))
