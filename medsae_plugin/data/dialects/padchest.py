"""PadChest: findings as lists in text, of Spanish reports."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import numpy as np
import pandas as pd

from medsae_plugin.data.dialects.base import Dialect, Shaped, cells, column_of, column_or_none, listed
from medsae_plugin.data.dialects.findings import key
from medsae_plugin.data.table_files import RawTable
from medsae_plugin.errors import MedSAEError

# Said of a whole report, whose other findings are not listed then.
_SAYS_NO_MORE = ("exclude", "unchanged")


def _recognise(columns: Sequence[str], paths: Sequence[str]) -> str | None:
    keys = set(map(key, columns))
    return "its columns ImageID, ImageDir and Labels" if {"imageid", "imagedir", "labels"} <= keys else None


def _shape(raw: RawTable, readers: str) -> Shaped:
    column = column_of(raw, "Labels")
    codes, texts = pd.factorize(cells(raw, column))
    by_text: list[list[str] | None] = []
    for k, text in enumerate(texts):
        try:
            by_text.append(_listed(str(text)))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            place = raw.places[int(np.argmax(codes == k))]
            raise MedSAEError(f"{raw.path}, {place}: {str(text)[:80]!r} is no list of findings") from None
    found = [by_text[code] for code in codes]
    names = {name for one in by_text for name in one or ()} - set(_SAYS_NO_MORE)
    labels = listed([None if one is None else [n for n in one if n in names] for one in found], sorted(names))
    notes = []
    if empty := found.count(None):
        notes.append(f"{empty:,} images have no list of findings, and their labels are unknown")
    for word in _SAYS_NO_MORE:
        said = np.array([one is not None and word in one for one in found])
        if said.any():
            notes.append(
                f"{int(said.sum()):,} images are called {word!r}: what is not listed of them is unknown, not 0"
            )
            for values in labels.values():
                values[said & (values == 0)] = np.nan
    folder, image = column_of(raw, "ImageDir"), column_of(raw, "ImageID")
    paths = list(cells(raw, folder).str.removesuffix(".0") + "/" + cells(raw, image))
    made: dict[str, tuple[Sequence[object], str]] = {"path": (paths, f"{folder}/{image}")}
    used = [column, folder, image]
    birth, study = column_or_none(raw, "PatientBirth"), column_or_none(raw, "StudyDate_DICOM")
    if birth is not None and study is not None:
        years, births = (pd.to_numeric(c, errors="coerce") for c in (raw.frame[study].str[:4], raw.frame[birth]))
        made["age"] = list(years - births), f"the year of {study} less {birth}"
        used += [birth, study]
    if (report := column_or_none(raw, "Report")) is not None:
        notes.append(f"column {report!r} holds report texts in Spanish (--report-column {report} reads them)")
    return Shaped(raw, made, labels, f"column {column}, a list a row", tuple(used), notes=tuple(notes))


def _listed(text: str) -> list[str] | None:
    """The findings of a cell such as `['normal', ' pneumonia', '']`; None where it lists none."""
    if not text or text.casefold() == "nan":
        return None
    parts = ast.literal_eval(text)
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError
    return [part.strip() for part in parts if part.strip()] or None


PADCHEST = Dialect(
    "padchest",
    _recognise,
    None,
    np.nan,
    "unknown; what a list does not have is 0",
    columns={
        "path": ("imageid",),
        "sex": ("patientsexdicom",),
        "projection": ("projection", "viewpositiondicom"),
        "device": ("manufacturerdicom",),
    },
    shape=_shape,
    suffixes=(".png",),
)
