"""Figures of what latents lean on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from medsae_plugin.confounding.results import ALL, Confounders, Leaning, LeaningUnits
from medsae_plugin.report import style


def of(found: Confounders) -> list[tuple[str, Callable[[], Any]]]:
    """Of each SAE, neurons and probe, by name: r raw and adjusted, and how much they follow covariates."""
    drawn: list[tuple[str, Callable[[], Any]]] = []
    for units in found.units:
        name = units.name.replace("/", "--").replace(" ", "-")
        if any(one.top for one in units.leanings):
            drawn.append((f"adjusted-{name}", partial(adjusted, units)))
            drawn.append((f"covariates-{name}", partial(covariates, units)))
    return drawn


def adjusted(units: LeaningUnits) -> Any:
    """Of each label's top latent r with its interval, and what is left of it beside all covariates, and each alone."""
    import matplotlib.pyplot as plt

    labels = _by_label(units)
    names = list(dict.fromkeys(one.covariate for one in units.leanings))
    figure, axes = plt.subplots(figsize=(style.ONE_COLUMN, 0.19 * len(labels) + 0.85))
    for y, rows in enumerate(labels.values()):
        whole = rows.get(ALL) or next(iter(rows.values()))
        axes.axhline(y, color=style.LIGHT, linewidth=0.4, zorder=0)
        if whole.r_low is not None and whole.r_high is not None:
            axes.plot([whole.r_low, whole.r_high], [y, y], color=style.LIGHT, linewidth=4, solid_capstyle="butt")
        if whole.r is not None and whole.partial is not None:
            axes.plot([whole.r, whole.partial], [y, y], color=style.GREY, linewidth=1)
        for k, name in enumerate(names):
            one, colour = rows.get(name), "black" if name == ALL else style.COLOURS[(k + 1) % 6]
            if one is not None and one.partial is not None:
                axes.plot(one.partial, y, style.MARKERS[(k + 1) % 7], color="white", mec=colour, ms=3.6, mew=0.9)
        if whole.r is not None:
            axes.plot(whole.r, y, "o", color=style.BLUE, ms=4.2)
    axes.plot([], [], "o", color=style.BLUE, label="r, 95% interval if any")
    for k, name in enumerate(names):
        colour = "black" if name == ALL else style.COLOURS[(k + 1) % 6]
        label = "beside all at once" if name == ALL else f"beside {name}"
        axes.plot([], [], style.MARKERS[(k + 1) % 7], color="white", mec=colour, mew=0.9, label=label)
    axes.set_yticks(range(len(labels)), list(labels))
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel(f"Pearson's r, raw and partial, {_whose(units)}")
    figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    return figure


def covariates(units: LeaningUnits) -> Any:
    """r of each label's top latent with its label and with covariates; a box where the verdict names the covariate."""
    import matplotlib.pyplot as plt

    labels = _by_label(units)
    names = list(dict.fromkeys(one.covariate for one in units.leanings))
    values = np.full((len(labels), len(names) + 1), np.nan)
    for y, rows in enumerate(labels.values()):
        first = next(iter(rows.values()))
        values[y] = [
            _value(first.r),
            *(_value(rows[name].with_covariate) if name in rows else np.nan for name in names),
        ]
    width = style.ONE_COLUMN * (0.55 + 0.11 * values.shape[1])
    figure, axes = plt.subplots(figsize=(width, 0.2 * len(labels) + 1.1))
    image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for (y, x), value in np.ndenumerate(values):
        told = "\N{EN DASH}" if np.isnan(value) else f"{value:.2f}"
        axes.text(x, y, told, ha="center", va="center", fontsize=5.5, color="white" if abs(value) > 0.6 else "black")
    for y, rows in enumerate(labels.values()):
        for x, name in enumerate(names, 1):
            if name in rows and rows[name].leans:
                axes.add_patch(plt.Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, ec="black", lw=1.1))
    latents = [f"{label}  {_latent(next(iter(rows.values())))}" for label, rows in labels.items()]
    axes.set_yticks(range(len(labels)), latents)
    heads = ["its observation", *("all at once" if name == ALL else name for name in names)]
    axes.set_xticks(range(len(heads)), heads, rotation=35, ha="right", rotation_mode="anchor")
    figure.colorbar(image, ax=axes, label=f"r, {_whose(units)}", shrink=0.7, aspect=30)
    return figure


def _by_label(units: LeaningUnits) -> dict[str, dict[str, Leaning]]:
    """The top latents' rows by label and covariate."""
    found: dict[str, dict[str, Leaning]] = {}
    for one in units.leanings:
        if one.top:
            found.setdefault(one.label, {})[one.covariate] = one
    return found


def _value(x: float | None) -> float:
    return np.nan if x is None else x


def _latent(one: Leaning) -> str:
    return "" if one.latent is None else f"#{one.latent}"


def _whose(units: LeaningUnits) -> str:
    return {"sae": "top latents", "neurons": "top neurons", "probe": "probe of all neurons"}[units.kind]
