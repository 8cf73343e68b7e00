"""What an SAE gains over what stands beside it: on all candidates, and on as many as it has alive."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from medsae_plugin.scores.cross_fitting import CrossFitted
from medsae_plugin.scores.declared import NONE, gain_interval, mean_top_r
from medsae_plugin.scores.models import Gain
from medsae_plugin.scores.registry import mean_known, number
from medsae_plugin.scores.scoring import Scored
from medsae_plugin.statistics.intervals import FEW_LABELS


def gain(sae: Scored, other: Scored) -> Gain:
    """How much larger the mean r of an SAE's top latents is than that of another's units, chosen likewise."""
    at_live = _expected_top_r(other, int(sae.eligible.sum()))
    made = Gain(
        mean_top_r=number(mean_top_r(sae) - mean_top_r(other)),
        over=other.units.name,
        kind=other.units.kind,
        candidates=other.units.n,
        at_live=number(mean_known(at_live[sae.varying])),
    )
    if sae.matrix is not None and other.matrix is not None:
        between = gain_interval(sae, other)
        made.low, made.high = (number(bound) for bound in between or NONE)
        made.no_interval = None if between else FEW_LABELS
    return made


def _expected_top_r(of: Scored, n: int) -> Float[np.ndarray, " labels"]:
    """See `expected_top_r`; with folds the mean over them, of units that are chosen on the others."""
    if isinstance(of, CrossFitted):
        return of.mean_over_folds([_expected_top_r(fold, n) for fold in of.folds])
    return expected_top_r(of["r_select"], of["r"], of.eligible, n)


def expected_top_r(
    r_select: Float[np.ndarray, "units labels"],
    r: Float[np.ndarray, "units labels"],
    eligible: Bool[np.ndarray, " units"],
    n: int,
) -> Float[np.ndarray, " labels"]:
    """r of each label's top unit where it is chosen among `n` of the eligible units: the mean over all draws of them.

    Nothing is drawn: of E units in the order of r on `select`, the i-th (from 0) is the best of n drawn with
    probability C(E - 1 - i, n - 1) / C(E, n). All of them where there are no more than n. A unit without an r is never
    chosen, and counts as r = 0 where it is silent on `report`, as in `mean_top_r`.
    """
    n_alive = int(eligible.sum())
    n = min(n, n_alive)
    if n == 0:
        return np.zeros(r.shape[1])
    best = np.zeros(n_alive)
    best[0] = n / n_alive
    for i in range(n_alive - n):
        best[i + 1] = best[i] * (n_alive - n - i) / (n_alive - 1 - i)
    chosen = r_select[eligible]
    reported = np.where(np.isnan(chosen), 0.0, np.nan_to_num(r[eligible]))
    order = np.argsort(-np.where(np.isnan(chosen), -np.inf, chosen), axis=0, kind="stable")
    return best @ np.take_along_axis(reported, order, axis=0)
