"""Label tables: CheXpert's, or any table with a path column; and folders of images."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int

from medsae_plugin.data import folders, rows
from medsae_plugin.data.columns import COVARIATES, find_column, find_columns, recognised
from medsae_plugin.data.data_sets import data_set_of
from medsae_plugin.data.dialects import Dialect, Shaped
from medsae_plugin.data.images import ImageFile, ImageFolder
from medsae_plugin.data.reading import Reading
from medsae_plugin.data.splits import DEFAULT_FRACTIONS, named_splits, split_by_patient
from medsae_plugin.data.table_files import check_rows_not_swallowed, read_raw
from medsae_plugin.data.table_parts import (
    UNCERTAIN_MEANS,
    ImageFormat,
    Uncertain,
    Wanted,
    by_chexpert_names,
    details_of,
    labels_of,
    paths_of,
    patients_of,
    splits_of,
)
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import write_text
from medsae_plugin.observations import OBSERVATIONS

__all__ = ["OBSERVATIONS", "ImageTable", "Uncertain", "read_reports", "read_table", "scan_folder"]

Readers = Literal["majority", "any", "all"]


@dataclass(frozen=True)
class ImageTable:
    """Images, what is known of them, and their labels, row by row.

    root: the folder that paths start from, or what stands for one (the images of a dataset).
    frame: `image_id` (0, 1, ...), `path` (posix, relative to `root`), `patient`, `split` (or ""), and where the table
        has them `covariates` (`sex`, `age` in years, `view`, `projection`, `laterality`, `site`, `device`, `marker`),
        and `report` if its column was named.
    labels: `(images, labels)` of 0, 1 and nan (unknown).
    reading: what was understood of the file or folder; None where it came from neither.
    data_set: what the images are of, such as "CheXpert"; "" where that is not known.
    """

    root: Path | ImageFolder
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

    def image_path(self, index: int | np.integer) -> Path | ImageFile:
        """Where the image of this row is."""
        return self.root / self.frame["path"].iloc[index]

    @property
    def covariates(self) -> pd.DataFrame:
        """What is known of patients and images beside their labels, as the table words it; ages in years."""
        return self.frame[[name for name in COVARIATES if name in self.frame]]

    def where(self, wanted: str, columns: pd.DataFrame | None = None) -> ImageTable:
        """The images for which a condition on covariates, labels, patient and split holds; see `data.rows.where`.

        Args:
            columns: more to choose by, a row an image.

        Raises:
            MedSAEError: what `rows.where` refuses.
        """
        named = {name: self.frame[name] for name in self.frame.columns if name != "image_id"}
        named |= {name: pd.Series(values) for name, values in zip(self.label_names, self.labels.T, strict=True)}
        named |= {} if columns is None else {name: columns[name] for name in columns.columns}
        holds, notes = rows.where(named, wanted)
        table = self.take(np.flatnonzero(holds))
        reading = table.reading and replace(table.reading, notes=(*notes, *table.reading.notes))
        return replace(table, reading=reading)

    def take(self, rows: Int[np.ndarray, " rows"]) -> ImageTable:
        """The table of these rows alone, in this order; images are counted anew."""
        frame = self.frame.iloc[rows].reset_index(drop=True)
        return replace(self, frame=frame.assign(image_id=np.arange(len(frame))), labels=self.labels[rows])

    def write(self, path: Path) -> None:
        """Write it as CSV: path, patient, split, covariates, and labels as 1, 0 and `unknown`; no report texts.

        Raises:
            MedSAEError: it cannot be written.
        """
        columns = ["path", "patient", *(["split"] if self.frame["split"].any() else []), *self.covariates.columns]
        words = np.full(self.labels.shape, "unknown", dtype=object)
        for value, word in ((1, "1"), (0, "0"), (-1, "-1")):
            words[self.labels == value] = word
        labels = pd.DataFrame(words, columns=list(self.label_names))
        write_text(path, pd.concat([self.frame[columns], labels], axis=1).to_csv(index=False, lineterminator="\n"))

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
    split_files: Mapping[str, str | Path] | None = None,
    label_columns: Sequence[str] | None = None,
    report_column: str | None = None,
    uncertain: Uncertain = "ignore",
    dialect: str | None = None,
    readers: Readers = "majority",
    image_format: ImageFormat | None = None,
    chexpert_names: bool = False,
    where: str | None = None,
    known_paths: Collection[str] | None = None,
    data_set: str | None = None,
) -> ImageTable:
    """Read a table of images: a known data set's, or any with a path column. `describe()` tells what was understood.

    CSV with commas, semicolons, tabs or bars, in UTF-8 or UTF-16, packed or not (gz, bz2, xz, zip), or Parquet. Columns
    are found by name whatever their case, spaces and underscores.

    Args:
        root: the folder that paths start from; default the table's own folder. Where no file is found at the paths as
            they are, what they all begin with (`CheXpert-v1.0/`) is taken off, or a folder of the root put before, if
            there is one way alone that leads to files. Data sets whose tables hold names of files alone have them
            looked for in all folders below the root.
        path_column: default `Path` or a like name.
        patient_column: default `patient_id` or a like name, else the patient in the path by a known layout (CheXpert,
            MIMIC-CXR, NIH, a folder a patient).
        patients_from: a regular expression that finds the patient in a path, its first group.
        patients_are_images: every image is of another patient.
        split_column: the column of the split; default `split`, or the one column that holds nothing but train, val,
            test and the like (`valid`, `validate`, ... are `val`).
        split_files: of each split the file that lists its images, one a line; default the data set's own lists, where
            they lie beside the table (NIH's `train_val_list.txt` and `test_list.txt`).
        label_columns: default those of the dialect; in plain tables the columns called by a known finding.
        report_column: the column of report texts, kept as `report`; default none.
        uncertain: what -1 stands for: unknown (`ignore`), 0 or 1; `keep` leaves it -1, for the paper's protocol alone.
            What empty stands for is the dialect's: 0 in a CheXpert table ("not mentioned"), unknown in a plain one.
        dialect: the name of one of `DIALECTS`; default by the columns' names and the paths.
        readers: where each reader has a row, when an image has a label: `majority` of them (halves are unknown), `any`,
            or `all`.
        image_format: `jpg`, `png` or `dicom`, where a data set has its images in several formats.
        chexpert_names: labels that mean the same as one of CheXpert's are called so (`Effusion`: `Pleural Effusion`).
        where: which rows to take, such as `view == 'Frontal' and age > 18`; see `medsae_plugin.data.rows.where`.
        known_paths: paths that the table's should be like, such as those of a store's images.
        data_set: what the images are of, to be set against what encoders were trained on; default by the dialect.

    Raises:
        MedSAEError: no such file, a damaged or an empty table, a quotation that is not closed, a missing column, a path
            outside the root, an image that comes twice, images that could be in several places, a label that is not
            understood, no patients, a condition that is none.
    """
    raw = read_raw(Path(csv_path))
    root = Path(root) if root is not None else raw.path.parent
    if not root.is_dir():
        raise MedSAEError(f"the image root {root} is not a folder")
    spoken, why, usual_path = recognised(raw, path_column, dialect)
    check_rows_not_swallowed(raw, usual_path or raw.frame.columns[0])
    shaped = spoken.shaped(raw, readers)
    wanted = Wanted(
        path_column,
        patient_column,
        patients_from,
        patients_are_images,
        split_column,
        {named_splits([split])[0]: Path(file) for split, file in (split_files or {}).items()},
        label_columns,
        report_column,
        uncertain,
        image_format,
        chexpert_names,
        known_paths,
        data_set,
    )
    table = table_of(shaped, spoken, why, root, wanted)
    return table if where is None else table.where(where, shaped.raw.frame)


def table_of(shaped: Shaped, dialect: Dialect, why: str, root: Path | ImageFolder, wanted: Wanted) -> ImageTable:
    """The images of a table that has a row an image, and what was understood of it; `why` it is of the dialect.

    Raises:
        MedSAEError: as `read_table`.
    """
    source = str(shaped.raw.path)
    use = find_columns(
        shaped,
        dialect,
        path=wanted.path_column,
        patient=wanted.patient_column,
        split=wanted.split_column,
        report=wanted.report_column,
        labels=wanted.label_columns,
        is_dicom=wanted.image_format == "dicom",
    )
    notes = list(shaped.notes)
    paths, origin = paths_of(shaped, use, dialect, root, wanted)
    patients, whose = patients_of(shaped, use, dialect, paths, wanted, notes)
    splits, said = splits_of(shaped, use, dialect, paths, patients, wanted, notes)
    details, origins = details_of(shaped, use, notes)
    origins = {"path": f"{origin}, in {root}", "patient": whose, **said, **origins}
    labels, values = labels_of(shaped, use, dialect, wanted, notes)
    if shaped.labels:
        origins["labels"] = shaped.labels_from
    names = by_chexpert_names(labels, source, notes) if wanted.chexpert_names else labels
    frame = pd.DataFrame({"image_id": np.arange(len(paths)), "path": paths, "patient": patients, "split": splits})
    beside = {
        head: {name: texts.get(label, "") for label, name in zip(labels, names, strict=True)}
        for head, texts in shaped.beside.items()
    }
    empty = f"an empty label is {dialect.empty_means}; -1, uncertain, is {UNCERTAIN_MEANS[wanted.uncertain]}"
    words = f"{dialect.name} ({why}): {empty}"
    reading = Reading(source, words, origins, use.aside(shaped, dialect), tuple(notes), beside, wanted.uncertain)
    images_of = data_set_of(dialect.name, paths) if wanted.data_set is None else wanted.data_set
    return ImageTable(root, frame.assign(**details), values, names, reading, images_of)


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
