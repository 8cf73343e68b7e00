"""What top units keep at another hospital: figures where they were chosen (at home), on `report`, and of both together.

Declared with `needs="home"`: there are some where `HeldOut.home` has images of the hospital that units were chosen at.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from medsae_plugin.scores.cross_fitting import auroc_within_folds, standardised_within
from medsae_plugin.scores.registry import metric
from medsae_plugin.scores.scoring import Scored
from medsae_plugin.statistics.intervals import independent_difference

PerLabel = Float[np.ndarray, " labels"]


@metric("r_home", title="r at home", per="top", better="higher", needs="home", show=["report"])
def r_home(s: Scored) -> PerLabel:
    """r of the same unit on other patients of the hospital where it was chosen."""
    return _home(s).of_top("r")


@metric("r_drop", title="r lost", words="r lost at the other hospital", per="top", better="lower", needs="home",
        low="r_drop_low", high="r_drop_high", show=["report"])  # fmt: skip
def r_drop(s: Scored) -> PerLabel:
    """What r there is above r here."""
    return _home(s).of_top("r") - s.of_top("r")


@metric("r_drop_low", title="95% from", per="top", needs="home")
def r_drop_low(s: Scored) -> PerLabel:
    """The lower end of its 95% interval (`independent_difference`); nan where r has none at one of the two."""
    return _intervals(s, "r", "r_left_out")[0]


@metric("r_drop_high", title="95% to", per="top", needs="home")
def r_drop_high(s: Scored) -> PerLabel:
    """The upper end."""
    return _intervals(s, "r", "r_left_out")[1]


@metric("r_pooled", title="r, both", per="top", better="higher", needs="home", show=["report"])
def r_pooled(s: Scored) -> PerLabel:
    """r over the images of both, activations standardised within each, so that one's scale adds nothing."""
    a, y, site = _both(s)
    found = np.full(y.shape[1], np.nan)
    for c in np.flatnonzero(s.top >= 0):
        known = ~np.isnan(y[:, c])
        x, t = standardised_within(a[known, c], site[known]), y[known, c]
        if len(t) and np.ptp(x) > 0 and np.ptp(t) > 0:
            found[c] = np.corrcoef(x, t)[0, 1]
    return found


@metric("auroc_home", title="AUROC at home", per="top", better="higher", needs="home")
def auroc_home(s: Scored) -> PerLabel:
    """As `r_home`."""
    return _home(s).of_top("auroc")


@metric("auroc_drop", title="AUROC lost", per="top", better="lower", needs="home", low="auroc_drop_low",
        high="auroc_drop_high")  # fmt: skip
def auroc_drop(s: Scored) -> PerLabel:
    """As `r_drop`."""
    return _home(s).of_top("auroc") - s.of_top("auroc")


@metric("auroc_drop_low", title="95% from", per="top", needs="home")
def auroc_drop_low(s: Scored) -> PerLabel:
    """As `r_drop_low`."""
    return _intervals(s, "auroc", "auroc_left_out")[0]


@metric("auroc_drop_high", title="95% to", per="top", needs="home")
def auroc_drop_high(s: Scored) -> PerLabel:
    """The upper end."""
    return _intervals(s, "auroc", "auroc_left_out")[1]


@metric("auroc_pooled", title="AUROC, both", per="top", better="higher", needs="home")
def auroc_pooled(s: Scored) -> PerLabel:
    """AUROC of pairs of images of one hospital."""
    a, y, site = _both(s)
    return np.where(s.top < 0, np.nan, auroc_within_folds(a, y, site))


@metric("mean_top_r_home", title="mean r at home", per="sae", better="higher", needs="home",
        show=["report", "comparison"])  # fmt: skip
def mean_top_r_home(s: Scored) -> float:
    """The mean of `r_home` over the labels that vary at both; 0 of a unit that is silent."""
    return _mean(_home(s), _vary(s))


@metric("mean_top_r_drop", title="mean r lost", words="mean r lost at the other hospital", per="sae", better="lower",
        needs="home", low="mean_top_r_drop_low", high="mean_top_r_drop_high",
        show=["report", "comparison"])  # fmt: skip
def mean_top_r_drop(s: Scored) -> float:
    """That, less the mean of r on `report` over the same labels."""
    return _mean(_home(s), _vary(s)) - _mean(s, _vary(s))


@metric("mean_top_r_drop_low", title="95% from", per="sae", needs="home")
def mean_top_r_drop_low(s: Scored) -> float:
    """The lower end of its 95% interval; nan where fewer than half of the labels have one at both."""
    return _mean_interval(s)[0]


@metric("mean_top_r_drop_high", title="95% to", per="sae", needs="home")
def mean_top_r_drop_high(s: Scored) -> float:
    """The upper end."""
    return _mean_interval(s)[1]


def _home(s: Scored) -> Scored:
    assert s.home is not None, "a figure of a second hospital was asked of one"
    return s.home


def _told(s: Scored) -> list[bool]:
    """The labels that have intervals at both."""
    return [not (here or there) for here, there in zip(s.no_interval, _home(s).no_interval, strict=True)]


def _intervals(s: Scored, figure: str, left_out: str) -> Float[np.ndarray, "2 labels"]:
    home = _home(s)
    found = np.full((2, len(s.label_names)), np.nan)
    for c in np.flatnonzero(_told(s)):
        there, here = ((x.of_top(figure)[c], getattr(x, left_out)[:, c], x.degrees[c]) for x in (home, s))
        found[:, c] = independent_difference(there, here)
    return found


def _both(
    s: Scored,
) -> tuple[Float[np.ndarray, "rows labels"], Float[np.ndarray, "rows labels"], Int[np.ndarray, " rows"]]:
    """Top units' activations, labels, and the hospital of each image."""
    parts = (_home(s), s)
    site = np.repeat([0, 1], [len(one.labels) for one in parts])
    return np.concatenate([x.top_activations for x in parts]), np.concatenate([x.labels for x in parts]), site


def _vary(s: Scored) -> Int[np.ndarray, " varying"]:
    return np.flatnonzero(s.varying & _home(s).varying)


def _mean(s: Scored, labels: Int[np.ndarray, " varying"]) -> float:
    return float(np.nan_to_num(s.of_top("r"))[labels].mean()) if len(labels) else math.nan


def _mean_interval(s: Scored) -> tuple[float, float]:
    labels = _vary(s)
    known = labels[np.array(_told(s), dtype=bool)[labels]]
    if not len(labels) or len(known) * 2 < len(labels):
        return math.nan, math.nan
    there, here = (
        (_mean(x, labels), x.r_left_out_held[:, labels].mean(1), x.degrees[known].sum()) for x in (_home(s), s)
    )
    return independent_difference(there, here)
