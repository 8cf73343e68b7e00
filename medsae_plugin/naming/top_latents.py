"""The latent that follows each label most closely, and whether its name says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from medsae_plugin.evaluation.metrics import pearson, top_latent
from medsae_plugin.evaluation.statistics import LatentStatistics
from medsae_plugin.naming.names import Names
from medsae_plugin.naming.subject import Subject

_BLOCK = 64  # latents that are dense in memory at a time


@dataclass(frozen=True)
class TopName:
    """A label, its top latent (None where no latent follows it) with r on the naming split, and the latent's name.

    `right`: the name is the label, or a term whose category in the vocabulary is the label.
    """

    label: str
    latent: int | None
    r: float
    concept: str
    right: bool


def top_names(subject: Subject, names: Names, split: str) -> list[TopName]:
    """How the top latent of every label, chosen by Pearson's r on a split, is named."""
    rows = subject.data.rows([split])
    r = _correlations(subject, rows)
    by_latent = {unit.latent: unit for unit in names.of("latent")}
    told = []
    for label, latent, column in zip(subject.data.label_names, top_latent(r).tolist(), r.T, strict=True):
        if latent < 0:
            told.append(TopName(label, None, float("nan"), "", False))
            continue
        unit = by_latent.get(str(latent))
        concept = unit.concept if unit else ""
        right = unit is not None and label.casefold() in (unit.category.casefold(), concept.casefold())
        told.append(TopName(label, latent, float(column[latent]), concept, right))
    return told


def _correlations(subject: Subject, rows: np.ndarray) -> np.ndarray:
    data, n = subject.data, subject.matrix.n_latents
    parts = []
    for start in range(0, n, _BLOCK):
        block = subject.matrix.columns(start, min(start + _BLOCK, n)).toarray()[rows]
        statistics = LatentStatistics(block.shape[1], data.label_names)
        statistics.update(torch.from_numpy(block), data.labels[rows])
        parts.append(pearson(statistics))
    return np.concatenate(parts)


def format_top_names(told: list[TopName]) -> str:
    """A line a label, and how many are named rightly."""
    rows = [("label", "latent", "r", "named", "")]
    for top in told:
        latent, r = ("-", "-") if top.latent is None else (str(top.latent), f"{top.r:.2f}")
        rows.append((top.label, latent, r, top.concept or "-", "right" if top.right else ""))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    right = sum(top.right for top in told)
    return "\n".join([*lines, f"{right} of {len(told)} labels' top latents are named rightly"])
