"""What a table says of each image, by its columns: paths, patients, splits, covariates, labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float32

from medsae_plugin.data import folders
from medsae_plugin.data.columns import COVARIATES, Columns
from medsae_plugin.data.dialects import Dialect, Shaped, key
from medsae_plugin.data.dialects.cells import MISSING, read_cells
from medsae_plugin.data.dialects.findings import chexpert_name
from medsae_plugin.data.formats import SUFFIXES_OF, without_suffix
from medsae_plugin.data.images import ImageFolder
from medsae_plugin.data.split_lists import splits_by_lists
from medsae_plugin.data.splits import named_splits, patients_in_two_splits
from medsae_plugin.errors import MedSAEError

Uncertain = Literal["ignore", "zeros", "ones", "keep"]
ImageFormat = Literal["jpg", "png", "dicom"]
UNCERTAIN_MEANS = {"ignore": "unknown", "zeros": "0", "ones": "1", "keep": "kept"}
_UNCERTAIN_AS: dict[str, float] = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0, "keep": -1.0}

_AGE = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*([YMWD]?)\s*", re.IGNORECASE)
_WHOLE = re.compile(r"\d+(?:\.0*)?")
_OLDEST = 120  # years; a table's 155 or 411 is a slip of somebody's
# What a projection is a view of, by `key`; others are neither, or not sure to be one.
_VIEWS = {
    **dict.fromkeys(
        ("pa", "ap", "aphorizontal", "apsupine", "aperect", "posteroanterior", "anteroposterior"), "Frontal"
    ),
    **dict.fromkeys(("lateral", "ll", "rl", "l", "largelateral"), "Lateral"),
}
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}


@dataclass(frozen=True)
class Wanted:
    """What a caller says of a table's columns; as the arguments of `read_table`."""

    path_column: str | None = None
    patient_column: str | None = None
    patients_from: str | None = None
    patients_are_images: bool = False
    split_column: str | None = None
    split_files: Mapping[str, Path] = field(default_factory=dict)
    label_columns: Sequence[str] | None = None
    report_column: str | None = None
    uncertain: Uncertain = "ignore"
    image_format: ImageFormat | None = None
    chexpert_names: bool = False
    known_paths: Collection[str] | None = None
    data_set: str | None = None


def paths_of(
    shaped: Shaped,
    use: Columns,
    dialect: Dialect,
    root: Path | ImageFolder,
    wanted: Wanted,
) -> tuple[list[str], str]:
    """The paths of the images, and where they are from, in words.

    Raises:
        MedSAEError: an image that comes twice, or could be in several places; a path out of the root.
    """
    raw, where = shaped.raw, str(shaped.raw.path)
    made, origin = shaped.made.get("path", ((), "")) if use.path is None else (list(raw.frame[use.path]), use.path)
    if not isinstance(root, Path):
        return list(map(str, made)), origin
    known, image_format = wanted.known_paths, wanted.image_format
    suffixes = SUFFIXES_OF[image_format] if image_format is not None else dialect.suffixes
    paths = folders.checked_paths([str(path) for path in made], raw.places, root, where)
    if image_format is not None:
        paths = [path if path.lower().endswith(suffixes) else without_suffix(path) + suffixes[0] for path in paths]
    elif suffixes:
        paths = [path if without_suffix(path) != path else path + suffixes[0] for path in paths]
    moved = None
    if suffixes and not (not set(known).isdisjoint(paths) if known is not None else folders.any_file(root, paths)):
        paths, moved = folders.fit_by_name(paths, root, known, suffixes, where)
    if moved is None:
        paths, moved = folders.fit_to_root(paths, root, known, where)
    folders.check_no_path_twice(paths, raw.places, where)
    return paths, f"{origin}, {moved}" if moved else origin


def patients_of(
    shaped: Shaped,
    use: Columns,
    dialect: Dialect,
    paths: list[str],
    wanted: Wanted,
    notes: list[str],
) -> tuple[list[str], str]:
    """The patient of each image, and how that is known, in words."""
    raw, pattern = shaped.raw, wanted.patients_from
    if wanted.patients_are_images:
        return list(paths), "every image is of another, as was said"
    if pattern is None and use.patient is None and dialect.no_patient:
        notes.append(dialect.no_patient)
        return list(paths), "every image is of another, for the table names none"
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


def splits_of(
    shaped: Shaped,
    use: Columns,
    dialect: Dialect,
    paths: list[str],
    patients: list[str],
    wanted: Wanted,
    notes: list[str],
) -> tuple[list[str], dict[str, str]]:
    """The split of each image, "" for none, and where it is from, in words: what was named, or the table's own.

    Raises:
        MedSAEError: a column and lists are named, a list that is not understood.
    """
    if wanted.split_files and wanted.split_column is not None:
        raise MedSAEError(f"{shaped.raw.path}: give either the column of the split or files that list splits")
    folder = shaped.raw.path.parent
    own = {split: folder / name for name, split in dialect.split_lists.items() if (folder / name).is_file()}
    if lists := wanted.split_files or (own if use.split is None else {}):
        splits, origin, more = splits_by_lists(paths, lists)
        notes += more
    elif use.split is not None or "split" in shaped.made:
        cells, origin = (
            shaped.made["split"] if use.split is None else (shaped.raw.frame[use.split], f"column {use.split}")
        )
        splits = named_splits(list(map(str, cells)))
    else:
        return [""] * len(patients), {}
    counts = ", ".join(f"{split or 'none'} {n:,}" for split, n in Counter(splits).items())
    if both := patients_in_two_splits(patients, splits):
        notes.append(f"{len(both)} patients are in more than one split, such as {both[0]!r}")
    return splits, {"split": f"{origin} ({counts})"}


