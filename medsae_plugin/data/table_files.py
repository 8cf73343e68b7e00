"""Table files as text cells: CSV of any usual separator and encoding, packed or not, and Parquet."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd

from medsae_plugin.data.images import IMAGE_SUFFIXES
from medsae_plugin.errors import MedSAEError

_SEPARATORS = ",;\t|"
_HEAD = 65536  # characters, from which the separator is told
_CHUNK = 8192  # rows that are Python's at once; those that are read take a quarter of the memory
_LONGEST_CELL = 2**31 - 1  # csv's own bound is 131,072 characters, and reports are longer
_SEP_LINE = re.compile(r'"?sep=([^\r\n])"?[,;\t]*(?:\r\n|\r|\n)', re.IGNORECASE)
_UNPACK: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}
_WORKBOOK = "a spreadsheet's workbook; save it as CSV (UTF-8)"
_PAGE = "a web page (HTML) in the table's place; download the table itself, logged in where its site asks for that"
_JSON = "JSON; save it as CSV or Parquet, a row an image"
_NOT_TAKEN = {  # by what they begin with, in lower case
    b"\xd0\xcf\x11\xe0": _WORKBOOK,
    b"\x28\xb5\x2f\xfd": "packed with Zstandard; unpack it, or pack it as .gz",
    b"version https://git-lfs": "a git-lfs pointer in the table's place: run git lfs pull in that clone",
    b"<!doctype html": _PAGE,
    b"<html": _PAGE,
    b'{"': _JSON,
    b'[{"': _JSON,
}
_MARKS = {  # UTF-32 first: its mark begins as UTF-16's does
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


@dataclass(frozen=True)
class RawTable:
    """The cells of a table, as text.

    frame: a column of text a column; empty where there is nothing.
    places: where each row is in the file, such as `line 12`.
    unread: columns that hold neither text nor numbers.
    """

    path: Path
    frame: pd.DataFrame
    places: Sequence[str]
    unread: tuple[str, ...] = ()


def read_raw(path: Path) -> RawTable:
    """The table in a file.

    Raises:
        MedSAEError: no such file, a damaged one or one of another kind, text that is not Unicode, an empty table, a
            quotation that is not closed, a row of more or fewer cells than the header, two columns of one name.
    """
    return raw_of(unpacked(path), path)


def unpacked(path: Path) -> bytes:
    """What a table's file holds, unpacked where it is packed.

    Raises:
        MedSAEError: no such file, or a damaged one.
    """
    if not path.is_file():
        raise MedSAEError(f"there is no table at {path}")
    return _unpacked(path.read_bytes(), path)


def raw_of(content: bytes, path: Path) -> RawTable:
    """The table that a file's unpacked content is.

    Raises:
        MedSAEError: as `read_raw`.
    """
    _refuse_what_is_no_table(content, path)
    if content.startswith(b"PAR1"):
        return _parquet(content, path)
    encoding = _encoding(content, path)
    head = content[: 4 * _HEAD].decode(encoding, errors="ignore")[:_HEAD]
    mark = _SEP_LINE.match(head)
    rows = _rows(content, encoding, mark[1] if mark else _separator(head), 1 if mark else 0, path)
    return _table(rows, path)


def check_rows_not_swallowed(raw: RawTable, path_column: str) -> None:
    """Whether a cell holds rows of the table: its opening quotation mark was not closed, and a later one closed it.

    Raises:
        MedSAEError: it does.
    """
    columns = list(raw.frame.columns)
    place = columns.index(path_column)
    for k, name in enumerate(columns):
        for row in raw.frame.index[raw.frame[name].str.contains("[\r\n]", regex=True)]:
            own = _shape(raw.frame[path_column][row])
            inner = re.split(r"[\r\n]+", raw.frame[name][row])[1:]
            for i, line in enumerate(inner):
                cells = max((line.split(separator) for separator in _SEPARATORS), key=len)
                whole = len(columns) if i < len(inner) - 1 else k + 1
                if len(cells) == whole > place and (_is_image(cells[place]) or _shape(cells[place]) == own):
                    raise MedSAEError(
                        f"{raw.path}, {raw.places[row]}, column {name!r}: the cell holds what looks like another row, "
                        f'{line[:80]!r}, so a quotation mark (") is opened in it and not closed; close or remove it'
                    )


def _shape(cell: str) -> str:
    return re.sub(r"\d+", "0", cell.strip())


def _is_image(cell: str) -> bool:
    return Path(cell.strip().strip('"')).suffix.lower() in IMAGE_SUFFIXES


def _refuse_what_is_no_table(content: bytes, path: Path) -> None:
    begin = content[:2000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, what in _NOT_TAKEN.items():
        if begin.startswith(start):
            raise MedSAEError(f"{path} is {what}")


def _unpacked(content: bytes, path: Path) -> bytes:
    try:
        if content.startswith(b"PK\x03\x04"):
            if path.suffix.lower() in (".xlsx", ".xlsm", ".ods"):
                raise MedSAEError(f"{path} is {_WORKBOOK}")
            return _unzipped(content, path)
        for start, unpack in _UNPACK.items():
            if content.startswith(start):
                return unpack(content)
    except MedSAEError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        raise MedSAEError(f"{path} is packed, and damaged: {error}") from None
    return content


def _unzipped(content: bytes, path: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if "[Content_Types].xml" in names:
            raise MedSAEError(f"{path} is {_WORKBOOK}")
        if len(names) != 1:
            raise MedSAEError(f"{path} is a zip of {len(names)} files; unpack it and give the table")
        return archive.read(names[0])


def _encoding(content: bytes, path: Path) -> str:
    """The encoding of a text, all of which is of it."""
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and content[:1000].count(0) > len(content[:1000]) // 10:  # UTF-16's: half, in Western
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise MedSAEError(f"{path} is no table in text ({error})") from None
        line = content.count(b"\n", 0, error.start) + 1
        raise MedSAEError(f"{path} is not UTF-8 text (byte {error.start}, line {line}); save it as UTF-8 CSV") from None
    if "\0" in text:
        raise MedSAEError(f"{path} is no table in text: it holds zero bytes")
    if not text or text.isspace():
        raise MedSAEError(f"{path} is empty")
    return encoding


def _separator(head: str) -> str:
    """The separator under which the first rows have as many cells as the header; of several, that of most cells."""

    def fit(separator: str) -> tuple[bool, float, int]:
        sample = csv.reader(io.StringIO(head, newline=""), delimiter=separator)
        header, *rows = [len(row) for row in islice((row for row in sample if row), 20)]
        return header > 1, sum(n == header for n in rows) / max(1, len(rows)), header

    return max(_SEPARATORS, key=fit)


def _lines(content: bytes, encoding: str) -> io.TextIOWrapper:
    """The text by the line: decoded whole, it would take several times its size."""
    return io.TextIOWrapper(io.BytesIO(content), encoding, newline="")


def _rows(content: bytes, encoding: str, separator: str, skipped: int, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows, and the line on which each begins; lines before the header are `skipped`."""
    begins = 0
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        # Strict: otherwise a quotation mark that is not closed takes all that follows into its cell.
        reader = csv.reader(islice(_lines(content, encoding), skipped, None), delimiter=separator, strict=True)
        for row in reader:
            if any(cell.strip() for cell in row):
                yield begins + skipped + 1, row
            begins = reader.line_num
    except csv.Error as error:
        what = (
            "the file ends inside a quotation"
            if "end of data" in str(error)
            else "text follows a closing quotation mark"
        )
        start = next(islice(_lines(content, encoding), begins + skipped, None), "").strip()[:80]
        raise MedSAEError(
            f"{path}, in the row that begins on line {begins + skipped + 1} ({start!r}): {what}; a quotation mark "
            '(") in this row is not closed, or one within a quoted cell is not doubled ("")'
        ) from None
    finally:
        csv.field_size_limit(before)


