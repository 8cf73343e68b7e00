"""The data of a report: what the page needs, in compact JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medsae_plugin.comparison.results import Comparison
from medsae_plugin.data.regions import Regions
from medsae_plugin.encoders.preprocessing import Preprocessor
from medsae_plugin.errors import MedSAEError
from medsae_plugin.report import leaning
from medsae_plugin.report.evidence import digits, nearest, strips, strongest
from medsae_plugin.report.localised import outlines
from medsae_plugin.report.pictures import heat_shape, heatmap_digits, thumbnail
from medsae_plugin.report.sources import Named, Run, ScoredSAE, report_rows, ribbons
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.metrics import DENSITY_EDGES
from medsae_plugin.scores.models import Observation, UnitScores
from medsae_plugin.scores.probe_results import Probes
from medsae_plugin.scores.registry import METRICS, Metric, Show, shown
from medsae_plugin.scores.strongest import Strongest

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.store import ActivationStore

MOST_LATENTS = 12_000
"""Latents whose pages a report holds, of all its SAEs together: what fits 15 MB."""

_PLACES: tuple[Show, ...] = ("report", "comparison", "observations")
_LEFT_OUT = {"observations", "density_histogram", "density_bands", "image_level", "baseline_of"}


@dataclass(frozen=True)
class Images:
    """The images that a report shows: their store, their root, and regions on them."""

    store: ActivationStore
    root: Path
    regions: Regions | None = None


def report_data(run: Run, images: Images | None, table: ImageTable | None) -> tuple[dict[str, Any], list[int]]:
    """Everything that the page shows but the pictures, and the images whose pictures are wanted, in order.

    Args:
        images: None for a report without images.
        table: for the share of images with an observation along a latent's firing range, and the labels of images.
    """
    labels = _labels(run, table)
    saes, used = [], []
    for s in run.saes:
        kept = _kept(s, run.label_names, MOST_LATENTS // len(run.saes))
        saes.append(_sae(run, s, kept, labels))
        if images:
            best = strongest(s.matrix, report_rows(s, run.evaluation.report))
            used.append(_images(images.store, s, kept, best, saes[-1]))
    wanted = list(dict.fromkeys(row for rows in _in_turn(used) for row in rows))
    present = {} if labels is None else {str(row): np.flatnonzero(labels[row] == 1).tolist() for row in wanted}
    data = {
        "labels": list(run.label_names),
        "header": run.evaluation.model_dump(mode="json", by_alias=True, exclude={"candidates"}),
        "metrics": [_declared(m) for m in METRICS.values() if m.show & {"report", "comparison"} and _has(run, m)],
        "density_edges": DENSITY_EDGES.tolist(),
        "saes": saes,
        "comparison": _compared(run.comparison),
        "probes": _probed(run.probes),
        "leaning": leaning.beside(run.confounders),
        "images": {"pictures": {}, "outlines": {}, "labels": present, "wanted": len(wanted)} if images else None,
    }
    return data, wanted


def pictures(
    run: Run, images: Images, wanted: Sequence[int], room: int
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The pictures of these images in their order, those that can be read, until they take `room` bytes; and on each
    the outlines of regions by finding."""
    paths = run.saes[0].matrix.images["path"]
    made: dict[str, str] = {}
    lines: dict[str, dict[str, str]] = {}
    preprocessor = Preprocessor.from_config(images.store.preprocessing)
    for row in wanted:
        picture = thumbnail(images.root / paths[row], images.store)
        drawn = {} if images.regions is None else outlines(images.regions, paths[row], preprocessor)
        room -= len(picture or "") + len(f'"{row}":"",')
        room -= len(json.dumps({str(row): drawn})) if drawn else 0
        if room < 0:
            break
        if picture:
            made[str(row)] = picture
            lines |= {str(row): drawn} if drawn else {}
    return made, lines


def _kept(s: ScoredSAE, label_names: Sequence[str], most: int) -> np.ndarray:
    """All latents, or of too many those that correlate most with any label, in their order."""
    if len(s.latents) <= most:
        return np.arange(len(s.latents))
    r = s.latents[[f"r: {label}" for label in label_names]].abs().max(axis=1).fillna(0).to_numpy()
    return np.sort(np.argsort(-r, kind="stable")[:most])


