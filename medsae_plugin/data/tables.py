"""Label tables: CheXpert's, or any CSV with a path column."""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int

from medsae_plugin.data.images import IMAGE_SUFFIXES
from medsae_plugin.data.splits import DEFAULT_FRACTIONS, split_by_patient
from medsae_plugin.errors import MedSAEError

OBSERVATIONS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
Uncertain = Literal["ignore", "zeros", "ones", "keep"]

_UNCERTAIN_AS: dict[str, float] = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0, "keep": -1.0}
_PATH_COLUMNS = ("path", "image_path", "image", "filename", "file", "file_path", "image_file", "dicom", "dicom_path")
_PATIENT_COLUMNS = ("patient_id", "patient", "patientid", "subject_id", "subject")
# Our name of what a table says of the patient and the view, and the names that tables use.
_DETAILS = {
    "sex": ("sex", "gender", "patient sex", "patientsex"),
    "age": ("age", "patient age", "patientage"),
    "view": ("frontal/lateral", "view"),
    "projection": ("ap/pa", "projection", "view position", "viewposition"),
}
_PATIENT_IN_PATH = re.compile(r"(?:^|/)(patient[_-]?\w*\d\w*)(?:/|$)", re.IGNORECASE)


@dataclass(frozen=True)
class ImageTable:
    """Images, what is known of them, and their labels, row by row.

    frame: `image_id` (0, 1, ...), `path` (posix, relative to `root`), `patient`, `split` (or ""), and where the table
        has them `sex`, `age`, `view`, `projection`, and `report` if its column was named.
    labels: `(images, labels)` of 0, 1 and nan (unknown).
    """

    root: Path
    frame: pd.DataFrame
    labels: Float32[np.ndarray, "images labels"]
    label_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def n_images(self) -> int:
        return len(self.frame)

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
        """The same table split by patient; see `medsae_plugin.data.splits.split_by_patient`."""
        return self.with_splits(split_by_patient(list(self.frame["patient"]), fractions, seed))

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
    label_columns: Sequence[str] | None = None,
    report_column: str | None = None,
    uncertain: Uncertain = "ignore",
) -> ImageTable:
    """Read a CheXpert table (known by its 14 observations), or any CSV with a path column.

    Args:
        root: the folder that paths start from; default the table's own folder. Where CheXpert's first path component
            (`CheXpert-v1.0-small`) is the root itself, it is taken off.
        path_column: default `Path` or a like name.
        patient_column: default `patient_id` or a like name, else the path's `patient01234`.
        label_columns: default the 14 observations, else every column that holds nothing but 0, 1, -1 and empty.
        report_column: the column of report texts, kept as `report`; default none.
        uncertain: what -1 stands for: unknown (`ignore`), 0 or 1; `keep` leaves it -1, for the paper's protocol alone.
            Empty is 0 in a CheXpert table ("not mentioned") and unknown in any other.

    Raises:
        MedSAEError: no such file, an empty table, a missing column, a path outside the root, an image that comes twice,
            a label other than 0, 1, -1 and empty, no patients.
    """
    csv_path = Path(csv_path)
    frame = _read_csv(csv_path)
    is_chexpert = set(OBSERVATIONS) <= set(frame.columns)
    path_column = _column(frame, path_column, _PATH_COLUMNS, "path", csv_path)
    if path_column is None:
        raise MedSAEError(f"{csv_path} has no path column; it has {', '.join(frame.columns)}; name the one that is it")
    root = Path(root) if root is not None else csv_path.parent
    if not root.is_dir():
        raise MedSAEError(f"the image root {root} is not a folder")
    paths = _checked_paths(frame[path_column], root, csv_path)
    patient_column = _column(frame, patient_column, _PATIENT_COLUMNS, "patient", csv_path)
    report_column = _column(frame, report_column, (), "report", csv_path)
    names = _label_columns(frame, label_columns, is_chexpert, {path_column, patient_column, report_column}, csv_path)
    labels = [
        _labels(frame[name], _UNCERTAIN_AS[uncertain], 0.0 if is_chexpert else np.nan, csv_path) for name in names
    ]
    columns: dict[str, object] = {
        "image_id": np.arange(len(frame)),
        "path": paths,
        "patient": _patients(frame, patient_column, paths, csv_path),
        "split": "",
    }
    for ours, theirs in _DETAILS.items():
        if (column := _column(frame, None, theirs, ours, csv_path)) and column not in names:
            columns[ours] = (
                pd.to_numeric(frame[column], errors="coerce") if ours == "age" else frame[column].str.strip()
            )
    if report_column is not None:
        columns["report"] = frame[report_column].str.strip()
    matrix = np.stack(labels, axis=1) if labels else np.empty((len(frame), 0), dtype=np.float32)
    return ImageTable(root, pd.DataFrame(columns), matrix.astype(np.float32), tuple(names))


def read_reports(csv_path: str | Path, column: str) -> list[str]:
    """The texts of a table's report column, in order.

    Raises:
        MedSAEError: no such file, an empty table, no such column.
    """
    frame = _read_csv(Path(csv_path))
    name = _column(frame, column, (), "report", Path(csv_path))
    return [text.strip() for text in frame[name]]


