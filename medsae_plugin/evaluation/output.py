"""What an evaluation writes: `metrics.json`, the figures of every label's top latent, and `latents.parquet`, of all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medsae_plugin._version import __version__
from medsae_plugin.evaluation import metrics, sketch
from medsae_plugin.evaluation.candidates import Candidate
from medsae_plugin.evaluation.resampling import interval
from medsae_plugin.evaluation.scoring import RankScores, Resampling, SumScores, of_top
from medsae_plugin.evaluation.targets import ROLES, Targets
from medsae_plugin.files import make_folder, replacing, write_text
from medsae_plugin.training.fidelity import FidelitySums

if TYPE_CHECKING:
    from medsae_plugin.activations import ActivationStore

SCHEMA_VERSION = 2
# The figures that SAEs are ranked by, and whether more is better.
RANKED = {"mean_top_r": True, "mean_top_entropy": False, "mean_monosemanticity": True}


@dataclass(frozen=True)
class Scored:
    """A candidate with its scores; `ranks` is None where only sums are known, `fidelity` for neurons."""

    candidate: Candidate
    sums: SumScores
    ranks: RankScores | None
    fidelity: FidelitySums | None


def summarise(
    store: ActivationStore,
    scored: Sequence[Scored],
    targets: Targets,
    splits: Mapping[str, str],
    aggregate: str,
    q: float,
    resampling: Resampling,
) -> dict[str, Any]:
    """The contents of `metrics.json`; undefined figures are null."""
    return {
        **header(store.manifest["encoder"], aggregate, split_counts(targets, splits)),
        "q": q,
        "resampling": asdict(resampling),
        "images_without_labels": int(np.isnan(targets.labels).all(1).sum()),
        "unreadable_images": len(store.failures),
        "candidates": summaries(scored),
    }


def split_counts(targets: Targets, splits: Mapping[str, str]) -> dict[str, Any]:
    """Of each role the split it is on, how many images and patients are scored, and how many images have no row."""
    rows = {role: targets.rows(role) for role in ROLES}
    return {
        role: {
            "split": splits[role],
            "images": len(rows[role]),
            "patients": len(set(targets.patients[rows[role]])),
            "without_row": targets.without_row[role],
        }
        for role in ROLES
    }


def header(encoder: Mapping[str, Any], aggregate: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that every `metrics.json` begins with."""
    return {
        "schema": SCHEMA_VERSION,
        "medsae_plugin": __version__,
        "encoder": dict(encoder),
        "aggregate": aggregate,
        **counts,
    }