def details_of(shaped: Shaped, use: Columns, notes: list[str]) -> tuple[dict[str, pd.Series], dict[str, str]]:
    """What the table says of the patients and images, by our names of it; and where that is from, in words."""
    raw = shaped.raw
    found: dict[str, pd.Series] = {}
    origins: dict[str, str] = {}
    for ours in COVARIATES:
        if ours in use.details:
            cells, origin = raw.frame[use.details[ours]], use.details[ours]
        elif ours in shaped.made:
            made, origin = shaped.made[ours]
            cells = pd.Series(list(made))
        else:
            continue
        origins[ours] = origin
        found[ours] = _ages(cells, notes) if ours == "age" else _words(cells)
    if "projection" in found and "view" not in found:
        views = found["projection"].map(lambda projection: _VIEWS.get(key(projection), ""))
        if views.any():
            found["view"], origins["view"] = views, "Frontal or Lateral, by the projection"
    if use.report is not None:
        found["report"], origins["report"] = raw.frame[use.report].str.strip(), use.report
    return found, origins


def _words(cells: pd.Series) -> pd.Series:
    """Cells as they are worded; those that say that it is not known are empty."""
    words = cells.astype(str).str.strip()
    return words.where(~words.str.casefold().isin(MISSING), "")


def _ages(cells: pd.Series, notes: list[str]) -> pd.Series:
    """Ages in years, of numbers or DICOM's age strings (`058Y`, `006M`)."""
    ages = pd.to_numeric(cells, errors="coerce")
    values = ages.to_numpy(dtype=np.float64, copy=True)
    odd = (ages.isna() & (cells.astype(str).str.strip() != "") & cells.notna()).to_numpy()
    if odd.any():
        texts = [str(cell) for cell in cells[odd]]
        found = [_AGE.fullmatch(cell) for cell in texts]
        values[odd] = [float(m[1].replace(",", ".")) / _PER_YEAR[m[2].upper()] if m else np.nan for m in found]
        unread = [cell for cell, m in zip(texts, found, strict=True) if m is None]
        if unread := [cell for cell in unread if cell.strip().casefold() not in MISSING]:
            notes.append(f"{len(unread)} ages are not understood and left unknown, such as {unread[0][:40]!r}")
    if (old := values > _OLDEST).any() or (values < 0).any():
        wrong = values[old | (values < 0)]
        notes.append(f"{len(wrong)} ages are none that a patient has, such as {wrong[0]:g}, and left unknown")
        values[old | (values < 0)] = np.nan
    return pd.Series(values)


def labels_of(
    shaped: Shaped, use: Columns, dialect: Dialect, wanted: Wanted, notes: list[str]
) -> tuple[tuple[str, ...], Float32[np.ndarray, "images labels"]]:
    """The labels and their values: those that the dialect has read itself, and those of columns, in the order named."""
    raw = shaped.raw
    names = [*shaped.labels, *use.labels]
    if wanted.label_columns is not None:
        by_key = {key(label): label for label in names} | {key(column): label for label, column in use.labels.items()}
        names = [by_key[key(name)] for name in wanted.label_columns]
    labels = np.empty((len(raw.frame), len(names)), dtype=np.float32)
    words: Counter[str] = Counter()
    for k, label in enumerate(names):
        if label in shaped.labels:
            values = shaped.labels[label]
        else:
            column = use.labels[label]
            empty = dialect.empty if dialect.finding(column) is not None else np.nan
            values, said = read_cells(raw.frame[column], empty, raw.places, str(raw.path))
            words += said
            if label != column:
                notes.append(f"column {column!r} is read as {label!r}")
        labels[:, k] = np.where(values == -1, _UNCERTAIN_AS[wanted.uncertain], values)
    notes += [f"{word} in {n:,} cells" for word, n in words.items()]
    return tuple(names), labels


def by_chexpert_names(labels: tuple[str, ...], source: str, notes: list[str]) -> tuple[str, ...]:
    """The labels by CheXpert's names of them, where it has one that means the same."""
    names = tuple(map(chexpert_name, labels))
    for name, n in Counter(names).items():
        if n > 1:
            both = ", ".join(repr(label) for label in labels if chexpert_name(label) == name)
            raise MedSAEError(
                f"{source}: {both} are all CheXpert's {name!r}; name the labels that are meant (--labels)"
            )
    pairs = [f"{label!r} as {name!r}" for label, name in zip(labels, names, strict=True) if label != name]
    notes.append(f"by CheXpert's names: {', '.join(pairs) or 'no label changes'}")
    return names
