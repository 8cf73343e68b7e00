"""Figures of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from medsae_plugin.comparison.results import ComparedSAE, Comparison, Flow
from medsae_plugin.report import style
from medsae_plugin.report.sources import Ribbon, ribbons

FATES = {"continues": style.BLUE, "splits": style.ORANGE, "merges": style.GREEN, "dies": style.GREY}
ORIGINS = {"continued": style.BLUE, "split off": style.ORANGE, "merged": style.GREEN, "born": style.SKY}

Part = tuple[int, int]
"""Of a bar: where it starts, and how many latents it counts."""


def of(comparison: Comparison) -> list[tuple[str, Callable[[], Any]]]:
    """The figures that the comparison has the data for, by name."""
    drawn: list[tuple[str, Callable[[], Any]]] = [("visibility", partial(visibility, comparison))]
    if _measured(comparison):
        drawn.append(("pareto", partial(pareto, comparison)))
    drawn.append(("likeness", partial(likeness, comparison)))
    for k, chain in enumerate(chains(comparison.flows), 1):
        drawn.append((f"flow-{k}", partial(flow, comparison, chain)))
    return drawn


def chains(flows: Sequence[Flow]) -> list[list[Flow]]:
    """Flows that follow each other, from the first layer to the last."""
    made: list[list[Flow]] = []
    for entry in flows:
        chain = next((c for c in made if c[-1].b == entry.a), None)
        if chain:
            chain.append(entry)
        else:
            made.append([entry])
    return made


def visibility(comparison: Comparison) -> Any:
    """AUROC of a linear probe for each observation at each layer; a box marks the first layer where it is visible."""
    import matplotlib.pyplot as plt

    entries = comparison.visibility
    values = np.array([[x.auroc for x in e.layers] for e in entries], dtype=np.float64)
    figure, axes = plt.subplots(figsize=(style.ONE_COLUMN * 1.25, 0.2 * len(entries) + 1.2))
    image = _heat(axes, values, 0.5, 1.0)
    axes.set_yticks(range(len(entries)), [e.label for e in entries])
    axes.set_xticks(range(values.shape[1]), _layer_names(comparison), rotation=35, ha="right", rotation_mode="anchor")
    for row, entry in enumerate(entries):
        for place in entry.visible_from:
            axes.add_patch(plt.Rectangle((place - 0.46, row - 0.44), 0.92, 0.88, fill=False, ec="black", lw=1.1))
    figure.colorbar(image, ax=axes, label="AUROC of a linear probe", shrink=0.7, aspect=30)
    return figure


def pareto(comparison: Comparison) -> Any:
    """Explained variance against L0; filled marks are on the front of their layer, which a line joins."""
    import matplotlib.pyplot as plt

    saes = _measured(comparison)
    layers = list(dict.fromkeys((x.encoder, x.hook) for x in saes))
    figure, axes = plt.subplots(figsize=(style.ONE_COLUMN, 2.6))
    for k, layer in enumerate(layers):
        here = [x for x in saes if (x.encoder, x.hook) == layer]
        colour, marker = style.COLOURS[k % len(style.COLOURS)], style.MARKERS[k % len(style.MARKERS)]
        front = sorted((x.value("l0"), x.value("explained_variance")) for x in here if x.pareto)
        axes.plot(*zip(*front, strict=True), color=colour, linewidth=0.7, zorder=1)
        for x in here:
            face = colour if x.pareto else "white"
            axes.plot(x.value("l0"), x.value("explained_variance"), marker, color=colour, mfc=face, mew=0.9, zorder=2)
        axes.plot([], [], marker, color=colour, label=short(layer[1]))
    axes.set_xlabel("L0: active latents a row")
    axes.set_ylabel("explained variance")
    axes.margins(0.1)
    axes.ticklabel_format(useOffset=False)
    figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    return figure


def likeness(comparison: Comparison) -> Any:
    """Debiased CKA of layers, and mean max correlation of SAEs' latents, row to column."""
    import matplotlib.pyplot as plt

    saes = [x.name for x in comparison.saes if x.kind == "sae"]
    found = np.eye(len(saes))
    for m in comparison.matching:
        a, b = saes.index(m.a), saes.index(m.b)
        found[a, b], found[b, a] = m.value("mean_max_correlation"), m.value("mean_max_correlation_back")
    cka = np.array(comparison.cka_debiased, dtype=np.float64)
    height = 1.3 + 0.2 * max(len(saes), len(cka))
    figure, axes = plt.subplots(
        1, 2, figsize=(style.TWO_COLUMNS, height), width_ratios=[max(len(cka), 3), max(len(saes), 3)]
    )
    names = [_layer_names(comparison), saes]
    titles = ["a  linear CKA of layers", "b  mean max correlation of latents, row to column"]
    for axis, values, labels, title in zip(axes, (cka, found), names, titles, strict=True):
        image = _heat(axis, values, 0.0, 1.0)
        axis.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(labels)), labels)
        axis.set_title(title)
    figure.colorbar(image, ax=axes, shrink=0.6, aspect=25)
    return figure


