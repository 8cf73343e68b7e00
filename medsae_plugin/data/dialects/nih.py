"""NIH ChestX-ray14: findings by name in one column, parted by bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medsae_plugin.data.dialects.base import Dialect, Shaped, cells, column_of, listed
from medsae_plugin.data.dialects.findings import key
from medsae_plugin.data.table_files import RawTable
from medsae_plugin.errors import MedSAEError

_FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia"),
    *("Infiltration", "Mass", "No Finding", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax"),
)
_BY_KEY = {key(name): name for name in _FINDINGS}


def _recognise(columns: Sequence[str], paths: Sequence[str]) -> str | None:
    keys = set(map(key, columns))
    return "its columns Image Index and Finding Labels" if {"imageindex", "findinglabels"} <= keys else None


def _shape(raw: RawTable, readers: str) -> Shaped:
    column = column_of(raw, "Finding Labels")
    found: list[list[str] | None] = []
    for cell, place in zip(cells(raw, column), raw.places, strict=True):
        parts = [part.strip() for part in cell.split("|") if part.strip()]
        if strange := [part for part in parts if key(part) not in _BY_KEY]:
            raise MedSAEError(f"{raw.path}, {place}, column {column!r}: {strange[0][:80]!r} is no finding of NIH's")
        found.append([_BY_KEY[key(part)] for part in parts] or None)
    labels = listed(found, _FINDINGS)
    notes = []
    both = (labels["No Finding"] == 1) & (sum(labels.values()) > 1)
    if both.any():
        notes.append(f"{int(both.sum()):,} images have findings and 'No Finding' as well")
    if empty := found.count(None):
        notes.append(f"{empty:,} cells of {column!r} are empty, and their labels unknown")
    # Google's reading of some of them has columns of its own beside NIH's.
    own = {key(name) for name in raw.frame.columns}
    if doubled := [name for name in labels if key(name) in own]:
        notes.append(f"{', '.join(doubled)} is that of its own column, not of {column!r}")
    labels = {name: values for name, values in labels.items() if name not in doubled}
    return Shaped(raw, {}, labels, f"column {column}, parted by |", (column,), notes=tuple(notes))


NIH = Dialect(
    "nih",
    _recognise,
    None,
    np.nan,
    "unknown; what a row does not list is 0",
    columns={"path": ("imageindex",)},
    shape=_shape,
    suffixes=(".png",),
    split_lists={"train_val_list.txt": "train", "test_list.txt": "test"},
)
