"""RSNA's pneumonia and SIIM's pneumothorax challenge: a row a box or a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from medsae_plugin.data.dialects.base import Dialect, Shaped, beside, cells, column_of, one_row_each
from medsae_plugin.data.dialects.cells import read_cells
from medsae_plugin.data.dialects.findings import key
from medsae_plugin.data.table_files import RawTable, read_raw

_OF_NIH = "is of NIH's images, some of which are of one patient: each is taken for another's"


def _is_rsna(columns: Sequence[str], paths: Sequence[str]) -> str | None:
    keys = set(map(key, columns))
    return "its columns patientId, Target and boxes" if {"patientid", "target", "x", "width"} <= keys else None


def _rsna(raw: RawTable, readers: str) -> Shaped:
    target, columns = column_of(raw, "Target"), [column_of(raw, name) for name in ("x", "y", "width", "height")]
    values, _ = read_cells(raw.frame[target], np.nan, raw.places, str(raw.path))
    images = cells(raw, column_of(raw, "patientId"))
    each, of_image = one_row_each(raw, images)
    labels = {"Lung Opacity": _any(values == 1, of_image)}
    labels["Lung Opacity"][_any(np.isnan(values), of_image) == 1] = np.nan
    notes = [f"column {target!r} is read as 'Lung Opacity': it stands for opacities that may be pneumonia"]
    names = list(cells(each, column_of(each, "patientId")))
    made: dict[str, tuple[Sequence[object], str]] = {}
    if (classes := beside(raw.path, "*detailed_class_info*")) is not None:
        table = read_raw(classes)
        of = dict(
            zip(cells(table, column_of(table, "patientId")), cells(table, column_of(table, "class")), strict=True)
        )
        labels["Normal"] = np.array([np.nan if name not in of else float(of[name] == "Normal") for name in names])
        notes.append(f"'Normal' is from column class of {classes.name}")
    if (headers := beside(raw.path, "*dicom_headers*")) is not None:
        table = read_raw(headers)
        ids = cells(table, column_of(table, "PatientID"))
        for use, column in {"sex": "PatientSex", "age": "PatientAge", "projection": "ViewPosition"}.items():
            of = dict(zip(ids, cells(table, column_of(table, column)), strict=True))
            made[use] = [of.get(name, "") for name in names], f"{headers.name}, column {column}"
    return Shaped(each, made, labels, f"column {target}", (target, *columns), notes=tuple(notes))


def _is_siim(columns: Sequence[str], paths: Sequence[str]) -> str | None:
    return "its columns ImageId and EncodedPixels" if {"imageid", "encodedpixels"} == set(map(key, columns)) else None


def _siim(raw: RawTable, readers: str) -> Shaped:
    column = column_of(raw, "EncodedPixels")
    each, of_image = one_row_each(raw, cells(raw, column_of(raw, "ImageId")))
    masks = cells(raw, column)
    labels = {"Pneumothorax": _any((masks != "-1").to_numpy(), of_image)}
    labels["Pneumothorax"][_any((masks == "").to_numpy(), of_image) == 1] = np.nan
    return Shaped(each, {}, labels, f"column {column}: 1 where there is a mask", (column,))


def _any(rows: Bool[np.ndarray, " rows"], of_image: Int[np.ndarray, " rows"]) -> Float[np.ndarray, " images"]:
    return (np.bincount(of_image, rows) > 0).astype(np.float64)


RSNA = Dialect(
    "rsna",
    _is_rsna,
    None,
    np.nan,
    "unknown",
    columns={"path": ("patientid",), "patient": ()},
    shape=_rsna,
    suffixes=(".dcm", ".png", ".jpg"),
    no_patient=f"RSNA's challenge, whose patientId is one an image, {_OF_NIH}",
)
SIIM = Dialect(
    "siim",
    _is_siim,
    None,
    np.nan,
    "unknown",
    columns={"path": ("imageid",), "patient": ()},
    shape=_siim,
    suffixes=(".dcm", ".png", ".jpg"),
    no_patient=f"SIIM's challenge {_OF_NIH}",
)