def flow(comparison: Comparison, chain: Sequence[Flow]) -> Any:
    """Latents from layer to layer: bars count origins (left) and fates (right); ribbons join those that are linked."""
    import matplotlib.pyplot as plt

    hooks = {x.name: x.hook for x in comparison.saes}
    columns = [chain[0].a, *(entry.b for entry in chain)]
    figure, axes = plt.subplots(figsize=(style.TWO_COLUMNS, 2.5))
    bar = 0.055
    tallest = max(
        sum(n for name, n in counts.items() if name != "silent") for f in chain for counts in (f.fates, f.origins)
    )
    for k, entry in enumerate(chain):
        fates, origins = _stacked(entry.fates, FATES), _stacked(entry.origins, ORIGINS)
        _draw_ribbons(axes, ribbons(comparison, entry), fates, origins, k + bar, k + 1 - bar)
        for place, stack, colours, side in ((k, fates, FATES, 1), (k + 1, origins, ORIGINS, -1)):
            for name, (start, count) in stack.items():
                if count:
                    axes.bar(place + side * bar / 2, count, bar * 0.94, start, color=colours[name], lw=0)
                    at = (place + side * (bar + 0.012), start + count / 2)
                    if count > 0.04 * tallest:
                        axes.text(*at, str(count), va="center", ha="left" if side > 0 else "right", fontsize=6)
    axes.set_xticks(range(len(columns)), [short(hooks[name]) for name in columns])
    axes.set_xlim(-0.15, len(columns) - 0.85)
    axes.invert_yaxis()
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    names = {**FATES, "is born": style.SKY}
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in names.values()]
    figure.legend(handles, list(names), loc="outside upper left", ncols=5, columnspacing=1.2, handlelength=0.9)
    return figure


def _draw_ribbons(
    axes: Any, links: Sequence[Ribbon], fates: Mapping[str, Part], origins: Mapping[str, Part], x0: float, x1: float
) -> None:
    """Bands between the parts of two bars, as broad at either end as their share of the links there."""
    out: dict[str, int] = {}
    into: dict[str, int] = {}
    for a, b, n in links:
        out[a], into[b] = out.get(a, 0) + n, into.get(b, 0) + n
    done, filled = dict.fromkeys(out, 0.0), dict.fromkeys(into, 0.0)
    t = np.linspace(0, 1, 40)
    smooth = t**2 * (3 - 2 * t)
    for a, b, n in links:
        h0, h1 = fates[a][1] * n / out[a], origins[b][1] * n / into[b]
        y0, y1 = fates[a][0] + done[a], origins[b][0] + filled[b]
        done[a], filled[b] = done[a] + h0, filled[b] + h1
        low, high = y0 + (y1 - y0) * smooth, y0 + h0 + (y1 + h1 - y0 - h0) * smooth
        axes.fill_between(x0 + (x1 - x0) * t, low, high, color=FATES[a], alpha=0.3, lw=0)


def _stacked(counts: Mapping[str, int], names: Mapping[str, str]) -> dict[str, Part]:
    made: dict[str, Part] = {}
    start = 0
    for name in names:
        made[name] = (start, counts[name])
        start += counts[name]
    return made


def _heat(axes: Any, values: np.ndarray, low: float, high: float) -> Any:
    image = axes.imshow(values, cmap=style.SEQUENTIAL, vmin=low, vmax=high, aspect="auto")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for (row, column), value in np.ndenumerate(values):
        dark = (value - low) / (high - low) < 0.6
        text = "–" if np.isnan(value) else f"{value:.2f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=5.5, color="white" if dark else "black")
    return image


def _layer_names(comparison: Comparison) -> list[str]:
    several = len(comparison.encoders) > 1
    return [f"{x.encoder}/{short(x.hook)}" if several else short(x.hook) for x in comparison.layers]


def _measured(comparison: Comparison) -> list[ComparedSAE]:
    """The SAEs whose fidelity is known."""
    return [x for x in comparison.saes if x.kind == "sae" and x.value("explained_variance") is not None]


def short(hook: str) -> str:
    """A hook's name without what all of them have."""
    return hook.replace("hook_", "")
