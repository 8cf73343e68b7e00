"""VinDr-CXR: a row a reader, or a box of a reader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from medsae_plugin.data.dialects.base import Dialect, Shaped, cells, column_of, column_or_none, one_row_each
from medsae_plugin.data.dialects.cells import read_cells
from medsae_plugin.data.dialects.findings import KNOWN, key
from medsae_plugin.data.table_files import RawTable

_BOX = ("x_min", "y_min", "x_max", "y_max")
_IN_WORDS = {
    "majority": "1 where more than half of the readers say so",
    "any": "1 where a reader says so",
    "all": "1 where all readers say so",
}


def _recognise(columns: Sequence[str], paths: Sequence[str]) -> str | None:
    keys = set(map(key, columns))
    if {"imageid", "classname", "xmin"} <= keys:
        return "its columns image_id, class_name and x_min: a row a box"
    if "imageid" in keys and ("radid" in keys or {"aorticenlargement", "nofinding"} <= keys):
        return "its column image_id, and a finding a column"
    return None


def _shape(raw: RawTable, readers: str) -> Shaped:
    image, reader = cells(raw, column_of(raw, "image_id")), column_or_none(raw, "rad_id")
    boxes = column_or_none(raw, "class_name")
    each, of_image = one_row_each(raw, image)
    pairs = image + "\0" + cells(raw, reader) if reader is not None else image
    opinion = pd.factorize(pairs)[0].astype(np.int64)  # of which reader on which image a row is
    opinions = of_image[~pairs.duplicated().to_numpy()]  # the image of each opinion
    used = [column for column in (reader, boxes) if column is not None]
    if boxes is not None:
        names, said = _boxes(cells(raw, boxes), opinion, len(opinions))
        used += [column for name in (*_BOX, "class_id") if (column := column_or_none(raw, name)) is not None]
    else:
        columns = [column for column in raw.frame.columns if key(column) in KNOWN]
        names, said = columns, np.full((len(opinions), len(columns)), np.nan)
        for c, column in enumerate(columns):
            said[opinion, c], _ = read_cells(raw.frame[column], np.nan, raw.places, str(raw.path))
        used += columns
    labels, kappas, alike, halves = _together(said, opinions, readers)
    if len(opinions) == len(each.frame):
        return Shaped(
            each, labels=dict(zip(names, labels.T, strict=True)), labels_from="one reading an image", used=tuple(used)
        )
    notes = [f"readers are made one by {readers}: {_IN_WORDS[readers]} (--readers majority, any or all)"]
    if halves:
        notes.append(f"{halves:,} labels on which the readers are halved are unknown")
    counts = np.bincount(np.bincount(opinions))
    shown = ", ".join(f"{count:,} by {n}" for n, count in enumerate(counts) if n and count)
    return Shaped(
        each,
        labels=dict(zip(names, labels.T, strict=True)),
        labels_from=f"{len(opinions):,} readings (images: {shown})",
        used=tuple(used),
        beside={
            "kappa": {name: f"{kappa:.2f}" for name, kappa in zip(names, kappas, strict=True)},
            "alike": {name: f"{share:.1%}" for name, share in zip(names, alike, strict=True)},
        },
        notes=(*notes, "kappa: Fleiss' kappa of the readers; alike: images on which all of them say the same"),
    )


def _boxes(
    classes: pd.Series, opinion: Int[np.ndarray, " rows"], n: int
) -> tuple[list[str], Float[np.ndarray, "opinions labels"]]:
    codes, names = pd.factorize(classes, sort=True)
    said = np.zeros((n, len(names)))
    said[opinion, codes] = 1
    return list(map(str, names)), said


def _together(
    said: Float[np.ndarray, "opinions labels"], of_image: Int[np.ndarray, " opinions"], readers: str
) -> tuple[Float[np.ndarray, "images labels"], Float[np.ndarray, " labels"], Float[np.ndarray, " labels"], int]:
    """One opinion an image; of each label Fleiss' kappa, and the share of images where all agree; opinions halved."""
    n_images = int(of_image.max()) + 1
    votes, known = np.zeros((2, n_images, said.shape[1]))
    np.add.at(votes, of_image, np.nan_to_num(said == 1).astype(float))
    np.add.at(known, of_image, (~np.isnan(said)).astype(float))
    rule = {"majority": 2 * votes > known, "any": votes > 0, "all": votes == known}[readers]
    labels = np.where(known == 0, np.nan, rule.astype(float))
    halved = (2 * votes == known) & (known > 0) if readers == "majority" else np.zeros_like(rule)
    labels[halved] = np.nan
    # Fleiss 1971, Psychological Bulletin 76(5), each image by its own number of readers.
    several = known > 1
    n, yes = np.where(several, known, 2), np.where(several, votes, 0)
    agreed = np.where(several, (yes * (yes - 1) + (n - yes) * (n - yes - 1)) / (n * (n - 1)), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = agreed.sum(0) / several.sum(0)
        share = yes.sum(0) / np.where(several, known, 0).sum(0)
        by_chance = share**2 + (1 - share) ** 2
        kappas = (observed - by_chance) / (1 - by_chance)
        alike = (several & ((yes == 0) | (yes == n))).sum(0) / several.sum(0)
    return labels, kappas, alike, int(halved.sum())


VINDR = Dialect(
    "vindr",
    _recognise,
    None,
    np.nan,
    "unknown; a reader who gives no box of a finding says 0",
    columns={"path": ("imageid",), "patient": ()},
    shape=_shape,
    suffixes=(".dicom", ".dcm", ".png", ".jpg"),
    no_patient="VinDr-CXR tells no patients: each image is taken for another's, and some may share one",
)
