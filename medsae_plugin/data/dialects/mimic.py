"""MIMIC-CXR-JPG: labels a study, images and their views, and the official split, each in a file of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from medsae_plugin.data.dialects.base import Dialect, Shaped, cells, column_of
from medsae_plugin.data.dialects.cells import read_cells
from medsae_plugin.data.dialects.findings import key
from medsae_plugin.data.table_files import RawTable, read_raw
from medsae_plugin.errors import MedSAEError
from medsae_plugin.observations import OBSERVATIONS

_NAME = re.compile(r"(.*mimic-cxr-[\d.]+-)(chexpert|negbio|metadata|split)(\.csv(?:\.gz)?)", re.IGNORECASE)
_EMPTY = 0.0


def _recognise(columns: Sequence[str], paths: Sequence[str]) -> str | None:
    keys = set(map(key, columns))
    if paths or not {"subjectid", "studyid"} <= keys:
        return None
    if "dicomid" in keys:
        return "its columns subject_id, study_id and dicom_id"
    own = keys & {key(name) for name in OBSERVATIONS}
    return f"subject_id, study_id and {len(own)} of CheXpert's observations" if own else None


def _shape(raw: RawTable, readers: str) -> Shaped:
    """A row an image, of the metadata; labels by subject and study, the split by the image."""
    kind = _kind(raw.path)
    images = raw if kind == "metadata" else _part(raw.path, "metadata")
    labels_file = raw if kind in ("chexpert", "negbio") else _part(raw.path, "chexpert", "negbio")
    if images is None:
        raise MedSAEError(
            f"{raw.path}: MIMIC's images are named in mimic-cxr-2.0.0-metadata.csv.gz, which is not beside it"
        )
    subject, study, dicom = (cells(images, column_of(images, f"{what}_id")) for what in ("subject", "study", "dicom"))
    paths = [
        f"files/p{p[:2]}/p{p}/s{s}/{d}.jpg"
        for p, s, d in zip(map(_digits, subject), map(_digits, study), dicom, strict=True)
    ]
    made: dict[str, tuple[Sequence[object], str]] = {"path": (paths, "made of subject_id, study_id and dicom_id")}
    notes: list[str] = []
    split = raw if kind == "split" else _part(raw.path, "split")
    if split is not None:
        made["split"] = _splits(split, dicom, notes), f"{split.path.name}, column split"
    labels: dict[str, Float[np.ndarray, " rows"]] = {}
    if labels_file is not None:
        labels = _labels(labels_file, list(zip(map(_digits, subject), map(_digits, study), strict=True)), notes)
    used = tuple(column_of(images, name) for name in ("subject_id", "study_id", "dicom_id"))
    where = f"{labels_file.path.name}, by subject and study" if labels_file is not None else ""
    return Shaped(images, made, labels, where, used[1:], notes=tuple(notes))


def _digits(cell: str) -> str:
    """An id, which a join may have written as 10000032.0, or with the letter of its folder."""
    return cell.removesuffix(".0").lstrip("ps")


def _kind(path: Path) -> str:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise MedSAEError(
            f"{path} has MIMIC's columns, and a name that does not say which of its files it is; call it as published "
            "(mimic-cxr-2.0.0-chexpert.csv.gz), so that the others are found beside it"
        )
    return match[2].lower()


def _part(path: Path, *kinds: str) -> RawTable | None:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    names = [f"{match[1]}{kind}.csv{packed}" for kind in kinds for packed in (".gz", "")]
    there = (path.with_name(name) for name in names)
    return next((read_raw(file) for file in there if file.is_file()), None)


def _splits(split: RawTable, dicom: pd.Series, notes: list[str]) -> list[str]:
    of = dict(zip(cells(split, column_of(split, "dicom_id")), cells(split, column_of(split, "split")), strict=True))
    splits = [of.get(image, "") for image in dicom]
    if without := splits.count(""):
        notes.append(f"{without:,} images are not in {split.path.name}, and of no split")
    return splits


def _labels(table: RawTable, images: list[tuple[str, str]], notes: list[str]) -> dict[str, Float[np.ndarray, " rows"]]:
    """The labels of each image's study; unknown where it has none.

    Raises:
        MedSAEError: a study that comes twice, no image of any study, a label that is not understood.
    """
    ids = (map(_digits, cells(table, column_of(table, f"{what}_id"))) for what in ("subject", "study"))
    studies = list(zip(*ids, strict=True))
    row_of = {study: row for row, study in enumerate(studies)}
    if len(row_of) < len(studies):
        again = Counter(studies).most_common(1)[0][0]
        raise MedSAEError(f"{table.path} has study {again[1]} of subject {again[0]} twice")
    rows = np.array([row_of.get(study, -1) for study in images])
    if (rows < 0).all():
        raise MedSAEError(f"{table.path} has labels of none of the images' studies, such as {images[0][1]}")
    if none := int((rows < 0).sum()):
        notes.append(f"{none:,} images are of studies without labels in {table.path.name}, and their labels unknown")
    if lost := len(studies) - len(set(images) & row_of.keys()):
        notes.append(f"{lost:,} studies of {table.path.name} have no image in the metadata")
    labels = {}
    by_key = {key(column): column for column in table.frame.columns}
    for name in OBSERVATIONS:
        if (column := by_key.get(key(name))) is not None:
            values, _ = read_cells(table.frame[column], _EMPTY, table.places, str(table.path))
            labels[name] = np.where(rows < 0, np.nan, values[rows])
    return labels


MIMIC = Dialect(
    "mimic-cxr",
    _recognise,
    OBSERVATIONS,
    _EMPTY,
    "0, not mentioned",
    columns={"patient": ("subjectid",), "projection": ("viewposition",)},
    shape=_shape,
    suffixes=(".jpg", ".dcm", ".png"),
)
