"""Figures of where latents look, of what `medsae localize` wrote beside an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from medsae_plugin.localisation.results import LocalisedUnits
from medsae_plugin.report import style
from medsae_plugin.report.localised import Localised

FIGURE = "average_precision"
_BIN = 0.05


def of(name: str, found: Localised) -> list[tuple[str, Callable[[], Any]]]:
    """The drawings of an SAE: `localisation` where there are findings, `inside` where a region of all images was
    given."""
    drawings: list[tuple[str, Callable[[], Any]]] = []
    if found.units.tops:
        drawings.append((f"localisation-{name}", partial(localisation, found)))
    if found.inside is not None:
        drawings.append((f"inside-{name}", partial(inside, found)))
    return drawings


def localisation(found: Localised) -> Any:
    """Of each finding the average precision of its top unit's map with its interval, beside chance, the untrained SAE
    and the raw neurons."""
    import matplotlib.pyplot as plt

    rows = found.units.tops
    beside = _beside(found)
    figure, axes = plt.subplots(figsize=(style.ONE_COLUMN, 0.19 * len(rows) + 0.85))
    for y, x in enumerate(rows):
        own = x.figures[FIGURE]
        axes.axhline(y, color=style.LIGHT, linewidth=0.4, zorder=0)
        if own.chance is not None:
            told = "other patients' regions" if y == 0 else None
            axes.barh(y, own.chance, height=0.62, color=style.LIGHT, label=told)
        for title, marker, colour, other in beside:
            theirs = other.best(x.label)
            mean = None if theirs is None else theirs.figures[FIGURE].mean
            if mean is not None:
                axes.plot(mean, y, marker, color="white", mec=colour, ms=3.4, mew=0.9, label=title if y == 0 else None)
        if own.interval is not None:
            axes.plot(own.interval, [y, y], color=style.BLUE, linewidth=1.3)
        axes.plot(own.mean, y, "o", color=style.BLUE, ms=4, label="SAE, 95% interval if any" if y == 0 else None)
    axes.set_yticks(range(len(rows)), [x.label for x in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, None)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("average precision, held-out patients")
    figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    return figure


def _beside(found: Localised) -> list[tuple[str, str, str, LocalisedUnits]]:
    """The untrained SAE and the hook's neurons, with how they are drawn."""
    made = []
    for other in found.found.units:
        if other.kind == "untrained" and other.baseline_of == found.units.name:
            made.append(("untrained SAE", "v", style.GREY, other))
        if other.kind == "neurons" and other.hook == found.units.hook:
            made.append(("raw neurons", "s", style.VERMILLION, other))
    return made


def inside(found: Localised) -> Any:
    """How the tested latents share their activation between a region and the rest: the share inside, less the region's
    share of the input."""
    import matplotlib.pyplot as plt

    assert found.inside is not None
    tested = found.inside[found.inside["p"].notna()]
    figure, axes = plt.subplots(figsize=(style.ONE_COLUMN, 2.0))
    span = tested["difference"].to_numpy() if len(tested) else np.array([-1.0, 1.0])
    edges = np.arange(np.floor(span.min() / _BIN), np.ceil(span.max() / _BIN) + 1) * _BIN
    parts = [("outside", style.VERMILLION), ("", style.LIGHT), ("inside", style.BLUE)]
    values = [tested.loc[tested["flag"] == flag, "difference"].to_numpy() for flag, _ in parts]
    told = [f"{flag or 'neither'} ({len(own)})" for (flag, _), own in zip(parts, values, strict=True)]
    axes.hist(values, edges, stacked=True, color=[colour for _, colour in parts], label=told, ec="white", lw=0.3)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel(f"share in {found.found.inside_finding}, less an even latent's")
    axes.set_ylabel("latents")
    figure.legend(loc="outside upper left", ncols=3, columnspacing=1.2)
    return figure
