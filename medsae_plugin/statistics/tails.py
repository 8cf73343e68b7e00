"""How rare a figure is among those that chance gave."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

ENOUGH = 10  # permutations that reach the observed figure: with fewer, the tail is extrapolated
_TAIL_SHARE, _MOST_IN_TAIL, _LEAST_IN_TAIL = 0.25, 250, 20


def permutation_p(
    observed: Float[np.ndarray, " tests"], null: Float[np.ndarray, "permutations tests"]
) -> Float[np.ndarray, " tests"]:
    """One-sided p of each figure against its own permutations.

    (1 + b) / (1 + m), with b of m permutations that reach it (Phipson and Smyth 2010). Where b is below `ENOUGH`, the
    tail of a generalised Pareto distribution over the largest quarter of the permutations, 250 at most (Knijnenburg et
    al. 2009), if that is smaller. Its shape is never taken as below 0, which would end the tail: extrapolated p are
    too large rather than too small. nan where there is no figure, or no permutation has one; a permutation without one
    counts as reaching it.
    """
    p = np.full(len(observed), np.nan)
    for k, (x, drawn) in enumerate(zip(observed, null.T, strict=True)):
        if np.isnan(x) or np.isnan(drawn).all():
            continue
        reached = int((~(drawn < x)).sum())
        p[k] = (1 + reached) / (1 + len(drawn))
        if reached < ENOUGH:
            p[k] = min(p[k], _pareto_tail(x, drawn[~np.isnan(drawn)], len(drawn)))
    return p


def _pareto_tail(x: float, drawn: Float[np.ndarray, " permutations"], n: int) -> float:
    """The share of a null above x; 1 where it has too few permutations to say."""
    count = min(int(_TAIL_SHARE * len(drawn)), _MOST_IN_TAIL)
    if count < _LEAST_IN_TAIL:
        return 1.0
    drawn = np.sort(drawn)
    start = (drawn[-count - 1] + drawn[-count]) / 2
    over = drawn[-count:] - start
    shape, scale = _generalised_pareto(over)
    gap = max(x - start, 0.0)
    beyond = np.exp(-gap / scale) if shape < 1e-6 else (1 + shape * gap / scale) ** (-1 / shape)
    return float(max(count / n * beyond, np.finfo(float).tiny))


def _generalised_pareto(over: Float[np.ndarray, " exceedances"]) -> tuple[float, float]:
    """Shape, at least 0, and scale, by probability weighted moments (Hosking and Wallis 1987); `over` ascends."""
    n = len(over)
    mean = max(float(over.mean()), np.finfo(float).tiny)
    weighted = float((over * (n - np.arange(1, n + 1)) / (n - 1)).mean())
    shape = 2 - mean / max(mean - 2 * weighted, np.finfo(float).tiny)
    if shape <= 0:
        return 0.0, mean
    shape = min(shape, 0.9)
    return shape, mean * (1 - shape)