def scan_folder(root: str | Path) -> ImageTable:
    """The image files under a folder, sorted, without labels.

    The patient is the path's `patient01234` where all paths have one; otherwise every image counts as a patient.

    Raises:
        MedSAEError: no folder, or no image in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise MedSAEError(f"{root} is not a folder")
    paths = sorted(
        p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
    )
    if not paths:
        raise MedSAEError(f"{root} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    found = [_PATIENT_IN_PATH.search(path) for path in paths]
    patients = [m.group(1) for m in found if m] if all(found) else paths
    frame = pd.DataFrame({"image_id": np.arange(len(paths)), "path": paths, "patient": patients, "split": ""})
    return ImageTable(root, frame, np.empty((len(paths), 0), dtype=np.float32), ())


def _read_csv(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise MedSAEError(f"there is no table at {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MedSAEError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8 CSV") from None
    header = text.partition("\n")[0]
    if not header.strip():
        raise MedSAEError(f"{path} is empty")
    separator = max(",;\t", key=header.count)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    columns = [name.strip() for name in rows[0]]
    if twice := sorted({c for c in columns if columns.count(c) > 1}):
        raise MedSAEError(f"{path} has two columns of the name {', '.join(twice)}")
    body = [row for row in rows[1:] if any(cell.strip() for cell in row)]
    if not body:
        raise MedSAEError(f"{path} has a header and no rows")
    for row in body:
        if len(row) != len(columns):
            raise MedSAEError(f"{path} has a row of {len(row)} cells under {len(columns)} columns: {row[0][:80]!r}")
    return pd.DataFrame(body, columns=columns, dtype=str)


def _column(frame: pd.DataFrame, named: str | None, usual: Sequence[str], what: str, where: Path) -> str | None:
    """The column that is named, or else the first of the usual names (any case) that is there."""
    if named is None:
        by_lower = {name.lower(): name for name in reversed(list(frame.columns))}
        return next((by_lower[name] for name in usual if name in by_lower), None)
    if named not in frame.columns:
        near = difflib.get_close_matches(named, frame.columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(frame.columns)}"
        raise MedSAEError(f"{where} has no {what} column {named!r}; {hint}")
    return named


def _checked_paths(column: pd.Series, root: Path, where: Path) -> list[str]:
    paths = [PurePosixPath(text.strip().replace("\\", "/")) for text in column]
    for text, path in zip(column, paths, strict=True):
        if not text.strip():
            raise MedSAEError(f"{where} has a row without a path")
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", str(path)):
            raise MedSAEError(f"{where}: {text!r} is outside the image root {root}; paths are relative to it")
    first = paths[0].parts[0]
    within = first == root.resolve().name and not (root / first).exists()
    if within and all(len(p.parts) > 1 and p.parts[0] == first for p in paths):
        paths = [PurePosixPath(*p.parts[1:]) for p in paths]
    if len(set(paths)) < len(paths):
        twice = next(p for p in paths if paths.count(p) > 1)
        raise MedSAEError(f"{where} names {str(twice)!r} twice; an image has one row")
    return [str(path) for path in paths]


def _label_columns(
    frame: pd.DataFrame, named: Sequence[str] | None, is_chexpert: bool, taken: set[str | None], where: Path
) -> list[str]:
    if named is not None:
        return [str(_column(frame, name, (), "label", where)) for name in named]
    if is_chexpert:
        return list(OBSERVATIONS)
    allowed = {"", "0", "1", "-1", "0.0", "1.0", "-1.0"}
    details = {name for names in _DETAILS.values() for name in names}
    free = [name for name in frame.columns if name not in taken and name.lower() not in details]
    return [name for name in free if frame[name].str.strip().isin(allowed).all() and frame[name].str.strip().any()]


def _labels(column: pd.Series, uncertain: float, unmentioned: float, where: Path) -> np.ndarray:
    text = column.str.strip()
    values = pd.to_numeric(text.where(text != "", "nan"), errors="coerce").to_numpy(dtype=np.float64, copy=True)
    empty = (text == "").to_numpy()
    wrong = ~empty & ~np.isin(values, (0.0, 1.0, -1.0))
    if wrong.any():
        raise MedSAEError(f"{where}, column {column.name!r}: {column[wrong].iloc[0]!r} is not 0, 1, -1 or empty")
    values[values == -1] = uncertain
    values[empty] = unmentioned
    return values


def _patients(frame: pd.DataFrame, column: str | None, paths: list[str], where: Path) -> list[str]:
    if column is not None:
        patients = [text.strip() for text in frame[column]]
        if not all(patients):
            raise MedSAEError(f"{where}: {paths[patients.index('')]!r} has no patient in column {column!r}")
        return patients
    found = [_PATIENT_IN_PATH.search(path) for path in paths]
    if not all(found):
        path = paths[found.index(None)]
        raise MedSAEError(
            f"{where}: no patient column, and none in the path {path!r} (such as patient01234); name the patient column"
        )
    return [match.group(1) for match in found if match]
