"""Regions as a folder of mask images: a folder a finding, or one whose name says what all of them are."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from medsae_plugin.data.dialects.findings import KNOWN, key
from medsae_plugin.data.folders import find_images
from medsae_plugin.data.formats import without_suffix
from medsae_plugin.data.regions.model import Annotation, RegionFormat, Source
from medsae_plugin.data.regions.parts import Runs
from medsae_plugin.files import reading


def _is_folder(source: Source) -> str | None:
    return "a folder of mask images" if source.path.is_dir() else None


def _folder(source: Source) -> Iterator[Annotation]:
    known = KNOWN | set(map(key, source.labels))
    paths, left = find_images(source.path)
    by_finding = all("/" in path and key(path.partition("/")[0]) in known for path in paths)
    notes = tuple(left)
    for path in paths:
        head, _, rest = path.partition("/")
        # Folders may be called by what is no finding (heart, left lung): then the images have no such folder.
        is_finding = by_finding or (
            rest and without_suffix(rest) in source.images and without_suffix(path) not in source.images
        )
        image, finding = (rest, head) if is_finding else (path, posixpath.basename(source.path.resolve().as_posix()))
        runs = Runs.of(_mask(source.path / path))
        yield Annotation(image, path, finding, () if runs.is_empty else (runs,), notes=notes)
        notes = ()


def _mask(path: Path) -> Bool[np.ndarray, "rows columns"]:
    """What is not 0 in it.

    Raises:
        MedSAEError: it cannot be read.
        ValueError: it has more than two values, or colours.
    """
    with reading(path), Image.open(path) as image:
        values = np.asarray(image)
    if values.ndim == 3:
        if values.shape[2] == 2 or (values != values[..., :1]).any():
            raise ValueError(f"{path} has colours; a mask has two values, and what is inside is not 0")
        values = values[..., 0]
    found = np.unique(values)
    if len(found) > 2 or (len(found) == 2 and found[0] != 0):
        raise ValueError(
            f"{path} has {len(found)} values ({found[0]} to {found[-1]}); a mask has two: 0, and another inside. "
            "Save one finding a file, not compressed as JPEG, nor smoothed"
        )
    return values != 0


MASKS = RegionFormat("masks", _is_folder, _folder)
