"""The latent that goes with each label most closely, and whether its name says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.naming.evidence import told_labels
from medsae_plugin.naming.firing import Firing, open_firing
from medsae_plugin.naming.names import Names
from medsae_plugin.naming.run import MATRICES
from medsae_plugin.naming.vocabulary import Vocabulary
from medsae_plugin.scores.metrics import pearson, top_latent
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.text import printable, to_the_left

_BLOCK = 64  # latents that are dense in memory at a time


@dataclass(frozen=True)
class TopName:
    """A label, its top latent (None where no latent varies with it) with r on the naming split, and the latent's name.

    right: the name is the label, or a term whose category in the vocabulary is the label.
    told: whoever named the latent was told that it goes with the label, so `right` says nothing of how it names.
    """

    label: str
    latent: int | None
    r: float
    concept: str
    right: bool
    told: bool


def told_top_names(
    store: ActivationStore, sae: Any, table: ImageTable, folder: Path, split: str, vocabulary: Vocabulary
) -> str:
    """Whether labels' top latents are named rightly by the names in a folder, as text; "" where no label is a category
    of the vocabulary."""
    if not {x.casefold() for x in table.label_names} & {x.casefold() for x in vocabulary.categories}:
        return ""
    latents, _ = open_firing(store, sae, table, folder / MATRICES, progress=False)
    return f"\n{format_top_names(top_names(latents, Names.open(folder), split))}\n\n"


def top_names(firing: Firing, names: Names, split: str) -> list[TopName]:
    """How the top latent of every label, chosen by Pearson's r on a split, is named."""
    rows = firing.images.rows_in([split])
    r = _correlations(firing, rows)
    named = {unit.latent: (unit, run.made) for run in names.runs() for unit in run.of("latent")}
    found = []
    for label, latent, column in zip(firing.images.label_names, top_latent(r).tolist(), r.T, strict=True):
        if latent < 0:
            found.append(TopName(label, None, float("nan"), "", right=False, told=False))
        elif str(latent) not in named:
            found.append(TopName(label, latent, float(column[latent]), "", right=False, told=False))
        else:
            unit, made = named[str(latent)]
            right = label.casefold() in (unit.category.casefold(), unit.concept.casefold())
            told = _is_told(firing, latent, label, made)
            found.append(TopName(label, latent, float(column[latent]), unit.concept, right, told))
    return found


def _is_told(firing: Firing, latent: int, label: str, made: dict[str, Any]) -> bool:
    """Whether the namer was told of the label: it names by labels, read reports, or was shown the label's share."""
    backend = made.get("namer", {}).get("backend")
    if backend == "chat" and firing.images.reports is None:
        if not made.get("evidence", {}).get("labels", True):
            return False
        shares = firing.label_shares(latent, firing.images.rows_in([made["split"]]))
        return label in [share.label for share in told_labels(shares)]
    return bool(backend != "vocabulary")


def _correlations(firing: Firing, rows: np.ndarray) -> np.ndarray:
    data, n = firing.images, firing.matrix.n_latents
    parts = []
    for start in range(0, n, _BLOCK):
        block = firing.matrix.columns(start, min(start + _BLOCK, n)).toarray()[rows]
        statistics = LatentStatistics(block.shape[1], data.label_names)
        statistics.update(torch.from_numpy(block), data.labels[rows])
        parts.append(pearson(statistics))
    return np.concatenate(parts)


def format_top_names(found: list[TopName]) -> str:
    """A line a label, and how many are named rightly by a namer that was not told the label."""
    rows = [("label", "latent", "r", "named", "")]
    for top in found:
        latent, r = ("-", "-") if top.latent is None else (str(top.latent), f"{top.r:.2f}")
        remark = ("right, as told" if top.told else "right") if top.right else ""
        rows.append((printable(top.label), latent, r, printable(top.concept) or "-", remark))
    lines = to_the_left(rows)
    told, untold = ([top for top in found if top.told is kind] for kind in (True, False))
    right, as_told = (sum(top.right for top in part) for part in (untold, told))
    if not told:
        return "\n".join([*lines, f"{right} of {len(found)} labels' top latents are named rightly"])
    if untold:
        lines.append(f"{right} of {len(untold)} labels' top latents are named rightly by a namer not told the label")
    lines.append(
        f"{as_told} of {len(told)} bear the label that the namer was told (by its shares, by reports, or as the name "
        "itself): no success of naming; medsae name score tries names"
    )
    return "\n".join(lines)
