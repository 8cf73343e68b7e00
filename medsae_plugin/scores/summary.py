"""From scored units to what is written of them: their models, and one row a latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medsae_plugin.scores import metrics
from medsae_plugin.scores.gains import gain
from medsae_plugin.scores.images import ROLES, LabelledImages
from medsae_plugin.scores.models import DensityBand, Observation, Split, UnitScores
from medsae_plugin.scores.registry import METRICS, Metric, number, shown
from medsae_plugin.scores.scoring import Scored
from medsae_plugin.statistics.intervals import FEW_LABELS
from medsae_plugin.statistics.permutation import in_thin_bands


def ranked() -> dict[str, bool]:
    """The figures that SAEs are ranked by, and whether more is better."""
    return {m.name: m.better == "higher" for m in shown("rank")}


def counts(images: LabelledImages) -> dict[str, Split]:
    """Of each role the split it is on, and how many images and patients that has."""
    folds = len(images.folds) or None
    on = {role: "report" if folds else role for role in ROLES}
    sizes = {role: np.unique(images.patient_codes[images.rows(on[role])], return_counts=True)[1] for role in ROLES}
    return {
        role: Split(
            split=images.splits[role],
            images=int(of.sum()),
            patients=len(of),
            without_row=images.without_row(on[role]),
            in_thin_bands=in_thin_bands(of),
            folds=folds,
            folds_of=list(images.folds_of),
            left_out=images.left_out if role == "report" else 0,
        )
        for role, of in sizes.items()
    }


def summaries(scored: Sequence[Scored]) -> list[UnitScores]:
    """Each one's summary, with an SAE's mean rank among the SAEs and its gains over what stands beside it."""
    entries = [_summary(s) for s in scored]
    neurons = {s.units.hook: s for s in scored if s.units.kind == "neurons"}
    trained = [k for k, s in enumerate(scored) if s.units.kind == "sae"]
    figures = [{name: entries[k].value(name) for name in ranked()} for k in trained]
    for k, rank in zip(trained, metrics.mean_ranks(figures, ranked()), strict=True):
        entries[k].mean_rank = rank
        entries[k].gain_over_neurons = gain(scored[k], neurons[scored[k].units.hook])
        entries[k].gains = [gain(scored[k], other) for other in scored if _is_beside(other, scored[k])]
    return entries


def latent_frame(scored: Sequence[Scored]) -> pd.DataFrame:
    """One row a latent (or neuron): its own figures, then its figures for every label; all on `report` unless said."""
    return pd.concat([_rows(s) for s in scored], ignore_index=True)


def _summary(scored: Scored) -> UnitScores:
    units, fidelity = scored.units, scored.fidelity
    of_sae = {m.name: scored[m.name] for m in _computed(scored) if m.per == "sae"}
    figures: dict[str, Any] = {name: x if isinstance(x, int) else number(x) for name, x in of_sae.items()}
    return UnitScores(
        name=units.name,
        kind=units.kind,
        hook=units.hook,
        architecture=units.architecture,
        d_in=units.d_in,
        d_sae=None if units.kind == "neurons" else units.n,
        baseline_of=units.baseline_of,
        fidelity=None if fidelity is None else _finite(fidelity.figures()),
        image_level=_finite(metrics.sparsity(scored.report)),
        density_histogram=metrics.density_histogram(scored.report).tolist(),
        density_bands=_density_bands(scored),
        observations=_observations(scored),
        no_interval=FEW_LABELS if scored.matrix is not None and scored.mean_degrees() is None else None,
        **figures,
    )


def _density_bands(scored: Scored) -> list[DensityBand]:
    score, band = scored["monosemanticity"], metrics.density_bands(scored["density"])
    edges, defined = 10.0**metrics.BAND_EDGES, ~np.isnan(score)
    return [
        DensityBand(
            low=float(edges[k]),
            high=float(edges[k + 1]),
            units=int((defined & (band == k)).sum()),
            monosemanticity=float(score[defined & (band == k)].mean()),
        )
        for k in np.unique(band[defined & (band >= 0)])
    ]


def _observations(scored: Scored) -> list[Observation]:
    """Of each label its top latent's figures on `report`."""
    report, folds = scored.report, scored.folds_of_top
    columns = {
        m.name: scored[m.name] if m.per == "top" else scored.of_top(m.name)
        for m in _computed(scored)
        if "observations" in m.show
    }
    why = [None] * len(report.label_names) if scored.matrix is None else scored.no_interval
    return [
        Observation(
            label=label,
            positives=int(report.positives[c]),
            known=int(report.known[c]),
            patients=int(report.patients[c]),
            latent=scored.units.label(int(scored.top[c])),
            follows=_followed(scored, c),
            no_interval=why[c],
            **({} if folds is None else {"folds": int(folds[c])}),
            **{name: number(values[c]) for name, values in columns.items()},
        )
        for c, label in enumerate(report.label_names)
    ]


def _followed(scored: Scored, c: int) -> str | None:
    """The label that the top latent of label `c` has its largest r with, on `report`."""
    r = scored.top_r[c]
    return None if np.isnan(r).all() else scored.label_names[int(np.nanargmax(r))]


def _is_beside(other: Scored, sae: Scored) -> bool:
    return other.units.baseline_of == sae.units.name


def _rows(scored: Scored) -> pd.DataFrame:
    units = scored.units
    columns: dict[str, Any] = {
        "name": units.name,
        "kind": units.kind,
        "hook": units.hook,
        "latent": [str(units.label(j)) for j in range(units.n)],
    }
    kept = [m for m in _computed(scored) if "latents" in m.show]
    columns |= {m.name: scored[m.name] for m in kept if m.per == "latent"}
    for m in kept:
        if m.per == "label":
            columns |= {f"{m.name}: {label}": scored[m.name][:, c] for c, label in enumerate(scored.label_names)}
    return pd.DataFrame(columns)


def _computed(scored: Scored) -> list[Metric]:
    return [m for m in METRICS.values() if scored.has(m.name)]


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: number(value) for name, value in figures.items()}
