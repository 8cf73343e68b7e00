"""Regions in JSON: CheXlocalize's contours and run lengths, COCO's annotations, and the truth of phantoms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool

from medsae_plugin.data.regions.model import Annotation, RegionFormat, Source
from medsae_plugin.data.regions.parts import Box, Mask, Part, Polygons, Runs, Shape, counts_of
from medsae_plugin.errors import MedSAEError
from medsae_plugin.phantoms import Case, draw_case

_ENCLOSES_NOTHING = "contours of fewer than three points enclose nothing"
_OF_CHEXPERT = re.compile(r"_(?=(?:study|view)\d)")  # in patient64541_study1_view1_frontal, where the path has a /


def _shape(size: Any) -> Shape:
    rows, columns = size
    if not (isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0):
        raise ValueError(f"{size} is no size of an image")
    return rows, columns


def _runs(coded: Mapping[str, Any]) -> Runs:
    """COCO's run lengths, compressed or not."""
    counts, size = coded["counts"], _shape(coded["size"])
    numbers = counts_of(counts) if isinstance(counts, str) else np.array(counts)
    if numbers.dtype.kind != "i":
        raise ValueError("run lengths that are no whole numbers")
    runs = Runs(numbers, size)
    if runs.counts.sum() != size[0] * size[1]:
        raise ValueError(f"run lengths of {runs.counts.sum():,} pixels, of {size[0]} x {size[1]}")
    return runs


def _first(found: Any) -> dict[str, Any]:
    """The first value of an object, where that is one too; else {}."""
    first = next(iter(found.values()), None) if isinstance(found, dict) else None
    return first if isinstance(first, dict) else {}


def _is_contours(source: Source) -> str | None:
    return "an object an image, with img_size" if "img_size" in _first(source.json) else None


def _contours(source: Source) -> Iterator[Annotation]:
    for image, findings in source.json.items():
        size = _shape(findings["img_size"])
        yield _annotation(image)
        for finding, contours in findings.items():
            if finding == "img_size":
                continue
            points = [np.array(contour, dtype=np.float64).reshape(-1, 2) for contour in contours]
            short = (_ENCLOSES_NOTHING,) if any(len(contour) < 3 for contour in points) else ()
            # Each contour is a region of its own.
            parts = tuple(part for each in points if not (part := Polygons([each], size)).is_empty)
            yield _annotation(image, finding, parts, short)


def _is_run_lengths(source: Source) -> str | None:
    return "an object an image, with size and counts a finding" if "counts" in _first(_first(source.json)) else None


def _run_lengths(source: Source) -> Iterator[Annotation]:
    for image, findings in source.json.items():
        yield _annotation(image)
        for finding, coded in findings.items():
            runs = _runs(coded)
            yield _annotation(image, finding, () if runs.is_empty else (runs,))


def _annotation(
    image: str, finding: str | None = None, parts: tuple[Part, ...] = (), notes: tuple[str, ...] = ()
) -> Annotation:
    return Annotation(image, f"image {image!r}", finding, parts, _OF_CHEXPERT.sub("/", image), notes)


def _is_coco(source: Source) -> str | None:
    its = {"images", "annotations", "categories"}
    return (
        "its images, annotations and categories" if isinstance(source.json, dict) and its <= set(source.json) else None
    )


def _coco(source: Source) -> Iterator[Annotation]:
    images = {image["id"]: image for image in source.json["images"]}
    names = {category["id"]: category["name"] for category in source.json["categories"]}
    for image in images.values():
        yield Annotation(image["file_name"], f"image {image['id']}")
    for annotation in source.json["annotations"]:
        image, place = images[annotation["image_id"]], f"annotation {annotation.get('id')}"
        size = _shape((image["height"], image["width"]))
        coded = annotation.get("segmentation")
        part: Mask | Box
        notes: tuple[str, ...] = ()
        if isinstance(coded, dict):
            part = _runs(coded)
            if part.size != size:
                raise ValueError(f"{place}: run lengths of {part.size}, of an image of {size}")
        elif coded:
            points = [np.array(contour, dtype=np.float64).reshape(-1, 2) for contour in coded]
            part = Polygons(points, size)
            notes = (_ENCLOSES_NOTHING,) if any(len(contour) < 3 for contour in points) else ()
        else:
            left, top, width, height = map(float, annotation["bbox"])
            part = Box(left, top, left + width, top + height, size)
        is_empty = not isinstance(part, Box) and part.is_empty
        parts: tuple[Part, ...] = () if is_empty else (part,)
        yield Annotation(image["file_name"], place, names[annotation["category_id"]], parts, notes=notes)


@dataclass(frozen=True)
class Drawn(Mask):
    """A phantom's finding, drawn again from its line of `truth.jsonl`."""

    record: str
    finding: str
    size: Shape

    def drawn(self) -> Bool[np.ndarray, "rows columns"]:
        return _masks(self.record)[self.finding]


@lru_cache(maxsize=16)
def _masks(record: str) -> dict[str, Bool[np.ndarray, "rows columns"]]:
    told = json.loads(record)
    phantom = draw_case(Case(**told["case"]), size=told["size"])
    if {name: [list(box) for box in boxes] for name, boxes in phantom.boxes.items()} != told["boxes"]:
        raise MedSAEError(
            f"{told['path']} was drawn by another version of the phantoms: drawn again, its findings are elsewhere; "
            "make the set anew with medsae phantoms"
        )
    return phantom.masks


def _is_truth(source: Source) -> str | None:
    its = {"path", "case", "boxes", "size"}
    first = source.lines[0] if source.lines else None
    return "a phantom a line" if isinstance(first, dict) and its <= set(first) else None


def _truth(source: Source) -> Iterator[Annotation]:
    for number, told in enumerate(source.lines or (), 1):
        place, size = f"line {number}", _shape((told["size"], told["size"]))
        yield Annotation(told["path"], place)
        record = json.dumps(told)
        for finding, boxes in told["boxes"].items():
            yield Annotation(told["path"], place, finding, (Drawn(record, finding, size),) if boxes else ())


CONTOURS = RegionFormat("chexlocalize", _is_contours, _contours)
RUN_LENGTHS = RegionFormat("chexlocalize-rle", _is_run_lengths, _run_lengths)
COCO = RegionFormat("coco", _is_coco, _coco)
PHANTOMS = RegionFormat("phantoms", _is_truth, _truth, notes=("masks are drawn again, as the images were",))
