"""The studentised bootstrap of a mean over patients, for values as skewed as effects of sparse latents are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from medsae_plugin.statistics.intervals import LEVEL

_CHUNK_ELEMENTS = 2**22


def studentised_interval(
    totals: Float[np.ndarray, " patients"],
    counts: Float[np.ndarray, " patients"],
    n_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The bootstrap-t interval (Efron 1981; Hall 1988) of the mean over images, whole patients resampled.

    In every resample the mean's distance from the mean found is divided by the resample's own standard error; their
    quantiles stand in for Student's t. A resample without a spread is undefined, and left out; nan where more than a
    tenth are.

    Args:
        totals, counts: of each patient the sum of its images' values, and how many they are.
    """
    n = len(totals)
    mean, error = _mean_and_error(np.ones((1, n)), totals, counts)
    rng = np.random.default_rng(seed)
    distances = []
    per_chunk = max(1, _CHUNK_ELEMENTS // max(1, n))
    for first in range(0, n_resamples, per_chunk):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(per_chunk, n_resamples - first)).astype(np.float64)
        means, errors = _mean_and_error(weights, totals, counts)
        spread = errors > 1e-9 * error
        distances.append(np.where(spread, (means - mean) / np.where(spread, errors, 1), np.nan))
    t = np.concatenate(distances)
    if np.isnan(t).mean() > 0.1 or error[0] == 0:
        return float("nan"), float("nan")
    low, high = np.nanquantile(t, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(mean[0] - high * error[0]), float(mean[0] - low * error[0])


def _mean_and_error(
    weights: Float[np.ndarray, "resamples patients"],
    totals: Float[np.ndarray, " patients"],
    counts: Float[np.ndarray, " patients"],
) -> tuple[np.ndarray, np.ndarray]:
    """The mean over images of each weighting of the patients, and its standard error by linearisation."""
    n = len(totals)
    images = weights @ counts
    means = weights @ totals / images
    # sum w (t - m c)^2, multiplied out, so that nothing of resamples x patients is made.
    squares = weights @ totals**2 - 2 * means * (weights @ (totals * counts)) + means**2 * (weights @ counts**2)
    return means, np.sqrt(np.maximum(squares, 0) * n / (n - 1)) / images
