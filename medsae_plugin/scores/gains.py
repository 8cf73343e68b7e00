"""What an SAE gains over what stands beside it: on all candidates, and on as many as it has alive."""

from __future__ import annotations

from medsae_plugin.scores.declared import NONE, gain_interval, mean_top_r
from medsae_plugin.scores.models import Gain
from medsae_plugin.scores.registry import mean_known, number
from medsae_plugin.scores.scoring import Scored
from medsae_plugin.statistics.intervals import FEW_LABELS


def gain(sae: Scored, other: Scored) -> Gain:
    """How much larger the mean r of an SAE's top latents is than that of another's units, chosen likewise."""
    at_live = other.expected_top_r(int(sae.eligible.sum()))
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