def _table(rows: Iterator[tuple[int, list[str]]], path: Path) -> RawTable:
    import pyarrow as pa

    columns = [name.strip() for name in next(rows)[1]]
    if broken := next((c for c in columns if re.search(r"[\r\n]", c) and _is_image(re.split(r"[\r\n,;\t]", c)[1])), ""):
        raise MedSAEError(f"{path}: the header holds a row, {broken[:80]!r}: a quotation mark in it is not closed")
    parts, places, odd = list[pa.Table](), list[str](), ""
    while chunk := list(islice(rows, _CHUNK)):
        for line, row in chunk:
            if len(row) != len(columns) and not odd:
                odd = f"line {line}, has a row of {len(row)} cells under {len(columns)} columns: {row[0][:80]!r}"
        if not odd:
            cells = [pa.array(column, pa.string()) for column in zip(*(row for _, row in chunk), strict=True)]
            parts.append(pa.Table.from_arrays(cells, [str(k) for k in range(len(columns))]))
            places += [f"line {line}" for line, _ in chunk]
    if odd:
        raise MedSAEError(f"{path}, {odd}")
    if not parts:
        raise MedSAEError(f"{path} has a header and no rows")
    frame = pa.concat_tables(parts).to_pandas()
    # Spreadsheets write separators after the last column: columns without a name and without a cell.
    kept = [k for k, name in enumerate(columns) if name or frame[str(k)].str.strip().any()]
    frame = frame[[str(k) for k in kept]].set_axis([columns[k] for k in kept], axis=1)
    return _checked(RawTable(path, frame, places))


def _checked(raw: RawTable) -> RawTable:
    if twice := sorted(set(raw.frame.columns[raw.frame.columns.duplicated()])):
        raise MedSAEError(f"{raw.path} has two columns of the name {', '.join(twice) or '(none)'}")
    return raw


def _parquet(content: bytes, path: Path) -> RawTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(content))
        nested = [f.name for f in file.schema_arrow if pa.types.is_nested(f.type) or pa.types.is_binary(f.type)]
        table = file.read([name for name in file.schema_arrow.names if name not in nested])
    except (pa.ArrowException, OSError) as error:
        raise MedSAEError(f"{path} is a damaged Parquet file: {str(error).splitlines()[0]}") from None
    if not table.num_rows:
        raise MedSAEError(f"{path} has columns and no rows")
    cells = {i: ["" if x is None or x != x else str(x) for x in c.to_pylist()] for i, c in enumerate(table.columns)}
    frame = pd.DataFrame(cells, dtype=str).set_axis([name.strip() for name in table.column_names], axis=1)
    return _checked(RawTable(path, frame, [f"row {i + 1}" for i in range(len(frame))], tuple(nested)))
