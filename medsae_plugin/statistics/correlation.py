"""Pearson's r of many activations with many labels, as matrix products."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import sparse


def pearson_of(values: sparse.csr_array, labels: Float[np.ndarray, "images many"]) -> Float[np.ndarray, "latents many"]:
    """Pearson's r of sparse activations `(latents, images)` with many labels at once.

    Labels are any numbers, nan where unknown; each r is over the images where its label is known. nan where the
    activation or the label is constant there.
    """
    known, y = (~np.isnan(labels)).astype(np.float64), np.nan_to_num(labels)
    n, totals, squares = known.sum(0), y.sum(0), (y**2).sum(0)
    return pearson_from_sums(n, values @ known, values.power(2) @ known, totals, squares, values @ y)


def pearson_from_sums(
    n: np.ndarray, a: np.ndarray, aa: np.ndarray, y: np.ndarray, yy: np.ndarray, ay: np.ndarray
) -> np.ndarray:
    """Pearson's r from counts and sums that broadcast; nan where a side's deviation is rounding error, or nothing."""
    n = np.maximum(n, 1)
    scatter, label_scatter = aa - a**2 / n, yy - y**2 / n
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (ay - a * y / n) / np.sqrt(scatter * label_scatter)
    # Of sums of this size less would be rounding error.
    varies = (scatter > 1e-12 * aa) & (label_scatter > 1e-12 * n)
    return np.where(varies, np.clip(r, -1, 1), np.nan)
