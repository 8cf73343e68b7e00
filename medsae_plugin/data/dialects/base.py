"""What a dialect is: which tables are of it, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from medsae_plugin.data.dialects.findings import KNOWN, key
from medsae_plugin.data.table_files import RawTable
from medsae_plugin.errors import MedSAEError


@dataclass(frozen=True)
class Shaped:
    """A table brought to a row an image, for those that have none, or that keep their findings in other than columns.

    raw: its rows.
    made: what the dialect has put together itself, by use (`path`, `patient`, `split`, `age`, ...): a value a row, and
        from what, in words.
    labels: findings that it has read itself: 0, 1, -1 (uncertain) and nan a row.
    labels_from: from where, in words.
    used: columns that are read so.
    beside: more to tell of each label, such as how its readers agree: the heading, and a text a label.
    notes: what else to know.
    """

    raw: RawTable
    made: Mapping[str, tuple[Sequence[object], str]] = field(default_factory=dict)
    labels: Mapping[str, Float[np.ndarray, " rows"]] = field(default_factory=dict)
    labels_from: str = ""
    used: tuple[str, ...] = ()
    beside: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dialect:
    """What a data set's tables mean.

    recognise: given the column names and the paths, why a table is one of these, in words; None if it is not.
    findings: the names of its labels; None where a column is a label if it is called by a finding of `FINDINGS`.
    aliases: other names of them, by `key`.
    empty: what an empty cell of these is, 0 or nan; `empty_means` says it.
    columns: names of columns by use (`path`, `patient`, `split`, `sex`, `age`, `view`, `projection`, ...), by `key`,
        before those that are usual; none, `()`, where a usual name means something else here.
    shape: brings a table to a row an image; given what readers' rows are made one by (`majority`, `any`, `all`).
    suffixes: those that its image files may have, the likeliest first. Given, its paths may be names alone, which are
        looked for in all folders below the root.
    no_patient: what to say where its tables name no patient, and each image is taken for another's; "" refuses it.
    split_lists: official lists of images, and the split that each is, where they lie beside the table.
    """

    name: str
    recognise: Callable[[Sequence[str], Sequence[str]], str | None]
    findings: tuple[str, ...] | None
    empty: float
    empty_means: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shape: Callable[[RawTable, str], Shaped] | None = None
    suffixes: tuple[str, ...] = ()
    no_patient: str = ""
    split_lists: Mapping[str, str] = field(default_factory=dict)

    def finding(self, column: str) -> str | None:
        """The finding that a column is of, by its name; None where it is of none."""
        if self.findings is None:
            return column if key(column) in KNOWN else None
        names = {key(name): name for name in self.findings} | dict(self.aliases)
        return names.get(key(column))

    def shaped(self, raw: RawTable, readers: str) -> Shaped:
        """The table as a row an image.

        Raises:
            MedSAEError: what `shape` refuses.
        """
        return self.shape(raw, readers) if self.shape is not None else Shaped(raw)


def column_of(raw: RawTable, *names: str) -> str:
    """The column called so, by `key`, the first that is there.

    Raises:
        MedSAEError: none is.
    """
    if (column := column_or_none(raw, *names)) is None:
        raise MedSAEError(f"{raw.path} has no column {names[0]!r}; it has {', '.join(raw.frame.columns)}")
    return column


def column_or_none(raw: RawTable, *names: str) -> str | None:
    by_key = {key(column): column for column in reversed(raw.frame.columns)}
    return next((by_key[key(name)] for name in names if key(name) in by_key), None)


def listed(
    lists: Sequence[Sequence[str] | None], names: Sequence[str] | None = None
) -> dict[str, Float[np.ndarray, " rows"]]:
    """Findings listed a row as a label each: 1 where it is listed, 0 where it is not, nan where there is no list.

    Args:
        names: the labels; default all that are listed, in order of their names.
    """
    names = sorted({name for found in lists for name in found or ()}) if names is None else names
    place = {name: i for i, name in enumerate(names)}
    values = np.zeros((len(names), len(lists)), dtype=np.float32)
    for row, found in enumerate(lists):
        if found is None:
            values[:, row] = np.nan
        else:
            values[[place[name] for name in found], row] = 1
    return dict(zip(names, values, strict=True))


def cells(raw: RawTable, column: str) -> pd.Series:
    """A column's cells without the spaces around them."""
    return raw.frame[column].str.strip()


def one_row_each(raw: RawTable, names: pd.Series) -> tuple[RawTable, Int[np.ndarray, " rows"]]:
    """The first row of each name, in order, and of each row the number of its name."""
    codes, _ = pd.factorize(names)
    first = np.flatnonzero(~names.duplicated().to_numpy())
    frame = raw.frame.iloc[first].reset_index(drop=True)
    return RawTable(raw.path, frame, [raw.places[int(row)] for row in first], raw.unread), codes.astype(np.int64)


def beside(path: Path, *patterns: str) -> Path | None:
    """The file beside a table that one of the patterns finds; of several, the first by name."""
    found = (file for pattern in patterns for file in sorted(path.parent.glob(pattern)) if file != path)
    return next(found, None)
