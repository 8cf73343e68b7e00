"""Means of values that lie between 0 and 1, of few draws and of any distribution."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import rel_entr


def hoeffding_p(
    means: Float[np.ndarray, " tests"], expected: Float[np.ndarray, " tests"], n: Float[np.ndarray, " tests"]
) -> Float[np.ndarray, " tests"]:
    """Two-sided p of the mean of n independent values in [0, 1] that are expected to have another.

    Twice exp(-n KL(mean || expected)), 1 at most (Hoeffding 1963, JASA 58:13, theorem 1): whatever the values are
    distributed like, chance gives a p below any level at most that often, of few values as of many. It uses nothing of
    how far they scatter, so it is larger than Student's where they scatter little. nan of none.
    """
    with np.errstate(invalid="ignore"):
        divergence = rel_entr(means, expected) + rel_entr(1 - means, 1 - expected)
        return np.where(n > 0, np.minimum(1, 2 * np.exp(-n * divergence)), np.nan)
