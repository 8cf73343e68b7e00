"""What an evaluation writes and prints: `metrics.json`, `latents.parquet`, and the table of top latents."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medsae_plugin._version import __version__
from medsae_plugin.evaluation.candidates import Aggregate, Candidate

if TYPE_CHECKING:
    from medsae_plugin.activations import ActivationStore

SCHEMA_VERSION = 1


def summarise(
    store: ActivationStore,
    candidates: list[Candidate],
    splits: dict[str, str],
    aggregate: Aggregate,
    labels: np.ndarray,
) -> dict[str, Any]:
    """The contents of `metrics.json`; undefined figures are null."""
    images = store.images
    counts = {
        role: {
            "split": split,
            "images": int((images["split"] == split).sum()),
            "patients": int(images.loc[images["split"] == split, "patient"].nunique()),
        }
        for role, split in splits.items()
    }
    return {
        "schema": SCHEMA_VERSION,
        "medsae_plugin": __version__,
        "encoder": store.manifest["encoder"],
        "aggregate": aggregate,
        **counts,
        "images_without_labels": int(np.isnan(labels).all(1).sum()),
        "unreadable_images": len(store.failures),
        "candidates": [_summary(c) for c in candidates],
    }


def _summary(candidate: Candidate) -> dict[str, Any]:
    _, r_report, h, top = candidate.label_scores()
    report = candidate.statistics["report"]
    n_labels = len(report.label_names)
    same_split = np.full(n_labels, np.nan)
    for c in range(n_labels):
        if not np.isnan(r_report[:, c]).all():
            same_split[c] = np.nanmax(r_report[:, c])
    observations = []
    for c, label in enumerate(report.label_names):
        j = int(top[c])
        observations.append(
            {
                "label": label,
                "positives": int(report.positives[c]),
                "known": int(report.known[c]),
                "latent": _index(candidate, j),
                "r": _number(r_report[j, c]) if j >= 0 else None,
                "r_same_split": _number(same_split[c]),
                "entropy": _number(h[j]) if j >= 0 else None,
                "entropy_normalised": _number(h[j] / math.log(n_labels)) if j >= 0 and n_labels > 1 else None,
            }
        )
    return {
        "name": candidate.name,
        "kind": candidate.kind,
        "hook": candidate.hook,
        "architecture": candidate.sae.cfg.architecture() if candidate.sae else None,
        "d_in": candidate.d_in,
        "d_sae": candidate.sae.cfg.d_sae if candidate.sae else None,
        "fidelity": {k: _number(v) for k, v in candidate.fidelity.figures().items()} if candidate.fidelity else None,
        "mean_top_r": _mean(observations, "r"),
        "mean_top_r_same_split": _mean(observations, "r_same_split"),
        "mean_top_entropy": _mean(observations, "entropy"),
        "mean_entropy": _number(np.nanmean(h)) if not np.isnan(h).all() else None,
        "observations": observations,
    }


def _index(candidate: Candidate, unit: int) -> int | str | None:
    """A latent's index; for the negative of neuron j, "-j"."""
    if unit < 0:
        return None
    return f"-{unit - candidate.d_in}" if candidate.sae is None and unit >= candidate.d_in else unit


def _number(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


def _mean(observations: list[dict[str, Any]], key: str) -> float | None:
    values = [o[key] for o in observations if o[key] is not None]
    return float(np.mean(values)) if values else None


def latent_frame(candidates: list[Candidate]) -> pd.DataFrame:
    """One row a latent (or neuron): density, maximum and entropy on `report`, r with each label on both splits."""
    frames = []
    for candidate in candidates:
        r_select, r_report, h, _ = candidate.label_scores()
        report = candidate.statistics["report"]
        columns: dict[str, Any] = {
            "name": candidate.name,
            "kind": candidate.kind,
            "hook": candidate.hook,
            "latent": [str(_index(candidate, j)) for j in range(report.n_latents)],
            "density": (report.fired / max(report.n_images, 1)).numpy(),
            "maximum": report.maximum.numpy(),
            "entropy": h,
        }
        for c, label in enumerate(report.label_names):
            columns[f"r: {label}"] = r_report[:, c]
            columns[f"r on select: {label}"] = r_select[:, c]
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def write(metrics: dict[str, Any], candidates: list[Candidate], out: Path) -> None:
    """Write `metrics.json` and `latents.parquet` into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    latent_frame(candidates).to_parquet(out / "latents.parquet", index=False)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def format_table(metrics: dict[str, Any]) -> str:
    """The top latent of every observation as `r (H)`, an SAE beside its hook's neurons, and the means below."""
    candidates = metrics["candidates"]
    neurons = {c["hook"]: c for c in candidates if c["kind"] == "neurons"}
    columns: list[tuple[str, dict[str, Any]]] = []
    for c in (c for c in candidates if c["kind"] == "sae"):
        columns += [(c["name"], c), ("neurons", neurons[c["hook"]])]
    labels = [o["label"] for o in candidates[0]["observations"]]
    rows = [["observation", "+"] + [name for name, _ in columns]]
    for i, label in enumerate(labels):
        cells = [_r_and_h(c["observations"][i]["r"], c["observations"][i]["entropy"]) for _, c in columns]
        rows.append([label, str(candidates[0]["observations"][i]["positives"]), *cells])
    rows.append(["mean", "", *[_r_and_h(c["mean_top_r"], c["mean_top_entropy"]) for _, c in columns]])
    for figure, title, form in _FIDELITY_ROWS:
        rows.append([title, "", *[_fidelity(c, figure, form) for _, c in columns]])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(x.ljust(w) if k == 0 else x.rjust(w) for k, (x, w) in enumerate(zip(r, widths, strict=True)))
        for r in rows
    ]
    rule = "-" * len(lines[0])
    lines = [lines[0], rule, *lines[1 : 1 + len(labels)], rule, *lines[1 + len(labels) :]]
    select, report = metrics["select"], metrics["report"]
    head = (
        f"r (H): Pearson's r with the observation and entropy in nats, of the top latent.\n"
        f"Chosen on {select['split']} ({select['images']} images, {select['patients']} patients), "
        f"reported on {report['split']} ({report['images']} images, {report['patients']} patients); "
        f"{metrics['aggregate']} over positions."
    )
    return "\n".join([head, "", *lines])


_FIDELITY_ROWS = (
    ("explained_variance", "explained variance", "{:.3f}"),
    ("l0", "L0", "{:.1f}"),
    ("dead", "dead latents", "{:.1%}"),
)


def _r_and_h(r: float | None, h: float | None) -> str:
    return "-" if r is None else f"{r:.2f} ({'-' if h is None else f'{h:.2f}'})"


def _fidelity(candidate: dict[str, Any], figure: str, form: str) -> str:
    value = (candidate["fidelity"] or {}).get(figure)
    return "" if value is None else form.format(value)