def summaries(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Each candidate's summary, with its mean rank among the SAEs and its gain over its hook's neurons."""
    entries = [_summary(s) for s in scored]
    neurons = {s.candidate.hook: s for s in scored if s.candidate.kind == "neurons"}
    trained = [k for k, s in enumerate(scored) if s.candidate.kind == "sae"]
    for k, rank in zip(trained, metrics.mean_ranks([entries[k] for k in trained], RANKED), strict=True):
        entries[k]["mean_rank"] = rank
        entries[k]["gain_over_neurons"] = _gain(scored[k], neurons[scored[k].candidate.hook])
    return entries


def _summary(scored: Scored) -> dict[str, Any]:
    candidate, sums = scored.candidate, scored.sums
    observations = _observations(scored)
    live = sums.density > 0
    return {
        "name": candidate.name,
        "kind": candidate.kind,
        "hook": candidate.hook,
        "architecture": candidate.architecture,
        "d_in": candidate.d_in,
        "d_sae": None if candidate.kind == "neurons" else candidate.n_latents,
        "fidelity": _finite(scored.fidelity.figures()) if scored.fidelity else None,
        "image_level": _finite(metrics.sparsity(sums.report)),
        "density_histogram": metrics.density_histogram(sums.report).tolist(),
        "mean_top_r": number(mean_of_top(scored)),
        "mean_top_r_interval": _interval_of_mean(scored),
        "mean_top_r_same_split": _mean(observations, "r_same_split"),
        "mean_top_entropy": _mean(observations, "entropy"),
        "mean_entropy": number(_nanmean(sums.entropy[live])),
        "mean_monosemanticity": number(_nanmean(sums.monosemanticity[live])),
        "significant": int((sums.fdr < 0.05).any(1).sum()),
        "observations": observations,
    }


def _observations(scored: Scored) -> list[dict[str, Any]]:
    """Of each label its top latent's figures on `report`."""
    sums, ranks, report = scored.sums, scored.ranks, scored.sums.report
    n_labels = len(report.label_names)
    columns = {
        "r": of_top(sums.r, sums.top),
        "r_select": of_top(sums.r_select, sums.top),
        "p": of_top(sums.p, sums.top),
        "fdr": of_top(sums.fdr, sums.top),
        "r_same_split": _largest(sums.r),
        "entropy": of_top(sums.entropy, sums.top),
        "entropy_normalised": of_top(sums.entropy, sums.top) / math.log(n_labels) if n_labels > 1 else None,
        "monosemanticity": of_top(sums.monosemanticity, sums.top),
        "selectivity": of_top(sums.selectivity, sums.top),
        "density": of_top(sums.density, sums.top),
    }
    if ranks is not None:
        columns |= {
            "r_low": ranks.r_interval[0],
            "r_high": ranks.r_interval[1],
            "r_null": ranks.null,
            "p_null": ranks.p_null,
            "auroc": of_top(ranks.auroc, sums.top),
            "auroc_low": ranks.auroc_interval[0],
            "auroc_high": ranks.auroc_interval[1],
            "average_precision": of_top(ranks.average_precision, sums.top),
            "threshold": of_top(ranks.threshold, sums.top),
        }
    detected = sums.firing if ranks is None else ranks.detection
    columns |= {name: of_top(values, sums.top) for name, values in detected.items()}
    return [
        {
            "label": label,
            "positives": int(report.positives[c]),
            "known": int(report.known[c]),
            "patients": int(report.patients[c]),
            "latent": scored.candidate.index(int(sums.top[c])),
            "follows": _followed(sums, int(sums.top[c])),
            **{name: None if values is None else number(values[c]) for name, values in columns.items()},
        }
        for c, label in enumerate(report.label_names)
    ]


def _followed(sums: SumScores, latent: int) -> str | None:
    """The label that a latent has its largest r with, on `report`."""
    if latent < 0 or np.isnan(sums.r[latent]).all():
        return None
    return sums.report.label_names[int(np.nanargmax(sums.r[latent]))]


def mean_of_top(scored: Scored) -> float:
    """Mean r of the top latents over the labels that vary on `report`.

    A top latent that is silent there, or a label that has none, counts as r = 0: it says nothing of the label.
    """
    p = scored.sums.report.mean_label
    r = of_top(scored.sums.r, scored.sums.top)[(p > 0) & (p < 1)]
    return float(np.nan_to_num(r).mean()) if len(r) else math.nan


def _interval_of_mean(scored: Scored) -> list[float | None] | None:
    if scored.ranks is None:
        return None
    low, high = interval(_means_resampled(scored))
    return [number(float(low)), number(float(high))]


def _means_resampled(scored: Scored) -> np.ndarray:
    """`mean_of_top` in every bootstrap resample of the patients."""
    assert scored.ranks is not None
    p = scored.sums.report.mean_label
    r = scored.ranks.r_resampled[:, (p > 0) & (p < 1)]
    return np.nan_to_num(r).mean(1) if r.shape[1] else np.full(len(r), np.nan)


def _gain(sae: Scored, neurons: Scored) -> dict[str, float | None]:
    """How much larger an SAE's mean top r is than its neurons', with a 95% interval from the same resamples."""
    gain: dict[str, float | None] = {"mean_top_r": number(mean_of_top(sae) - mean_of_top(neurons))}
    if sae.ranks is not None and neurons.ranks is not None:
        low, high = interval(_means_resampled(sae) - _means_resampled(neurons))
        gain |= {"low": number(float(low)), "high": number(float(high))}
    return gain


def latent_frame(scored: Sequence[Scored]) -> pd.DataFrame:
    """One row a latent (or neuron): its own figures, then its figures for every label; all on `report` unless said."""
    return pd.concat([_rows(s) for s in scored], ignore_index=True)


def _rows(scored: Scored) -> pd.DataFrame:
    candidate, sums, ranks, report = scored.candidate, scored.sums, scored.ranks, scored.sums.report
    columns: dict[str, Any] = {
        "name": candidate.name,
        "kind": candidate.kind,
        "hook": candidate.hook,
        "latent": [str(candidate.index(j)) for j in range(report.n_latents)],
        "density": sums.density,
        "maximum": report.maximum,
        "median_positive": sketch.quantile(report.histogram, 0.5),
        "entropy": sums.entropy,
        "monosemanticity": sums.monosemanticity,
    }
    by_label = {
        "r": sums.r,
        "r on select": sums.r_select,
        "p": sums.p,
        "fdr": sums.fdr,
        "selectivity": sums.selectivity,
    }
    if ranks is not None:
        columns["threshold"] = ranks.threshold
        by_label |= {"auroc": ranks.auroc, "average precision": ranks.average_precision, **ranks.detection}
    for what, values in by_label.items():
        columns |= {f"{what}: {label}": values[:, c] for c, label in enumerate(report.label_names)}
    return pd.DataFrame(columns)


def write(metrics: Mapping[str, Any], latents: pd.DataFrame, out: Path) -> None:
    """Write `metrics.json` and `latents.parquet` into the folder `out`."""
    make_folder(out)
    with replacing(out / "latents.parquet") as temporary:
        latents.to_parquet(temporary, index=False)
    write_metrics(metrics, out)


def write_metrics(metrics: Mapping[str, Any], out: Path) -> None:
    """Write `metrics.json` into the folder `out`."""
    write_text(out / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def number(x: float | int) -> float | None:
    """The number, or None where it is not finite: JSON has no nan."""
    return float(x) if math.isfinite(x) else None


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: number(value) for name, value in figures.items()}


def _largest(r: np.ndarray) -> np.ndarray:
    filled = np.where(np.isnan(r), -np.inf, r).max(0)
    return np.where(np.isfinite(filled), filled, np.nan)


def _nanmean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _mean(observations: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [o[key] for o in observations if o[key] is not None]
    return float(np.mean(values)) if values else None
