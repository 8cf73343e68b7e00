"""Regions in tables: NIH's, RSNA's and VinDr's boxes, SIIM's run lengths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medsae_plugin.data.dialects.base import beside, cells, column_of, column_or_none
from medsae_plugin.data.dialects.findings import key
from medsae_plugin.data.regions.model import Annotation, RegionFormat, Source
from medsae_plugin.data.regions.parts import Box, Runs, Shape
from medsae_plugin.data.table_files import RawTable, read_raw

_PUBLISHED: Shape = (1024, 1024)  # NIH's images, and RSNA's and SIIM's, which are NIH's
_NO_FINDING = ("nofinding", "nofindings", "normal")


def _has(source: Source, *columns: str) -> bool:
    return source.table is not None and set(columns) <= set(map(key, source.table.frame.columns))


def _table(source: Source) -> RawTable:
    if source.table is None:
        raise ValueError("it is no table")
    return source.table


def _number(text: str) -> float:
    if not np.isfinite(number := float(text)):
        raise ValueError(f"{text!r} is no coordinate")
    return number


def _box(cells: tuple[str, ...], size: Shape | None, *, has_corner: bool = False) -> Box:
    """Of left, top, width and height, or with `has_corner` left, top, right, bottom."""
    left, top, x, y = map(_number, cells)
    return Box(left, top, x, y, size) if has_corner else Box(left, top, left + x, top + y, size)


def _columns(table: RawTable, *names: str) -> list[list[str]]:
    return [list(cells(table, column_of(table, name))) for name in names]


def _is_nih(source: Source) -> str | None:
    return "its columns Finding Label and x, y, w, h" if _has(source, "findinglabel", "y", "w") else None


def _nih(source: Source) -> Iterator[Annotation]:
    table = _table(source)
    first, last = column_of(table, "x", "Bbox [x"), column_of(table, "h", "h]")
    columns = ("Image Index", "Finding Label", first, "y", "w", last)
    for image, finding, *box, place in zip(*_columns(table, *columns), table.places, strict=True):
        yield Annotation(image, place, finding, (_box(tuple(box), _PUBLISHED),))


def _is_rsna(source: Source) -> str | None:
    return "its columns patientId, x, y, width, height" if _has(source, "patientid", "x", "y", "width") else None


def _rsna(source: Source) -> Iterator[Annotation]:
    table = _table(source)
    rows = zip(*_columns(table, "patientId", "x", "y", "width", "height"), table.places, strict=True)
    for image, *box, place in rows:
        if any(box):
            yield Annotation(image, place, "Lung Opacity", (_box(tuple(box), _PUBLISHED),))
        else:
            yield Annotation(image, place)


def _is_vindr(source: Source) -> str | None:
    return "its columns image_id, class_name and x_min" if _has(source, "imageid", "classname", "xmin") else None


def _vindr(source: Source) -> Iterator[Annotation]:
    table = _table(source)
    sizes = _sizes(table)
    rows = zip(
        *_columns(table, "image_id", "class_name", "x_min", "y_min", "x_max", "y_max"), table.places, strict=True
    )
    for image, finding, *box, place in rows:
        if key(finding) in _NO_FINDING or not any(box):
            yield Annotation(image, place)
        else:
            yield Annotation(image, place, finding, (_box(tuple(box), sizes.get(image), has_corner=True),))


def _sizes(table: RawTable) -> dict[str, Shape]:
    """What the images' sizes were, where the table says, or Kaggle's `train_meta.csv` beside it (dim0, dim1)."""
    for where, rows, columns in ((table, "height", "width"), (_meta(table.path), "dim0", "dim1")):
        if where is not None and column_or_none(where, rows) is not None:
            found = zip(*_columns(where, "image_id", rows, columns), strict=True)
            return {image: (round(float(height)), round(float(width))) for image, height, width in found}
    return {}


def _meta(path: Path) -> RawTable | None:
    file = beside(path, "*_meta.csv*")
    return None if file is None else read_raw(file)


def _is_siim(source: Source) -> str | None:
    return "its columns ImageId and EncodedPixels" if _has(source, "imageid", "encodedpixels") else None


def _siim(source: Source) -> Iterator[Annotation]:
    table = _table(source)
    for image, runs, place in zip(*_columns(table, "ImageId", "EncodedPixels"), table.places, strict=True):
        if runs in ("-1", ""):
            yield Annotation(image, place)
        else:
            # A start is told from the end of the run before: so many pixels outside, so many inside, and so on.
            yield Annotation(image, place, "Pneumothorax", (Runs(np.array(runs.split(), dtype=np.int64), _PUBLISHED),))


_OF_1024 = "coordinates are of the published images, 1024 x 1024"
NIH = RegionFormat("nih", _is_nih, _nih, {"infiltrate": "Infiltration"}, (_OF_1024,))
RSNA = RegionFormat("rsna", _is_rsna, _rsna, notes=(_OF_1024,))
VINDR = RegionFormat("vindr", _is_vindr, _vindr, notes=("boxes of several readers are laid together",))
SIIM = RegionFormat("siim", _is_siim, _siim, notes=(_OF_1024,))
