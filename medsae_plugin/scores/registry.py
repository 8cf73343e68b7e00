"""The figures that scores have: each a function that is declared once, with `@metric`, and shown everywhere.

The table, `metrics.json`, `latents.parquet`, the report, the comparison and the model card iterate `METRICS`: who
declares a figure, in this package or out of it, sees it there without another line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat

import numpy as np

from medsae_plugin.errors import MedSAEError

Per = Literal["latent", "label", "top", "sae"]
Better = Literal["higher", "lower", ""]
Show = Literal["latents", "observations", "table", "report", "comparison", "card", "rank"]
Needs = Literal["sums", "images", "judge", "home"]
Figure = Callable[[Any], Any]
"""Of a `Scored`, which offers sums, activations and other figures; returns what `Metric.per` says."""


@dataclass(frozen=True)
class Metric:
    """One figure of scored units.

    name: its key in files. title: in tables. words: where there is room for more, "" for the title.
    unit: "" for none. better: which way is better, "" for neither.
    digits: as in a format, such as `.2f`; `p` for a probability, of which none is printed as 0.000.
    per: `latent`, an array `(units,)`; `label`, `(units, labels)`; `top`, `(labels,)`, of each label's top latent;
        `sae`, one number. Of the first two a label shows its top latent's.
    show: where: `latents` (latents.parquet), `observations` (metrics.json), and `table`, `report`, `comparison`,
        `card`; `rank` for a figure that SAEs are ranked by.
    needs: `sums`, or `images` for what merged sums of sites cannot give, or `judge` for what another encoder's
        embeddings give, or `home` for what a second hospital gives (`at_home`).
    low, high: the figures that bound its interval, "" for none.
    """

    name: str
    title: str
    per: Per
    compute: Figure
    unit: str = ""
    better: Better = ""
    digits: str = ".2f"
    show: frozenset[str] = frozenset()
    needs: Needs = "sums"
    low: str = ""
    high: str = ""
    words: str = ""

    def form(self, value: float | None) -> str:
        """The figure in words; "-" where it is undefined."""
        if value is None or math.isnan(value):
            return "-"
        if self.digits == "p":
            return "<.001" if value < 0.001 else format(value, ".3f")
        return format(value, self.digits)


METRICS: dict[str, Metric] = {}
_SHOWN: dict[Per, tuple[Show, ...]] = {
    "latent": ("latents", "observations"),
    "label": ("latents", "observations"),
    "top": ("observations",),
    "sae": (),
}


def metric(
    name: str,
    *,
    title: str,
    per: Per,
    unit: str = "",
    better: Better = "",
    digits: str = ".2f",
    show: Iterable[Show] = (),
    hide: Iterable[Show] = (),
    needs: Needs = "sums",
    low: str = "",
    high: str = "",
    words: str = "",
) -> Callable[[Figure], Figure]:
    """Declare a figure: a function of `Scored`.

    Args:
        show, hide: places beyond, and without, those of every figure of its kind: its files.

    Raises:
        MedSAEError: the name is taken.
    """

    def declare(compute: Figure) -> Figure:
        if name in METRICS:
            raise MedSAEError(f"there is a metric {name!r} already; choose another name")
        places = frozenset({*_SHOWN[per], *show} - {*hide})
        METRICS[name] = Metric(name, title, per, compute, unit, better, digits, places, needs, low, high, words)
        return compute

    return declare


def shown(place: Show, *per: Per) -> list[Metric]:
    """The figures that are shown at a place, in the order of their declaration; of some kinds alone, if given."""
    return [m for m in METRICS.values() if place in m.show and (not per or m.per in per)]


def number(x: SupportsFloat) -> float | None:
    """The number, or None where it is not finite: JSON has no nan."""
    return float(x) if math.isfinite(float(x)) else None


def mean_known(values: np.ndarray | list[float | None]) -> float:
    """The mean without what is undefined; nan where all is."""
    known = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else math.nan
