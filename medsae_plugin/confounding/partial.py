"""Correlations with a label and with covariates, and after partialling these out, each also without every patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medsae_plugin.statistics.jackknife import PatientJackknife

_LEAST = 1e-9  # of a column's variance, less is rounding error


@dataclass(frozen=True)
class Found:
    """A figure, and what it is without each patient in turn."""

    value: float
    left_out: Float[np.ndarray, " patients"]

    @property
    def defined(self) -> bool:
        """Whether it is with every patient and without each."""
        return not (np.isnan(self.value) or np.isnan(self.left_out).any())


@dataclass(frozen=True)
class Regressed:
    """An activation beside a label y and covariates z.

    r: Pearson's r with y. partial: that of what is left of both after a linear regression of each on z and an intercept
        (nan where nothing is left of either).
    multiple: R of a regression of the activation on z, which of categories is eta.
    strength: the same without chance's share, the root of 1 - (1 - R^2)(n - 1)/(n - 1 - columns), 0 where that is
        negative (Ezekiel 1930; of categories Kelley's epsilon, 1935): R of many categories is large by chance.
    """

    r: Found
    partial: Found
    multiple: Found
    strength: Found


class Regressions:
    """Any activation of the same images beside one label and the same covariates.

    Nothing is fitted again without a patient: all figures are of sums of products, from which a patient's own are taken
    off. Those of label and covariates alone, with the inverse, are made once for all activations.

    Args:
        y: the label. z: the covariates' columns (`design_of`), of any scale; they may hang on each other.
    """

    def __init__(
        self, y: Float[np.ndarray, " images"], z: Float[np.ndarray, "images columns"], jackknife: PatientJackknife
    ) -> None:
        self._jackknife, self._y = jackknife, _standard(y)
        self._z = np.column_stack([np.ones(len(y)), *map(_standard, z.T)])
        zz = np.stack([self._each(column[:, None] * self._z) for column in self._z.T], axis=1)
        self._n, self._zy, self._yy = zz[:, 0, 0], self._with_z(self._y), self._each(self._y**2)
        # Columns that others determine, as a view by its projection, take no degree of freedom.
        self._rank = int(np.linalg.matrix_rank(zz[0], rtol=1e-10, hermitian=True)) - 1
        self._inverse = np.linalg.pinv(zz, rcond=1e-10, hermitian=True)
        self._fitted_y = np.einsum("eij,ej->ei", self._inverse, self._zy)

    def of(self, a: Float[np.ndarray, " images"]) -> Regressed:
        a = _standard(a)
        za, aa, ay = self._with_z(a), self._each(a**2), self._each(a * self._y)
        fitted = np.einsum("eij,ej->ei", self._inverse, za)
        whole = aa - za[:, 0] ** 2 / self._n
        r = self._r(ay - za[:, 0] * self._zy[:, 0] / self._n, whole, self._yy - self._zy[:, 0] ** 2 / self._n)
        left = aa - (za * fitted).sum(1)
        partial = self._r(ay - (za * self._fitted_y).sum(1), left, self._yy - (self._zy * self._fitted_y).sum(1))
        with np.errstate(invalid="ignore", divide="ignore"):
            unexplained = np.where(whole > _LEAST * self._n, np.clip(left / whole, 0, 1), np.nan)
        adjusted = 1 - unexplained * (self._n - 1) / np.maximum(self._n - 1 - self._rank, 1)
        return Regressed(r, partial, _found(np.sqrt(1 - unexplained)), _found(np.sqrt(np.clip(adjusted, 0, 1))))

    def _r(self, across: np.ndarray, of_a: np.ndarray, of_y: np.ndarray) -> Found:
        there = (of_a > _LEAST * self._n) & (of_y > _LEAST * self._n)
        with np.errstate(invalid="ignore", divide="ignore"):
            return _found(np.where(there, np.clip(across / np.sqrt(of_a * of_y), -1, 1), np.nan))

    def _with_z(self, values: Float[np.ndarray, " images"]) -> Float[np.ndarray, "each columns"]:
        return self._each(values[:, None] * self._z)

    def _each(self, values: Float[np.ndarray, " images *columns"]) -> Float[np.ndarray, "each *columns"]:
        """The sum over all images, then without each patient in turn."""
        columns = values.reshape(len(values), -1)
        sums = [np.concatenate([[one.sum()], self._jackknife.sums(one)]) for one in columns.T]
        return np.stack(sums, axis=1).reshape(-1, *values.shape[1:])


def fisher_pooled(r: Sequence[float], n: Sequence[int]) -> float:
    """Correlations of strata pooled: the mean of artanh r by n - 3, turned back (Fisher 1921); nan of none."""
    weights = np.maximum(np.asarray(n, dtype=np.float64) - 3, 0)
    if not weights.sum():
        return float("nan")
    z = np.arctanh(np.clip(np.asarray(r, dtype=np.float64), -1 + 1e-9, 1 - 1e-9))
    return float(np.tanh((weights * z).sum() / weights.sum()))


def _standard(x: Float[np.ndarray, " images"]) -> Float[np.ndarray, " images"]:
    """Mean 0 and deviation 1, so that sums lose no digits; zeros of a constant."""
    x = x.astype(np.float64)
    return (x - x.mean()) / x.std() if np.ptp(x) > 0 else np.zeros(len(x))


def _found(values: Float[np.ndarray, " each"]) -> Found:
    return Found(float(values[0]), values[1:])
