"""From what perturbations keep of a latent to words: does it change, and what does it seem to hang on?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medsae_plugin.robustness.sums import Kept
from medsae_plugin.statistics.intervals import LEAST_PATIENTS, correlation_interval, t_interval

HALF = 0.5
"""Of r: below it a perturbed image tells less than a quarter of the variance of the activation on the image."""
FEW = f"fires on fewer than {LEAST_PATIENTS} groups of patients"
SAME = "the same without every group of patients"
UNDEFINED = "constant, at least without one group of patients"

Verdict = Literal["keeps", "changes", "cannot say", "too few to say"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Judged:
    """How a perturbation keeps a unit, with intervals, why there is none, and the verdict."""

    jaccard_interval: Interval | None
    r_interval: Interval | None
    no_interval: str | None
    verdict: Verdict


def judged(kept: Kept, unit: int) -> Judged:
    """`changes` where the whole interval of r is below `HALF`, `keeps` where it is above; `cannot say` where it is on
    both sides; `too few to say` of a unit that fires on too few patients, or whose r is undefined.

    Where r is the same without every group there is no interval, and r itself decides.
    """
    if kept.groups_firing[unit] < LEAST_PATIENTS:
        return Judged(None, None, FEW, "too few to say")
    r, left_out = float(kept.r[unit]), kept.r_left_out[:, unit]
    jaccard = _jaccard_interval(kept, unit)
    if np.isnan(r) or np.isnan(left_out).any():
        # A unit that never fires on perturbed images keeps nothing of itself, though r is undefined.
        silent = kept.fired_perturbed[unit] == 0
        return Judged(jaccard, None, UNDEFINED, "changes" if silent else "too few to say")
    if np.ptp(left_out) < 1e-9:
        return Judged(jaccard, None, SAME, "keeps" if r > HALF else "changes")
    low, high = correlation_interval(r, left_out, float(len(left_out) - 1))
    verdict: Verdict = "keeps" if low > HALF else "changes" if high < HALF else "cannot say"
    return Judged(jaccard, (low, high), None, verdict)


def _jaccard_interval(kept: Kept, unit: int) -> Interval | None:
    left_out = kept.jaccard_left_out[:, unit]
    if np.isnan(left_out).any() or np.ptp(left_out) < 1e-12:
        return None
    low, high = t_interval(float(kept.jaccard[unit]), left_out, float(len(left_out) - 1))
    return max(low, 0.0), min(high, 1.0)


def words_for(verdicts: Mapping[str, Verdict]) -> str:
    """What a latent seems to hang on, by its verdict for each perturbation; "" where nothing says so.

    Noise and another window leave everything where it is. A latent that they change hangs on grey levels, and nothing
    is said of where. Of the others one that a mirror changes tells left from right, and one that a crop changes hangs
    on an edge: a letter or a marker stands at one side and near an edge, and both change it.
    """
    changes = [name for name, verdict in verdicts.items() if verdict == "changes"]
    if grey := [name for name in changes if name in ("noise", "window")]:
        return f"grey levels: changes with {' and '.join(_GREY[name] for name in grey)}"
    if any(verdicts.get(name) != "keeps" for name in ("noise", "window")):
        return ""
    side, edge = "mirrored" in changes, "cropped" in changes
    if side and edge:
        return "an edge or a marker at one side: changes when mirrored and when cropped"
    if side:
        return "a side: changes when mirrored"
    if edge:
        return "an edge: changes when cropped"
    return "an angle: changes when rotated" if "rotated" in changes else ""


_GREY = {"noise": "noise", "window": "the window"}
