"""A selectivity as figures: the matrix of what is silenced and what falls, and the curves over k."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medsae_plugin.report import style
from medsae_plugin.report.figures import draw
from medsae_plugin.scores.units import as_folder_name
from medsae_plugin.selectivity.models import AblatedUnits, Ablation
from medsae_plugin.selectivity.results import Selectivity

_DIVERGING = "RdBu"  # red where it falls
_TITLES = {"sae": "the SAE's latents", "untrained": "untrained SAE", "neurons": "raw neurons"}


def write_selectivity_figures(
    found: Selectivity, out: str | Path, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Of each SAE and measure `matrix` and `curve`; the same result gives the same files.

    Raises:
        MedSAEError: what `draw` refuses.
    """
    drawings = []
    for one in found.units:
        if one.kind == "sae":
            name = f"{as_folder_name(one.name)}-{one.measure}"
            drawings.append((f"matrix-{name}", partial(matrix, found, one)))
            drawings.append((f"curve-{name}", partial(curve, found, one)))
    return draw(drawings, out, formats)


def matrix(found: Selectivity, one: AblatedUnits) -> Any:
    """Which observations' AUROC changes when the units of one, or of a covariate, are silent."""
    import matplotlib.pyplot as plt

    k, labels = found.ks[len(found.ks) // 2], found.labels
    concepts = [(label, False) for label in labels] + [(name, True) for name in found.covariates]
    targets = list(dict.fromkeys([*labels, *(t for of in found.covariates.values() for t in of)]))
    change = np.full((len(concepts), len(targets)), np.nan)
    for i, (concept, covariate) in enumerate(concepts):
        ablation = one.of(concept, k, covariate)
        for effect in ablation.effects if ablation else []:
            change[i, targets.index(effect.target)] = np.nan if effect.change is None else effect.change
    largest = float(np.nanmax(np.abs(change), initial=0.05))
    size = 0.19 * len(targets)
    figure, axes = plt.subplots(figsize=(size + 2.3, 0.19 * len(concepts) + 1.9))
    shown = axes.imshow(change, cmap=_DIVERGING, vmin=-largest, vmax=largest)
    axes.set_xticks(range(len(targets)), targets, rotation=90)
    axes.set_yticks(range(len(concepts)), [name + (" (covariate)" if of else "") for name, of in concepts])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.axhline(len(labels) - 0.5, color="black", linewidth=0.5)
    axes.axvline(len(labels) - 0.5, color="black", linewidth=0.5)
    axes.set_ylabel(f"silent: the {k} units that carry it")
    axes.set_xlabel("whose scores are read")
    figure.colorbar(shown, ax=axes, shrink=0.6, label="change of AUROC")
    return figure


def curve(found: Selectivity, one: AblatedUnits) -> Any:
    """Over k: an observation's own change beside the others' and that by chance, and a covariate's beside theirs."""
    import matplotlib.pyplot as plt

    panels = 1 + len(found.covariates)
    figure, axes = plt.subplots(1, panels, figsize=(2.3 * panels + 0.4, 2.9), sharey=True, squeeze=False)
    beside = [u for u in found.units if u.measure == one.measure and u.hook == one.hook]
    others = [u for u in beside if u.kind == "neurons" or u.baseline_of == one.name]
    for j, units in enumerate([one, *others]):
        own = [(m.k, m.own, m.own_low, m.own_high) for m in units.means]
        _line(axes[0][0], own, _TITLES.get(units.kind, units.kind), style.COLOURS[j], style.MARKERS[j])
    _line(axes[0][0], [(m.k, m.others, None, None) for m in one.means], "other observations", style.GREY, "D")
    _line(axes[0][0], [(m.k, m.random, None, None) for m in one.means], "own, random latents", style.LIGHT, "P")
    axes[0][0].set_title("own observation")
    for axis, (name, targets) in zip(axes[0][1:], found.covariates.items(), strict=True):
        told = [(k, one.of(name, k, covariate=True), one.of(None, k)) for k in found.ks]
        _line(axis, [(k, a.own, a.own_low, a.own_high) for k, a, _ in told if a], name, style.BLUE, "o")
        _line(axis, [(k, a.others, None, None) for k, a, _ in told if a], "observations", style.GREY, "D")
        drawn = [(k, _mean_change(a, targets), None, None) for k, _, a in told if a]
        _line(axis, drawn, f"{name}, random latents", style.LIGHT, "P")
        axis.set_title(name)
    for axis in axes[0]:
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_xscale("log")
        axis.set_xticks(found.ks, [str(k) for k in found.ks])
        axis.minorticks_off()
        axis.set_xlabel("units silent")
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.24))
    axes[0][0].set_ylabel("change of AUROC")
    return figure


def _line(
    axis: Any,
    points: Sequence[tuple[int, float | None, float | None, float | None]],
    label: str,
    colour: str,
    mark: str,
) -> None:
    """A curve over k of values with their intervals, where they have one."""
    known = [(k, x, low, high) for k, x, low, high in points if x is not None]
    axis.plot([k for k, *_ in known], [x for _, x, *_ in known], color=colour, marker=mark, label=label, ms=3)
    for k, _, low, high in known:
        if low is not None and high is not None:
            axis.plot([k, k], [low, high], color=colour, linewidth=0.8)


def _mean_change(ablation: Ablation, targets: Sequence[str]) -> float | None:
    changes = [e.change for e in ablation.effects if e.target in targets and e.change is not None]
    return float(np.mean(changes)) if changes else None
