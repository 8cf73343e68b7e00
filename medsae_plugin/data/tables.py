"""Label tables: CheXpert's, or any table with a path column; and folders of images."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int

from medsae_plugin.data import folders
from medsae_plugin.data.columns import Columns, find_column, find_columns
from medsae_plugin.data.data_sets import data_set_of
from medsae_plugin.data.dialects import MISSING, read_cells
from medsae_plugin.data.reading import Reading
from medsae_plugin.data.splits import (
    DEFAULT_FRACTIONS,
    named_splits,
    patients_in_two_splits,
    split_by_patient,
)
from medsae_plugin.data.table_files import RawTable, check_rows_not_swallowed, read_raw
from medsae_plugin.errors import MedSAEError
from medsae_plugin.observations import OBSERVATIONS

__all__ = ["OBSERVATIONS", "ImageTable", "Uncertain", "read_reports", "read_table", "scan_folder"]

Uncertain = Literal["ignore", "zeros", "ones", "keep"]

_UNCERTAIN_AS: dict[str, float] = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0, "keep": -1.0}
_UNCERTAIN_MEANS = {"ignore": "unknown", "zeros": "0", "ones": "1", "keep": "kept"}
_AGE = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*([YMWD]?)\s*", re.IGNORECASE)
_WHOLE = re.compile(r"\d+(?:\.0*)?")
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}


@dataclass(frozen=True)
class ImageTable:
    """Images, what is known of them, and their labels, row by row.

    frame: `image_id` (0, 1, ...), `path` (posix, relative to `root`), `patient`, `split` (or ""), and where the table
        has them `sex`, `age` (years), `view`, `projection`, and `report` if its column was named.
    labels: `(images, labels)` of 0, 1 and nan (unknown).
    reading: what was understood of the file or folder; None where it came from neither.
    data_set: what the images are of, such as "CheXpert"; "" where that is not known.
    """

    root: Path
    frame: pd.DataFrame
    labels: Float32[np.ndarray, "images labels"]
    label_names: tuple[str, ...]
    reading: Reading | None = None
    data_set: str = ""

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def n_images(self) -> int:
        return len(self.frame)

    def describe(self) -> str:
        """What was read, as what, in lines: dialect, images, patients, labels with counts, columns left aside."""
        reading = self.reading or Reading("a table")
        return reading.text(len(self), self.frame["patient"].nunique(), self.label_names, self.labels)

    def image_path(self, index: int | np.integer) -> Path:
        """Where the image of this row is on disk."""
        return self.root / self.frame["path"].iloc[index]

    def take(self, rows: Int[np.ndarray, " rows"]) -> ImageTable:
        """The table of these rows alone, in this order; images are counted anew."""
        frame = self.frame.iloc[rows].reset_index(drop=True)
        return replace(self, frame=frame.assign(image_id=np.arange(len(frame))), labels=self.labels[rows])

    def with_splits(self, splits: Sequence[str]) -> ImageTable:
        """The same table with these splits, one an image."""
        return replace(self, frame=self.frame.assign(split=list(splits)))

    def split_by_patient(self, seed: int = 0, fractions: Mapping[str, float] = DEFAULT_FRACTIONS) -> ImageTable:
        """The same table split by patient, stratified over its labels; see `medsae_plugin.data.splits`."""
        return self.with_splits(split_by_patient(list(self.frame["patient"]), fractions, seed, self.labels))

    def content_hash(self) -> str:
        """SHA-256 over image ids, paths, patients and splits (not the root), so that a store knows its images."""
        digest = hashlib.sha256()
        for row in self.frame[["image_id", "path", "patient", "split"]].itertuples(index=False):
            digest.update(("\0".join(map(str, row)) + "\n").encode())
        return digest.hexdigest()


def read_table(
    csv_path: str | Path,
    root: str | Path | None = None,
    *,
    path_column: str | None = None,
    patient_column: str | None = None,
    patients_from: str | None = None,
    patients_are_images: bool = False,
    split_column: str | None = None,
    label_columns: Sequence[str] | None = None,
    report_column: str | None = None,
    uncertain: Uncertain = "ignore",
    dialect: str | None = None,
    known_paths: Collection[str] | None = None,
    data_set: str | None = None,
) -> ImageTable:
    """Read a table of images: CheXpert's, or any with a path column. `describe()` of it tells what was understood.

    CSV with commas, semicolons, tabs or bars, in UTF-8 or UTF-16, packed or not (gz, bz2, xz, zip), or Parquet. Columns
    are found by name whatever their case, spaces and underscores.

    Args:
        root: the folder that paths start from; default the table's own folder. Where no file is found at the paths as
            they are, what they all begin with (`CheXpert-v1.0/`) is taken off, or a folder of the root put before, if
            there is one way alone that leads to files.
        path_column: default `Path` or a like name.
        patient_column: default `patient_id` or a like name, else the patient in the path by a known layout (CheXpert,
            MIMIC-CXR, NIH, a folder a patient).
        patients_from: a regular expression that finds the patient in a path, its first group.
        patients_are_images: every image is of another patient.
        split_column: the column of the split; default `split`, or the one column that holds nothing but train, val,
            test and the like (`valid`, `validate`, ... are `val`).
        label_columns: default, in CheXpert's tables, its observations; in others the columns called by a known finding.
        report_column: the column of report texts, kept as `report`; default none.
        uncertain: what -1 stands for: unknown (`ignore`), 0 or 1; `keep` leaves it -1, for the paper's protocol alone.
            Empty is 0 in a CheXpert table ("not mentioned") and unknown in any other.
        dialect: `chexpert`, `plain` or another of `DIALECTS`; default by the columns' names and the paths.
        known_paths: paths that the table's should be like, such as those of a store's images.
        data_set: what the images are of, to be set against what encoders were trained on; default by the dialect.

    Raises:
        MedSAEError: no such file, a damaged or an empty table, a quotation that is not closed, a missing column, a path
            outside the root, an image that comes twice, images that could be in several places, a label that is not
            understood, no patients.
    """
    raw = read_raw(Path(csv_path))
    where = str(raw.path)
    use = find_columns(
        raw,
        path=path_column,
        patient=patient_column,
        split=split_column,
        report=report_column,
        labels=label_columns,
        dialect=dialect,
    )
    check_rows_not_swallowed(raw, use.path)
    root = Path(root) if root is not None else raw.path.parent
    if not root.is_dir():
        raise MedSAEError(f"the image root {root} is not a folder")
    paths = folders.checked_paths(list(raw.frame[use.path]), raw.places, root, where)
    paths, moved = folders.fit_to_root(paths, root, known_paths, where)
    folders.check_no_path_twice(paths, raw.places, where)
    notes: list[str] = []
    patients, whose = _patients(raw, use, paths, patients_from, patients_are_images, notes)
    origins = {"path": f"{use.path}{', ' + moved if moved else ''}, in {root}", "patient": whose}
    splits, said = _splits(raw, use, patients, notes)
    frame: dict[str, object] = {"image_id": np.arange(len(paths)), "path": paths, "patient": patients, "split": splits}
    frame |= _details(raw, use, notes)
    origins |= {**said, **use.details, **({"report": use.report} if use.report else {})}
    labels = _labels(raw, use, _UNCERTAIN_AS[uncertain], notes)
    reading = Reading(where, _in_words(use, uncertain), origins, use.aside(raw), tuple(notes))
    images_of = data_set_of(use.dialect.name, paths) if data_set is None else data_set
    return ImageTable(root, pd.DataFrame(frame), labels, tuple(use.labels), reading, images_of)


def read_reports(csv_path: str | Path, column: str) -> list[str]:
    """The texts of a table's report column, in order.

    Raises:
        MedSAEError: what `read_raw` refuses, no such column.
    """
    raw = read_raw(Path(csv_path))
    return [text.strip() for text in raw.frame[find_column(raw, column, (), "report")]]


def scan_folder(root: str | Path, *, patients_from: str | None = None, patients_are_images: bool = False) -> ImageTable:
    """The image files under a folder, sorted, without labels. Links are followed.

    Args:
        patients_from: a regular expression that finds the patient in a path, its first group; default the known layouts
            (CheXpert, MIMIC-CXR, NIH, a folder a patient).
        patients_are_images: every image is of another patient.

    Raises:
        MedSAEError: no folder, or no image in it; paths that name no patient.
    """
    root = Path(root)
    paths, left = folders.find_images(root)
    if patients_are_images:
        patients, whose = list(paths), "every image is of another, as was said"
    else:
        patients, whose = folders.patients_of(paths, patients_from, str(root))
    frame = pd.DataFrame({"image_id": np.arange(len(paths)), "path": paths, "patient": patients, "split": ""})
    reading = Reading(str(root), columns={"patient": whose}, notes=tuple(left))
    return ImageTable(root, frame, np.empty((len(paths), 0), dtype=np.float32), (), reading)


def _patients(
    raw: RawTable, use: Columns, paths: list[str], pattern: str | None, are_images: bool, notes: list[str]
) -> tuple[list[str], str]:
    """The patient of each image, and how that is known, in words."""
    if are_images:
        return list(paths), "every image is of another, as was said"
    if pattern is not None or use.patient is None:
        return folders.patients_of(paths, pattern, str(raw.path))
    patients = [text.strip() for text in raw.frame[use.patient]]
    for patient, place, path in zip(patients, raw.places, paths, strict=True):
        if not patient or patient.casefold() in (*MISSING, "none"):
            raise MedSAEError(
                f"{raw.path}, {place}: {path!r} has no patient in column {use.patient!r} (its cell is {patient!r})"
            )
    if any("." in patient for patient in patients) and all(map(_WHOLE.fullmatch, patients)):
        notes.append(f"patients such as {patients[0]!r} are whole numbers, and read without their '.0'")
        patients = [patient.partition(".")[0] for patient in patients]
    return patients, f"column {use.patient}"


def _splits(raw: RawTable, use: Columns, patients: list[str], notes: list[str]) -> tuple[list[str], dict[str, str]]:
    if use.split is None:
        return [""] * len(patients), {}
    splits = named_splits(list(raw.frame[use.split]))
    if both := patients_in_two_splits(patients, splits):
        notes.append(f"{len(both)} patients are in more than one split, such as {both[0]!r}")
    counts = ", ".join(f"{split or 'none'} {n:,}" for split, n in Counter(splits).items())
    return splits, {"split": f"column {use.split} ({counts})"}


def _details(raw: RawTable, use: Columns, notes: list[str]) -> dict[str, pd.Series]:
    columns = {
        ours: _ages(raw.frame[column], notes) if ours == "age" else raw.frame[column].str.strip()
        for ours, column in use.details.items()
    }
    return columns | ({"report": raw.frame[use.report].str.strip()} if use.report is not None else {})


def _ages(cells: pd.Series, notes: list[str]) -> pd.Series:
    """Ages in years, of numbers or DICOM's age strings (`058Y`, `006M`)."""
    ages = pd.to_numeric(cells, errors="coerce")
    odd = ages.isna() & (cells.str.strip() != "")
    if not odd.any():
        return ages
    found = [_AGE.fullmatch(cell) for cell in cells[odd]]
    years = [float(m[1].replace(",", ".")) / _PER_YEAR[m[2].upper()] if m else np.nan for m in found]
    values = ages.to_numpy(dtype=np.float64, copy=True)
    values[odd.to_numpy()] = years
    unread = [
        cell for cell, m in zip(cells[odd], found, strict=True) if m is None and cell.strip().casefold() not in MISSING
    ]
    if unread:
        notes.append(f"{len(unread)} ages are not understood and left unknown, such as {unread[0][:40]!r}")
    return pd.Series(values)


def _labels(raw: RawTable, use: Columns, uncertain: float, notes: list[str]) -> Float32[np.ndarray, "images labels"]:
    labels = np.empty((len(raw.frame), len(use.labels)), dtype=np.float32)
    words: Counter[str] = Counter()
    for c, (label, column) in enumerate(use.labels.items()):
        empty = use.dialect.empty if use.dialect.finding(column) is not None else np.nan
        values, said = read_cells(raw.frame[column], empty, raw.places, str(raw.path))
        words += said
        labels[:, c] = np.where(values == -1, uncertain, values)
        if label != column:
            notes.append(f"column {column!r} is read as {label!r}")
    notes += [f"{word} in {n:,} cells" for word, n in words.items()]
    return labels


def _in_words(use: Columns, uncertain: Uncertain) -> str:
    empty = f"an empty label is {use.dialect.empty_means}; -1, uncertain, is {_UNCERTAIN_MEANS[uncertain]}"
    return f"{use.dialect.name} ({use.why_dialect}): {empty}"