def _labels(run: Run, table: ImageTable | None) -> np.ndarray | None:
    if table is None:
        return None
    if missing := [label for label in run.label_names if label not in table.label_names]:
        raise MedSAEError(
            f"the table has no label {missing[0]!r}, which the run was scored on; give the run's own table"
        )
    found = LabelledImages.of(run.saes[0].matrix.images, table)
    return found.labels[:, [table.label_names.index(label) for label in run.label_names]]


def _sae(run: Run, s: ScoredSAE, kept: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    rows = report_rows(s, run.evaluation.report)
    frame = s.latents.iloc[kept]
    by_label = {
        m.name: [frame[f"{m.name}: {label}"].to_numpy(dtype=np.float64) for label in run.label_names]
        for m in shown("report", "label")
        if f"{m.name}: {run.label_names[0]}" in frame
    }
    r = np.stack(by_label["r"], axis=1)
    follows = np.where(np.isnan(r).all(1), -1, np.nan_to_num(r, nan=-2).argmax(1))
    every = np.full(s.matrix.n_latents, -1)
    every[kept] = follows
    drawn = strips(s.matrix, rows, None if labels is None else labels[rows], every)
    near, near_r = nearest(s.matrix, rows)
    # A comparison ranks on patients on whom nothing is reported.
    compared = {} if run.comparison is None else {e.name: e.mean_rank for e in run.comparison.saes}
    return {
        **_summary(s.scores),
        "mean_rank": compared.get(s.name, s.scores.mean_rank),
        "name": s.name,
        "encoder": s.encoder,
        "observations": [o.model_dump(mode="json") for o in s.scores.observations],
        "headline": s.scores.headline and s.scores.headline.model_dump(mode="json"),
        "histogram": s.scores.density_histogram,
        "leaning": leaning.of_sae(run.confounders, s.scores.name),
        "beside": [
            {
                **_summary(other),
                "monosemanticity_matched": s.scores.monosemanticity_beside(other),
                "observations": [_brief(o) for o in other.observations],
            }
            for other in (s.scores.neurons, *s.scores.baselines)
        ],
        "training": _training(s),
        "left_out": len(s.latents) - len(kept),
        "latents": {
            "index": kept.tolist(),
            "follows": follows.tolist(),
            **{m.name: short(frame[m.name]) for m in shown("report", "latent") if m.name in frame},
            **{what: [short(column) for column in columns] for what, columns in by_label.items()},
            "strip": [digits(drawn[j].level) for j in kept],
            "present": [digits(drawn[j].present) for j in kept] if labels is not None else None,
            "near": [[[int(n), _short(v)] for n, v in zip(near[j], near_r[j], strict=True) if n >= 0] for j in kept],
            **_across(run, s, kept),
        },
        "names": {str(j): _name(named) for j, named in s.names.items()},
        "localised": s.localised and s.localised.data(kept.tolist()),
    }


def _declared(m: Metric) -> dict[str, Any]:
    """What the page needs to show a figure, and the places that it is shown at."""
    return {
        "name": m.name,
        "title": m.title,
        "words": m.words or m.title,
        "unit": m.unit,
        "per": m.per,
        "digits": m.digits,
        "less": m.better == "lower",
        "low": m.low,
        "high": m.high,
        "in": [place for place in _PLACES if place in m.show],
    }


def _has(run: Run, m: Metric) -> bool:
    """Whether an SAE of the run has a figure: what was declared since it was scored it does not."""
    if m.per == "latent":
        return any(m.name in s.latents for s in run.saes)
    if m.per == "label":
        return any(f"{m.name}: {run.label_names[0]}" in s.latents for s in run.saes)
    if m.per == "top":
        return any(o.value(m.name) is not None for s in run.saes for o in s.scores.observations)
    return any(s.scores.value(m.name) is not None for s in run.saes)


def _summary(scores: UnitScores) -> dict[str, Any]:
    return {**scores.model_dump(mode="json", exclude=_LEFT_OUT), "not_sparse": scores.not_sparse}


def _brief(o: Observation) -> dict[str, Any]:
    """The figures that the page shows of an observation's top latent, with their intervals."""
    told = [m for m in shown("report") if "observations" in m.show]
    return {"label": o.label, "latent": o.latent, "no_interval": o.no_interval,
            **{key: o.value(key) for m in told for key in (m.name, m.low, m.high) if key}}  # fmt: skip


def _training(s: ScoredSAE) -> dict[str, Any] | None:
    if s.training is None:
        return None
    return {**s.training.trained_by, "history": s.training.history}


def _name(named: Named) -> dict[str, Any]:
    figures = {"judge", "balanced_accuracy", "precision", "recall", "f1"}
    return {
        **named.unit.model_dump(include={"concept", "description", "category", "similarity"}),
        "score": named.score and named.score.model_dump(include=figures),
    }


def _across(run: Run, s: ScoredSAE, kept: np.ndarray) -> dict[str, Any]:
    """What the comparison says of each latent: stability, fate, origin, and its partner in every other SAE."""
    if run.comparison is None:
        return {}
    own = run.comparison.frame("latents")
    own = own[own["name"] == s.name].set_index("latent").reindex(kept)
    place = {other.name: k for k, other in enumerate(run.saes)}
    matches = run.comparison.frame("matches")
    mine = matches[matches["a"] == s.name] if len(matches) else matches
    partners: dict[int, list[list[Any]]] = {}
    if len(mine):
        for latent, other, best, r in zip(mine["latent"], mine["b"], mine["best"], mine["best_r"], strict=True):
            partners.setdefault(int(latent), []).append([place[other], int(best), _short(r)])
    return {
        "stability": short(own["stability"]),
        "fate": [None if pd.isna(x) else x for x in own["fate"]],
        "origin": [None if pd.isna(x) else x for x in own["origin"]],
        "partners": [partners.get(int(j), []) for j in kept],
    }


def _compared(comparison: Comparison | None) -> dict[str, Any] | None:
    """The comparison, and of each flow the links between fates and origins, counted; None where there is none."""
    if comparison is None:
        return None
    flows = [{**flow.model_dump(mode="json"), "ribbons": ribbons(comparison, flow)} for flow in comparison.flows]
    return {**comparison.to_json(), "flows": flows}


def _probed(probes: Probes | None) -> dict[str, Any] | None:
    """Of each hook the probes' mean AUROC, and the share of the ceiling's that they recover; None without probes."""
    if probes is None:
        return None
    hooks = []
    for hook in probes.hooks:
        rows = []
        for u in probes.units:
            if u.hook == hook.hook:
                means = [*(u.mean(k) for k in probes.ks), u.mean(), u.mean(figure="reconstructed")]
                rows.append({"name": u.name, "cells": [[x, probes.recovered(x, hook.hook)] for x in means]})
        hooks.append({"hook": hook.hook, "d": hook.d, "all": hook.mean, "rows": rows})
    return {"ks": probes.ks, "split": probes.report.split, "hooks": hooks}


def _images(
    store: ActivationStore, s: ScoredSAE, kept: np.ndarray, best: Strongest, entry: dict[str, Any]
) -> list[int]:
    """Note the strongest images and their heatmaps in an SAE's entry; returns the images in order of importance."""
    maps = heatmap_digits(store, s, best)
    entry["heat"] = heat_shape(store, s.scores.hook) if maps else None
    entry["latents"]["strongest"] = [
        [
            [int(row), _short(value), *([maps[int(j), int(row)]] if maps else [])]
            for row, value in zip(best.images[j], best.values[j], strict=True)
            if row >= 0
        ]
        for j in kept
    ]
    tops = [o.latent for o in s.scores.observations if o.latent is not None]
    rank = np.argsort(-np.nan_to_num(s.latents.filter(regex="^r: ").abs().max(axis=1).to_numpy()[kept]), kind="stable")
    order = [*tops, *(int(kept[k]) for k in rank)]
    return [int(row) for j in dict.fromkeys(order) for row in best.images[j] if row >= 0]


def _in_turn(used: Sequence[Sequence[int]]) -> list[list[int]]:
    """The next eight images of each SAE in turn, so that a limit cuts all of them alike."""
    longest = max(map(len, used), default=0)
    return [list(rows[start : start + 8]) for start in range(0, longest, 8) for rows in used]


def short(values: Any) -> list[float | int | None]:
    """Numbers of three significant digits, null for what is undefined."""
    return [_short(x) for x in np.asarray(values, dtype=np.float64)]


def _short(x: float) -> float | int | None:
    if not math.isfinite(x):
        return None
    rounded = float(f"{x:.3g}") if abs(x) >= 1e-4 else (0 if x == 0 else float(f"{x:.1e}"))
    return int(rounded) if rounded == int(rounded) else rounded
