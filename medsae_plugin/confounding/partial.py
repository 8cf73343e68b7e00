"""Correlations with covariates, and after partialling them out, each also without every patient in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from medsae_plugin.statistics.jackknife import PatientJackknife

AGE_EDGES = (20, 40, 60, 80)  # of the strata of a covariate that is a number, as age is


@dataclass(frozen=True)
class Covariate:
    """One covariate of some images.

    stratum: of each image, "" where unknown; of a number the band that it is in. strata: their names, in order.
    number: of each image, nan where unknown; None of categories.
    """

    name: str
    stratum: Shaped[np.ndarray, " images"]
    strata: tuple[str, ...]
    number: Float[np.ndarray, " images"] | None = None

    @classmethod
    def of(cls, values: pd.Series) -> Covariate:
        """Numbers are put into bands (under 20, 20-39, 40-59, 60-79, 80 and over), words are strata as they are."""
        name = str(values.name)
        if not pd.api.types.is_numeric_dtype(values):
            words = values.fillna("").astype(str).to_numpy()
            return cls(name, words, tuple(sorted(set(words) - {""})))
        x = values.to_numpy(dtype=np.float64)
        pairs = pairwise(AGE_EDGES)
        bands = [f"under {AGE_EDGES[0]}", *(f"{a}-{b - 1}" for a, b in pairs), f"{AGE_EDGES[-1]} and over"]
        stratum = np.where(np.isnan(x), "", np.array(bands)[np.digitize(np.nan_to_num(x), AGE_EDGES)])
        return cls(name, stratum, tuple(band for band in bands if (stratum == band).any()), x)

    @property
    def known(self) -> Bool[np.ndarray, " images"]:
        return self.stratum != ""

    def rows(self, some: Bool[np.ndarray, " images"]) -> Covariate:
        """Of some images, with the strata that these have."""
        stratum = self.stratum[some]
        strata = tuple(s for s in self.strata if (stratum == s).any())
        return Covariate(self.name, stratum, strata, None if self.number is None else self.number[some])

    @property
    def design(self) -> Float[np.ndarray, "images columns"]:
        """Columns of a regression on it, beside an intercept: the number, or 1 in each category but the first."""
        if self.number is not None:
            return self.number[:, None]
        return (self.stratum[:, None] == np.array(self.strata[1:], dtype=str)).astype(np.float64)


@dataclass(frozen=True)
class Found:
    """A figure, and what it is without each patient in turn."""

    value: float
    left_out: Float[np.ndarray, " patients"]


def partial_r(
    a: Float[np.ndarray, " images"],
    y: Float[np.ndarray, " images"],
    z: Float[np.ndarray, "images columns"],
    jackknife: PatientJackknife,
) -> Found:
    """Pearson's r of what is left of a and of y after a linear regression of each on z and an intercept.

    Without columns it is r itself. nan where nothing is left of either.
    """
    s = _residual(np.column_stack([a, y]), z, jackknife)
    return _found(_ratio(s[:, 0, 1], np.sqrt(np.maximum(s[:, 0, 0] * s[:, 1, 1], 0))))


def multiple_r(
    a: Float[np.ndarray, " images"], z: Float[np.ndarray, "images columns"], jackknife: PatientJackknife
) -> tuple[Found, Found]:
    """R of a regression of a on z and an intercept, which of categories is eta; and the same without chance's share.

    The second is the root of 1 - (1 - R^2)(n - 1)/(n - 1 - columns), 0 where that is negative (Ezekiel 1930; of
    categories Kelley's epsilon, 1935): R of many categories is large by chance.
    """
    one = a[:, None]
    left, whole = _residual(one, z, jackknife)[:, 0, 0], _residual(one, z[:, :0], jackknife)[:, 0, 0]
    unexplained = np.clip(_ratio(left, whole), 0, 1)
    n = np.concatenate([[len(a)], jackknife.sums(np.ones(len(a)))])
    adjusted = 1 - unexplained * (n - 1) / np.maximum(n - 1 - z.shape[1], 1)
    return _found(np.sqrt(1 - unexplained)), _found(np.sqrt(np.clip(adjusted, 0, 1)))


def fisher_pooled(r: Sequence[float], n: Sequence[int]) -> float:
    """Correlations of strata pooled: the mean of artanh r by n - 3, turned back (Fisher 1921); nan of none."""
    weights = np.maximum(np.asarray(n, dtype=np.float64) - 3, 0)
    if not weights.sum():
        return float("nan")
    z = np.arctanh(np.clip(np.asarray(r, dtype=np.float64), -1 + 1e-9, 1 - 1e-9))
    return float(np.tanh((weights * z).sum() / weights.sum()))


def _residual(
    v: Float[np.ndarray, "images some"], z: Float[np.ndarray, "images columns"], jackknife: PatientJackknife
) -> Float[np.ndarray, "each some some"]:
    """Sums of products of the residuals of v on z and an intercept: of all images, then without each patient.

    From the products of all columns, as a Schur complement, so that nothing is fitted again.
    """
    columns = np.column_stack([z, v])
    spread = columns.std(0)
    columns = (columns - columns.mean(0)) / np.where(spread > 0, spread, 1)
    columns = np.column_stack([np.ones(len(v)), columns])
    m = columns.shape[1]
    products = np.empty((1 + jackknife.n_patients, m, m))
    for i in range(m):
        for j in range(i + 1):
            each = columns[:, i] * columns[:, j]
            products[:, i, j] = products[:, j, i] = np.concatenate([[each.sum()], jackknife.sums(each)])
    k = m - v.shape[1]
    across = products[:, :k, k:]
    inverse = np.linalg.pinv(products[:, :k, :k], rcond=1e-10, hermitian=True)
    return products[:, k:, k:] - across.transpose(0, 2, 1) @ inverse @ across


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """nan where the divisor is rounding error: columns have deviation 1, so sums are of the size of n."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(b > 1e-9, np.clip(a / b, -1, 1), np.nan)


def _found(values: np.ndarray) -> Found:
    return Found(float(values[0]), values[1:])
