"""CheXpert's tables, cut and renamed too, visualCheXbert's labels for them, and CheXpert Plus."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medsae_plugin.data.dialects.base import Dialect, Shaped, cells, column_or_none
from medsae_plugin.data.dialects.findings import KNOWN, key
from medsae_plugin.data.table_files import RawTable
from medsae_plugin.errors import MedSAEError, reason_of
from medsae_plugin.observations import OBSERVATIONS

_PATH = re.compile(r"(?:^|/)(?:CheXpert-v1\.0[^/]*/|patient\d+/study\d+/view\d+)", re.IGNORECASE)
# CheXpert Plus has its labels in files of their own, one for each part of the reports that they are from.
_PLUS_LABELS = ("report_fixed.json", "impression_fixed.json", "findings_fixed.json")


def _recognise(columns: Sequence[str], paths: Sequence[str]) -> str | None:
    keys = set(map(key, columns))
    if {"pathtoimage", "deidpatientid"} <= keys:
        return "CheXpert Plus, by its columns path_to_image and deid_patient_id"
    own = {key(name) for name in OBSERVATIONS}
    found = own & keys
    if len(found) == len(own):
        return "its 14 observations"
    if not found:
        return None
    some = f"{len(found)} of its 14 observations"
    if {"frontallateral", "appa"} <= keys:
        return f"{some}, Frontal/Lateral and AP/PA"
    if paths and all(map(_PATH.search, paths)):
        return f"{some}, and its paths"
    # NIH's and VinDr's tables share names with it, and hold others beside.
    shared = {"nofinding", "cardiomegaly", "edema", "consolidation", "pneumonia", "atelectasis", "pneumothorax"}
    return some if len(found) >= 5 and found - shared and not (keys & KNOWN) - own else None


def _shape(raw: RawTable, readers: str) -> Shaped:
    """CheXpert Plus: the labels of a file beside the table, or in `chexbert_labels/`, joined by the image's path."""
    path = column_or_none(raw, "path_to_image")
    if path is None or any(key(column) in map(key, OBSERVATIONS) for column in raw.frame.columns):
        return Shaped(raw)
    folders = (raw.path.parent, raw.path.parent / "chexbert_labels")
    there = [folder / name for name in _PLUS_LABELS for folder in folders if (folder / name).is_file()]
    if not there:
        where = f"{_PLUS_LABELS[0]} of chexbert_labels.zip"
        return Shaped(raw, notes=(f"CheXpert Plus has its labels in files of their own; put {where} beside the table",))
    rows = {str(row.get("path_to_image")): row for row in _json_rows(there[0])}
    images = list(cells(raw, path))
    found = [rows.get(image) for image in images]
    if not any(found):
        raise MedSAEError(f"{there[0]} has labels of none of the images of {raw.path}, such as {images[0]!r}")
    labels = {
        name: np.array([np.nan if row is None else _value(row.get(name), there[0]) for row in found])
        for name in OBSERVATIONS
    }
    notes = [f"{found.count(None):,} images have no labels in {there[0].name}"] if None in found else []
    if there[1:]:
        notes.append(f"the labels of {', '.join(file.name for file in there[1:])} are not read")
    return Shaped(raw, labels=labels, labels_from=str(there[0]), notes=tuple(notes))


def _json_rows(path: Path) -> list[dict[str, object]]:
    """Objects, one a line or in a list."""
    try:
        text = path.read_text("utf-8").strip()
        rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines() if line]
    except (OSError, ValueError) as error:
        raise MedSAEError(f"{path} cannot be read as JSON: {reason_of(error)}") from None
    if not all(isinstance(row, dict) for row in rows):
        raise MedSAEError(f"{path} holds other than an object an image")
    return rows


def _value(cell: object, path: Path) -> float:
    if cell is None or cell == "" or cell != cell:
        return 0.0  # not mentioned
    if cell not in (0, 1, -1):
        raise MedSAEError(f"{path}: a label is {str(cell)[:40]!r}, which is not 0, 1, -1 or null")
    return float(cell)


CHEXPERT = Dialect(
    "chexpert",
    _recognise,
    OBSERVATIONS,
    0.0,
    "0, not mentioned",
    {"effusion": "Pleural Effusion", "airspaceopacity": "Lung Opacity"},
    columns={"dicom path": ("pathtodcm",)},
    shape=_shape,
)
