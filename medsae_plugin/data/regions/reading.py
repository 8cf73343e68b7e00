"""Regions matched with the images of a table, and brought to each image's own pixels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medsae_plugin.data.dialects.findings import KNOWN, chexpert_name, key
from medsae_plugin.data.formats import without_suffix
from medsae_plugin.data.images import UnreadableImage, image_shape
from medsae_plugin.data.regions.formats import format_of
from medsae_plugin.data.regions.model import Annotation, Region, RegionFormat, Regions, Source
from medsae_plugin.data.regions.parts import Box, Part, Polygons, Shape
from medsae_plugin.data.split_lists import ends_of
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError

_SLACK = 0.02  # of the image's side, by which a box may reach beyond it


def read_regions(source: str | Path, table: ImageTable, *, format: str | None = None) -> Regions:
    """Where findings are on the images of a table: masks and boxes in the pixels of each image as it is.

    Args:
        source: the file or folder that data sets publish: the truth of `medsae phantoms`, CheXlocalize's contours or
            run lengths, the boxes of NIH, RSNA and VinDr, SIIM's run lengths, COCO's JSON, a folder of mask images.
        table: whose images they are of. A region's image is that whose path is called so, or ends so; its finding is
            called as the table's label that means the same.
        format: the name of one of `REGION_FORMATS`; default by what is in it.

    Raises:
        MedSAEError: nothing there, or in no format that is known; a file that is not as its format has it; no image of
            the table among those that it names, a name that several images have, an image of another aspect than its
            regions were drawn on, or of which that is not known; a box that is none or that lies beyond its image.
    """
    path = Path(source)
    if not path.exists():
        raise MedSAEError(f"there are no regions at {path}")
    ends = _Ends(str(path), list(table.frame["path"]))
    opened = Source(path, table.label_names, frozenset(ends.by_end))
    spoken, why = format_of(opened, format)
    found = _Found()
    for annotation in spoken.annotations(opened):
        found.add(annotation, ends.path_of(annotation))
    ends.check(len(found.named))
    names, said = _names(found.findings, spoken, table.label_names)
    placed, more = _Placing(path, table).placed(found.parts, names)
    odd = [f"{what} ({n:,})" for what, n in found.notes.items()]
    notes = (*spoken.notes, *_counts(table, found, placed, ends), *said, *odd, *more)
    return Regions(str(path), f"{spoken.name} ({why})", placed, frozenset(found.named), notes)


@dataclass
class _Found:
    """What a file says of the images of the table."""

    named: dict[str, str] = field(default_factory=dict)  # by path, how the file calls it
    parts: dict[str, dict[str, list[tuple[Part, str]]]] = field(default_factory=lambda: defaultdict(dict))
    findings: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, annotation: Annotation, path: str | None) -> None:
        self.notes.update(annotation.notes)
        if path is None:
            return
        self.named[path] = annotation.image
        if annotation.finding is not None and annotation.parts:
            self.findings[annotation.finding] += len(annotation.parts)
            told = [(part, annotation.place) for part in annotation.parts]
            self.parts[path].setdefault(annotation.finding, []).extend(told)


class _Ends:
    """The images of a table by the ends of their paths."""

    def __init__(self, where: str, paths: Sequence[str]) -> None:
        self.where, self.paths = where, paths
        self.by_end: dict[str, list[str]] = {}
        self.strange: dict[str, None] = {}  # names of images that the table has not, in order
        self._called: dict[str, str] = {}
        for path in paths:
            for end in ends_of(path):
                self.by_end.setdefault(end, []).append(path)
        self._whole = {without_suffix(path) for path in paths}

    def path_of(self, annotation: Annotation) -> str | None:
        """The image's path in the table; None where it has no such image."""
        names = [annotation.image] if annotation.also is None else [annotation.image, annotation.also]
        for name in names:
            name = without_suffix(name.strip().replace("\\", "/").removeprefix("./"))
            # The table's paths may be shorter than the file's, but not by what tells two images apart.
            longer = next((end for end in ends_of(name) if end in self._whole), None)
            found = self.by_end.get(name) or (self.by_end[longer] if longer is not None else [])
            if len(found) > 1:
                raise MedSAEError(
                    f"{self.where}, {annotation.place}: {name!r} is the end of {len(found)} images' paths, such as "
                    f"{found[0]!r} and {found[1]!r}; give more of the path"
                )
            if found:
                if (other := self._called.setdefault(found[0], name)) != name:
                    raise MedSAEError(f"{self.where}: {other!r} and {name!r} are both the image {found[0]!r}")
                return found[0]
        self.strange[annotation.image] = None
        return None

    def check(self, matched: int) -> None:
        """Raises MedSAEError where no image is matched."""
        if matched:
            return
        if not self.strange:
            raise MedSAEError(f"{self.where} names no image")
        raise MedSAEError(
            f"{self.where}: none of its {len(self.strange):,} images, such as {next(iter(self.strange))!r}, is an "
            f"image of the table, such as {self.paths[0]!r}"
        )


def _counts(table: ImageTable, found: _Found, placed: Mapping[str, object], ends: _Ends) -> list[str]:
    """How many images have regions, have none, are not named, or are not of the table."""
    without, unnamed = len(found.named) - len(found.parts), len(table) - len(found.named)
    notes = [
        f"of the table's {len(table):,} images, {len(placed):,} have regions, {without:,} are named without one, "
        f"{unnamed:,} are not named"
    ]
    if ends.strange:
        first = next(iter(ends.strange))
        notes.append(f"{len(ends.strange):,} images that it names are not of the table, such as {first!r}")
    return notes


