"""Positive activations as counts in logarithmic bins: quantiles from sums that merge exactly.

The sketch of Masson, Rim and Lee (2019, DDSketch) with a fixed range: a quantile is found to a relative error of
`RELATIVE_ERROR`, whatever the order or grouping of what was counted.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

N_BINS = 1024
_LOW, _HIGH = 1e-8, 1e8  # activations beyond are counted in the first and last bin
_STEP = np.log(_HIGH / _LOW) / N_BINS
RELATIVE_ERROR = float(np.tanh(_STEP / 2))


def count(
    latent: Int[np.ndarray, " values"], value: Float[np.ndarray, " values"], n_latents: int
) -> Int[np.ndarray, "latents bins"]:
    """Counts of positive values by latent and bin."""
    positive = value > 0
    bins = np.floor((np.log(value[positive], dtype=np.float64) - np.log(_LOW)) / _STEP)
    flat = latent[positive].astype(np.int64) * N_BINS + np.clip(bins, 0, N_BINS - 1).astype(np.int64)
    counts = np.zeros(n_latents * N_BINS, dtype=np.int32)
    np.add.at(counts, flat, 1)
    return counts.reshape(n_latents, N_BINS)


def quantile(counts: Int[np.ndarray, "latents bins"], q: float) -> Float[np.ndarray, " latents"]:
    """The q-quantile (lower: an activation that occurred, to the relative error) of each latent's positive activations.

    nan for a latent that never was positive.
    """
    total = counts.sum(1)
    rank = np.floor(q * np.maximum(total - 1, 0))
    bins = (np.cumsum(counts, axis=1) <= rank[:, None]).sum(1)
    # The middle of a bin in the sense that both of its ends are off by the same relative error.
    middle = _LOW * np.exp(bins * _STEP) * 2 / (1 + np.exp(-_STEP))
    return np.where(total > 0, middle, np.nan)
