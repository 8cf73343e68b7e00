"""Which column of a table is what."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medsae_plugin.data.dialects import Dialect, Shaped, dialect_of, key
from medsae_plugin.data.dialects.base import column_or_none
from medsae_plugin.data.dialects.cells import why_no_label
from medsae_plugin.data.splits import SPLIT_WORDS, says_splits
from medsae_plugin.data.table_files import RawTable
from medsae_plugin.errors import MedSAEError

# By `key`, the first that is there.
_PATHS = (
    *("path", "imagepath", "image", "filename", "file", "filepath", "imagefile", "dicom", "dicompath"),
    *("pathtoimage", "imageindex"),
)
PATIENTS = ("patientid", "patient", "subjectid", "subject", "deidpatientid")
_MOST_SPLITS = 100  # words that a column of splits may have, with their cases and spaces
# Our name of what a table says of the patient and the image, and the names that tables use.
COVARIATES: Mapping[str, tuple[str, ...]] = {
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "age": ("age", "patientage"),
    "view": ("frontallateral", "view"),
    "projection": ("appa", "projection", "viewposition"),
    "laterality": ("laterality", "imagelaterality"),
    "site": ("site", "hospital", "institution", "centre", "center"),
    "device": ("device", "manufacturer", "scanner"),
    "marker": ("marker",),
}


@dataclass(frozen=True)
class Columns:
    """The columns of a table by their use; None where it has none. `labels` and `details` are by our names of them."""

    path: str | None
    patient: str | None
    split: str | None
    report: str | None
    labels: Mapping[str, str]
    details: Mapping[str, str]

    def aside(self, shaped: Shaped, dialect: Dialect) -> dict[str, str]:
        """The other columns, and why they are of no use."""
        used = {self.path, self.patient, self.split, self.report, *self.labels.values(), *self.details.values()}
        unread = [name for name in shaped.raw.unread if name not in shaped.used]
        reasons = dict.fromkeys(unread, "neither text nor numbers")
        for name in shaped.raw.frame.columns:
            if name not in used and name not in shaped.used:
                reasons[name] = why_no_label(shaped.raw.frame[name], dialect)
        return reasons


def recognised(raw: RawTable, path: str | None, named: str | None) -> tuple[Dialect, str, str | None]:
    """The dialect of a table, why it is that one, and its column of paths, the one named or a usual one.

    Raises:
        MedSAEError: no such column, no such dialect.
    """
    path = find_column(raw, path, _PATHS, "path")
    paths = [] if path is None else [cell.strip().replace("\\", "/") for cell in raw.frame[path]]
    return *dialect_of(list(raw.frame.columns), paths, named), path


def find_columns(
    shaped: Shaped,
    dialect: Dialect,
    *,
    path: str | None = None,
    patient: str | None = None,
    split: str | None = None,
    report: str | None = None,
    labels: Sequence[str] | None = None,
    is_dicom: bool = False,
) -> Columns:
    """The columns of these names, and where none is named those that the dialect's tables, or most, call so.

    Args:
        is_dicom: of two columns of paths, that of DICOM files.

    Raises:
        MedSAEError: a named column that is not there, no path column, two that could be the split or one label.
    """
    raw, made = shaped.raw, shaped.made

    def column(use: str, named: str | None, usual: Sequence[str]) -> str | None:
        if named is None and use in made:
            return None
        return find_column(raw, named, dialect.columns.get(use, usual), use)

    if path is None and is_dicom:
        path = find_column(raw, None, dialect.columns.get("dicom path", ()), "path")
    path = column("path", path, _PATHS)
    if path is None and "path" not in made:
        raise MedSAEError(
            f"{raw.path} has no path column; it has {', '.join(raw.frame.columns)}; name the one that is it"
        )
    report = find_column(raw, report, (), "report")
    patient = column("patient", patient, PATIENTS)
    taken = {path, patient, report, *shaped.used}
    if split is not None:
        split = find_column(raw, split, (), "split")
    elif "split" not in made and (labels is None or "split" not in map(key, labels)):
        split = _split_column(raw, taken)
    found = _labels(shaped, dialect, labels, taken | {split})
    details = {ours: column(ours, None, theirs) for ours, theirs in COVARIATES.items()}
    used = {path, patient, split, report, *found.values(), *shaped.used}
    kept = {
        ours: column
        for ours, column in details.items()
        if column is not None and column not in used and raw.frame[column].str.strip().any()
    }
    return Columns(path, patient, split, report, found, kept)


def find_column(raw: RawTable, named: str | None, usual: Sequence[str], what: str) -> str | None:
    """The column that is named, or else the first of the usual names that is there.

    Raises:
        MedSAEError: the named one is not there.
    """
    if named is None:
        return column_or_none(raw, *usual)
    if named in raw.frame.columns:
        return named
    alike = [column for column in raw.frame.columns if key(column) == key(named)]
    if key(named) and len(alike) == 1:
        return alike[0]
    near = alike or difflib.get_close_matches(named, raw.frame.columns, n=1)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(raw.frame.columns)}"
    raise MedSAEError(f"{raw.path} has no {what} column {named!r}; {hint}")


def _split_column(raw: RawTable, taken: set[str | None]) -> str | None:
    free = [name for name in raw.frame.columns if name not in taken]
    cells: dict[str, list[str]] = {}
    for name in free:
        cases = raw.frame[name].unique()
        cells[name] = list(cases) if len(cases) <= _MOST_SPLITS else []
    splits = [name for name in free if says_splits(cells[name])]
    called = [name for name in splits if key(name) == "split"]
    telling = called or [
        name
        for name in splits
        if len({SPLIT_WORDS[cell.strip().casefold()] for cell in cells[name] if cell.strip()}) > 1
    ]
    if len(telling) > 1:
        raise MedSAEError(
            f"{raw.path}: the columns {', '.join(map(repr, telling))} each name splits; say which with --split-column"
        )
    return telling[0] if telling else None


def _labels(shaped: Shaped, dialect: Dialect, named: Sequence[str] | None, taken: set[str | None]) -> dict[str, str]:
    """The label columns by their labels; those labels that the dialect has read itself are not among them."""
    raw = shaped.raw
    if named is not None:
        own = {key(label) for label in shaped.labels}
        columns = [str(find_column(raw, name, (), "label")) for name in named if key(name) not in own]
    else:
        filled = [name for name in raw.frame.columns if name not in taken]
        columns = [name for name in filled if dialect.finding(name) is not None]
        if dialect.findings is None:
            columns = [name for name in columns if raw.frame[name].str.strip().any()]
    labels: dict[str, str] = {}
    for column in columns:
        label = dialect.finding(column) or column
        if label in labels or label in shaped.labels:
            one = labels.get(label, shaped.labels_from)
            raise MedSAEError(
                f"{raw.path}: the columns {one!r} and {column!r} are both of the label {label!r}; name the "
                "label columns (--labels)"
            )
        labels[label] = column
    if named is None and dialect.findings is not None:
        return {label: labels[label] for label in dialect.findings if label in labels}
    return labels