def _names(findings: Iterable[str], spoken: RegionFormat, labels: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What each finding is called: as the label that means the same, or as CheXpert does; and what to say of that."""
    by_meaning = {key(chexpert_name(label)): label for label in labels}
    names = {}
    for finding in findings:
        name = chexpert_name(spoken.aliases.get(key(finding), finding))
        names[finding] = by_meaning.get(key(name), name)
    notes = []
    if renamed := [f"{finding!r} as {name!r}" for finding, name in names.items() if finding != name]:
        notes.append(f"read as what means the same: {', '.join(renamed)}")
    others = sorted({name for name in names.values() if name not in labels})
    if labels and others:
        notes.append(f"no label of the table is called {', '.join(map(repr, others))}")
    if strange := [name for name in others if key(name) not in KNOWN]:
        notes.append(f"no finding that is known here, and kept as they are called: {', '.join(map(repr, strange))}")
    return names, notes


class _Placing:
    """Regions in the pixels of their images."""

    def __init__(self, source: Path, table: ImageTable) -> None:
        self.source, self.table = source, table
        self.scaled = self.cut = 0
        self.unseen: list[str] = []  # images that cannot be opened
        self.unsized: list[str] = []  # of these, those whose regions are of no known size

    def placed(
        self, found: Mapping[str, Mapping[str, Sequence[tuple[Part, str]]]], names: Mapping[str, str]
    ) -> tuple[dict[str, dict[str, Region]], list[str]]:
        """The regions by path and by the findings' names, and what to say of them."""
        regions: dict[str, dict[str, Region]] = {}
        for path, findings in found.items():
            sizes = {part.size for parts in findings.values() for part, _ in parts}
            if (image := self._image(path, sizes)) is None:
                self.unsized.append(path)
                continue
            self.scaled += sizes != {image} and None not in sizes
            together: dict[str, list[Part]] = {}
            for finding, parts in findings.items():
                own = [self._within(part, image, f"{self.source}, {place}") for part, place in parts]
                together.setdefault(names[finding], []).extend(own)
            regions[path] = {name: Region(tuple(parts), image) for name, parts in together.items()}
        return regions, self._notes()

    def _notes(self) -> list[str]:
        notes = []
        if self.scaled:
            notes.append(
                f"{self.scaled:,} images have other pixels than their regions were drawn in; brought to theirs"
            )
        if self.cut:
            notes.append(f"{self.cut:,} boxes reach a little beyond their image, and are cut at its edge")
        if self.unseen:
            notes.append(
                f"{len(self.unseen):,} images cannot be opened, such as {self.unseen[0]}: their regions are in the "
                "pixels they were drawn in, and nothing tells whether the image has their aspect"
            )
        if self.unsized:
            notes.append(
                f"{len(self.unsized):,} images cannot be opened, such as {self.unsized[0]}, and the file has no size "
                "of them: their regions are left aside"
            )
        return notes

    def _image(self, path: str, sizes: set[Shape | None]) -> Shape | None:
        """The image's size; that of its regions where it cannot be opened, None where they have none.

        Raises:
            MedSAEError: it has not the aspect of its regions, or that is not known.
        """
        try:
            image = image_shape(self.table.root / path)
        except UnreadableImage:
            size = next(iter(sizes))
            if size is not None:
                self.unseen.append(path)
            return size
        for size in sizes:
            if size is None and not path.lower().endswith((".dcm", ".dicom")):
                raise MedSAEError(
                    f"{self.source} does not say how large the images were that its regions are of: that is known of "
                    f"DICOM files alone, and {path} may have been resized. Give it columns `height` and `width` (of "
                    "the originals), or put a *_meta.csv (image_id, dim0, dim1) beside it"
                )
            if size is not None and not _like(size, image):
                raise MedSAEError(
                    f"{path} has {image[0]} rows and {image[1]} columns, and its regions in {self.source} were drawn "
                    f"on {size[0]} x {size[1]}: that is another aspect, so it was cropped, padded or stretched, and "
                    "where they are on it is not known. Take images that were only resized"
                )
        return image

    def _within(self, part: Part, image: Shape, place: str) -> Part:
        """The part with its size; boxes are cut at the image's edges.

        Raises:
            MedSAEError: a box without an area; a box or contours that lie beyond the image.
        """
        rows, columns = size = part.size or image
        if isinstance(part, Polygons):
            points = np.concatenate(part.contours)
            (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
            extent = Box(left, top, right, bottom, size)
        elif isinstance(part, Box):
            extent = replace(part, size=size)
            if not (part.left < part.right and part.top < part.bottom):
                raise MedSAEError(f"{place}: {_words(part)} has no area")
        else:
            return part
        cut = Box(
            min(max(extent.left, 0), columns),
            min(max(extent.top, 0), rows),
            min(max(extent.right, 0), columns),
            min(max(extent.bottom, 0), rows),
            size,
        )
        beyond_x = max(cut.left - extent.left, extent.right - cut.right) / columns
        beyond_y = max(cut.top - extent.top, extent.bottom - cut.bottom) / rows
        is_outside = isinstance(part, Box) and not (cut.left < cut.right and cut.top < cut.bottom)
        if max(beyond_x, beyond_y) > _SLACK or is_outside:
            raise MedSAEError(
                f"{place}: {_words(extent)} reaches beyond its image of {rows} rows and {columns} columns"
            )
        if isinstance(part, Polygons):
            return part
        self.cut += cut != extent
        return cut


def _words(box: Box) -> str:
    return f"what goes from column {box.left:g}, row {box.top:g} to column {box.right:g}, row {box.bottom:g}"


def _like(drawn: Shape, image: Shape) -> bool:
    """Whether one may be the other resized: each side to within a pixel by the same factor."""
    (rows, columns), (height, width) = drawn, image
    low = max((height - 1) / rows, (width - 1) / columns)
    return low <= min((height + 1) / rows, (width + 1) / columns)
