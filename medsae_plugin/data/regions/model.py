"""Regions of a table's images, and what a format of them is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from medsae_plugin.data.regions.parts import Box, Mask, Part, Shape, averaged
from medsae_plugin.data.table_files import RawTable, raw_of, unpacked
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import read_json, reading

Edges = tuple[Float[np.ndarray, " rows_1"], Float[np.ndarray, " columns_1"]]


# NIH's BBox_List_2017.csv as published has nine names of its six columns, which no table has.
_NIH_HEADER = b"Bbox [x,y,w,h],,,", b"x,y,w,h"


@dataclass(frozen=True)
class Region:
    """Where a finding is on an image.

    parts: its boxes and masks, in pixels of the size that they were drawn at.
    image: (rows, columns) of the image as it is.
    """

    parts: tuple[Part, ...]
    image: Shape

    @property
    def kind(self) -> str:
        """`boxes`, `masks`, or both."""
        kinds = {"boxes" if isinstance(part, Box) else "masks" for part in self.parts}
        return " and ".join(sorted(kinds))

    def cover(self, edges: Edges | None = None) -> Float[np.ndarray, "rows columns"]:
        """The share of each cell that the region covers, 0 to 1.

        Args:
            edges: of the cells' rows and columns, in the image's pixels, such as `Framing.edges` gives; default: each
                of the image's pixels is a cell.
        """
        own = tuple(np.arange(n + 1, dtype=np.float64) for n in self.image)
        if len(self.parts) == 1:
            return self._shares(self.parts[0], edges or (own[0], own[1]))
        # Parts that share a cell may or may not cover the same of it: they are laid together in the image's pixels.
        together = np.maximum.reduce([self._shares(part, (own[0], own[1])) for part in self.parts])
        return together if edges is None else averaged(together, *edges)

    def mask(self) -> Bool[np.ndarray, "rows columns"]:
        """The pixels of the image of which half is covered, or, where none is, those that are covered most."""
        cover = self.cover()
        return (cover >= min(0.5, cover.max())) & (cover > 0)

    def boxes(self) -> Float[np.ndarray, "boxes 4"]:
        """The boxes, (left, top, right, bottom) in the image's pixels, from outer edge to outer edge; not the masks."""
        found = [(part, self._scale(part)) for part in self.parts if isinstance(part, Box)]
        rows = [(b.left * x, b.top * y, b.right * x, b.bottom * y) for b, (y, x) in found]
        return np.array(rows, dtype=np.float64).reshape(-1, 4)

    def area(self) -> float:
        """The share of the image that it covers."""
        rows, columns = self.image
        masks = [part for part in self.parts if isinstance(part, Mask)]
        if len(masks) == len(self.parts) and len({mask.size for mask in masks}) == 1:
            return float(np.logical_or.reduce([mask.drawn() for mask in masks]).mean())
        if self.kind != "boxes":
            return float(self.cover().mean())
        # Cells between all of the boxes' edges are covered whole or not at all.
        boxes = self.boxes()
        down, across = np.unique(boxes[:, 1::2]), np.unique(boxes[:, ::2])
        middles = (down[1:] + down[:-1]) / 2, (across[1:] + across[:-1]) / 2
        inside = np.zeros((len(down) - 1, len(across) - 1), dtype=bool)
        for left, top, right, bottom in boxes:
            on_rows, on_columns = (top < middles[0]) & (middles[0] < bottom), (left < middles[1]) & (middles[1] < right)
            inside |= np.outer(on_rows, on_columns)
        return float((inside * np.outer(np.diff(down), np.diff(across))).sum() / (rows * columns))

    def _shares(self, part: Part, edges: Edges) -> Float[np.ndarray, "rows columns"]:
        y, x = self._scale(part)
        return part.shares(edges[0] / y, edges[1] / x)

    def _scale(self, part: Part) -> tuple[float, float]:
        """Pixels of the image, down and across, to one of those that the part was drawn in."""
        rows, columns = part.size or self.image
        return self.image[0] / rows, self.image[1] / columns


