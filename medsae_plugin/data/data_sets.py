"""Names of data sets: what a table's images are of, and whether an encoder was trained on them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from medsae_plugin.data.dialects import key

OF_DIALECT = {
    "chexpert": "CheXpert",
    "mimic-cxr": "MIMIC-CXR",
    "nih": "NIH ChestX-ray14",
    "padchest": "PadChest",
    "vindr": "VinDr-CXR",
    "openi": "Open-i",
}
"""The data set that a dialect's tables are of, unless it is named. Cards name theirs by these names too."""
# CheXpert's columns are used for other images as well, phantoms' among them, so its paths are looked at.
_CHEXPERT_IMAGE = re.compile(r"(?:^|/)patient\d+/study\d+/view\d+_(?:frontal|lateral)\.jpe?g$", re.IGNORECASE)


def data_set_of(dialect: str, paths: Sequence[str]) -> str:
    """The data set that a table is of, by its dialect and its paths; "" where that is not known."""
    if dialect == "chexpert" and not all(map(_CHEXPERT_IMAGE.search, paths)):
        return ""
    return OF_DIALECT.get(dialect, "")


def same_data_set(one: str, other: str) -> bool:
    """Whether two names are of one data set, whatever their case, spaces and signs; `CheXpert` is `chexpert`."""
    return key(one) == key(other)
