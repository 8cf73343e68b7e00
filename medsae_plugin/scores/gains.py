"""What an SAE gains over what stands beside it: on all candidates, and on as many as it has alive."""

from __future__ import annotations

import numpy as np

from medsae_plugin.scores.declared import mean_top_r
from medsae_plugin.scores.models import Gain
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.resampling import interval
from medsae_plugin.scores.scoring import Scored


def gain(sae: Scored, other: Scored) -> Gain:
    """How much larger the mean r of an SAE's top latents is than that of another's units, chosen likewise."""
    made = Gain(
        mean_top_r=number(mean_top_r(sae) - mean_top_r(other)),
        over=other.units.name,
        kind=other.units.kind,
        candidates=other.units.n,
        at_live=number(expected_mean_top_r(other, int(sae.eligible.sum()))),
    )
    if sae.matrix is not None and other.matrix is not None:
        low, high = interval(sae.mean_r_resampled() - other.mean_r_resampled())
        made.low, made.high = number(float(low)), number(float(high))
    return made


def expected_mean_top_r(scored: Scored, n: int) -> float:
    """`mean_top_r` where top units are chosen among `n` of the units that could be chosen: its mean over all draws.

    Nothing is drawn: of E units in the order of r on `select`, the i-th (from 0) is the best of n drawn with
    probability C(E - 1 - i, n - 1) / C(E, n). All of them where there are no more than n.
    """
    alive = scored.eligible
    n_alive = int(alive.sum())
    n = min(n, n_alive)
    if not scored.varying.any():
        return float("nan")
    if n == 0:
        return 0.0
    best = np.zeros(n_alive)
    best[0] = n / n_alive
    for i in range(n_alive - n):
        best[i + 1] = best[i] * (n_alive - n - i) / (n_alive - 1 - i)
    chosen, reported = scored["r_select"][alive], np.nan_to_num(scored["r"][alive])
    reported = np.where(np.isnan(chosen), 0.0, reported)  # never a top unit, which counts as r = 0
    order = np.argsort(-np.where(np.isnan(chosen), -np.inf, chosen), axis=0, kind="stable")
    return float((best @ np.take_along_axis(reported, order, axis=0))[scored.varying].mean())