@dataclass(frozen=True)
class Regions:
    """Regions of a table's images, by path and finding: `regions[path][finding].mask()`.

    by_path: those of each image that has any.
    named: paths of all images that the file names; on those without a region nothing was found.
    """

    source: str
    format: str
    by_path: Mapping[str, Mapping[str, Region]]
    named: frozenset[str]
    notes: tuple[str, ...] = ()

    def __getitem__(self, path: str) -> Mapping[str, Region]:
        return self.by_path.get(path, {})

    def __len__(self) -> int:
        return len(self.by_path)

    @property
    def findings(self) -> tuple[str, ...]:
        """In order of their names."""
        return tuple(sorted({finding for regions in self.by_path.values() for finding in regions}))

    def beside(self, other: Regions, mark: str) -> Regions:
        """These, and those of another table's images, whose paths begin with `mark`, as in a store of both."""
        theirs = {mark + path: regions for path, regions in other.by_path.items()}
        named = self.named | {mark + path for path in other.named}
        notes = (*self.notes, *other.describe().splitlines())
        return replace(self, by_path={**self.by_path, **theirs}, named=named, notes=notes)

    def describe(self) -> str:
        """What was read, as what, in lines."""
        findings = ", ".join(self.findings) or "none"
        head = f"{self.source}: regions of {len(self):,} images, format {self.format}; findings: {findings}"
        return "\n".join([head, *(f"  {note}" for note in self.notes)])


@dataclass(frozen=True)
class Annotation:
    """What a file says of one finding on one image.

    image: the image's path, or the end of it, with or without a suffix.
    place: where in the file that is, such as `line 12`.
    finding, parts: None and () where the image was looked at, and nothing found.
    also: another name that the image may have.
    notes: what is odd about it, in words that are the same for all that are odd likewise; they are counted.
    """

    image: str
    place: str
    finding: str | None = None
    parts: tuple[Part, ...] = ()
    also: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A file or folder of regions, and what it holds, opened once: its `json`, its `table`, or neither in a folder."""

    path: Path
    labels: tuple[str, ...] = ()  # of the table whose images they are of
    images: frozenset[str] = frozenset()  # the ends of their paths, without suffix

    @cached_property
    def json(self) -> Any:
        """None where it is no JSON."""
        return read_json(self.path) if self.path.suffix.lower() == ".json" else None

    @cached_property
    def table(self) -> RawTable | None:
        """None where it is no table."""
        if self.path.is_dir() or self.path.suffix.lower() in (".json", ".jsonl"):
            return None
        return raw_of(unpacked(self.path).replace(*_NIH_HEADER, 1), self.path)

    @cached_property
    def lines(self) -> list[Any] | None:
        """The objects of a file of one JSON object a line, or of a folder's `truth.jsonl`; None where there is none."""
        path = self.path / "truth.jsonl" if self.path.is_dir() else self.path
        if path.suffix.lower() != ".jsonl" or not path.is_file():
            return None
        with reading(path):
            return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


@dataclass(frozen=True)
class RegionFormat:
    """How regions are written.

    recognise: why a source is of this format, in words; None where it is not.
    read: what it says, in its order. A KeyError, TypeError, ValueError or IndexError of it says that the source is not
        as it should be.
    aliases: names of findings that mean another here, by `key`.
    notes: what to say of all of these.
    """

    name: str
    recognise: Callable[[Source], str | None]
    read: Callable[[Source], Iterator[Annotation]]
    aliases: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def annotations(self, source: Source) -> Iterator[Annotation]:
        """What the source says.

        Raises:
            MedSAEError: it is not as the format has it.
        """
        last = "the beginning"
        try:
            for annotation in self.read(source):
                last = annotation.place
                yield annotation
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise MedSAEError(f"{source.path}, after {last}: not as {self.name} has its regions ({what})") from error
