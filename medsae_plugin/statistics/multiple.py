"""Corrections for many tests at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """False discovery rates over all entries of `p` that are not nan (Benjamini and Hochberg 1995); nan stays nan."""
    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested])
    return q


def holm(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """p adjusted so that the chance of any false one below a level is that level (Holm 1979); nan is no test."""
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)  # nan last
    order = order[: len(p) - int(np.isnan(p).sum())]
    left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(left * p[order]))
    return adjusted
