"""Whether probabilities mean what they say: Brier's score, the calibration curve, and the error over it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from medsae_plugin.patients.head_results import Bin

BINS = 10


def brier(probability: Float[np.ndarray, " images"], y: Float[np.ndarray, " images"]) -> float:
    """The mean squared error of probabilities (Brier 1950)."""
    return float(np.mean((probability - y) ** 2))


def curve(probability: Float[np.ndarray, " images"], y: Float[np.ndarray, " images"], bins: int = BINS) -> list[Bin]:
    """Images in bins of like probability, as many in each as can be; images of one probability stay together."""
    order = np.argsort(probability, kind="stable")
    ranked = probability[order]
    ends = np.searchsorted(ranked, ranked[np.linspace(0, len(ranked), bins + 1)[1:-1].astype(int)], side="left")
    parts = np.split(order, np.unique(ends[ends > 0]))
    return [Bin(images=len(p), predicted=float(probability[p].mean()), found=float(y[p].mean())) for p in parts]


def calibration_error(bins: list[Bin]) -> float:
    """ECE: the mean over images of the distance between what is predicted and found in their bin."""
    total = sum(one.images for one in bins)
    return sum(one.images * abs(one.predicted - one.found) for one in bins) / total
