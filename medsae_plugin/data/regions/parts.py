"""Parts of a region, as they were drawn: boxes, contours, run lengths; and what share of a cell they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Shape = tuple[int, int]  # rows, columns


@runtime_checkable
class Part(Protocol):
    """A box or a mask, in the pixels of an image of `size`, (rows, columns); None: of the image itself."""

    @property
    def size(self) -> Shape | None: ...

    def shares(
        self, rows: Float[np.ndarray, " rows_1"], columns: Float[np.ndarray, " columns_1"]
    ) -> Float[np.ndarray, "rows columns"]:
        """The share of each cell that is covered, 0 to 1; `rows` and `columns` are the cells' edges in its pixels."""
        ...


@dataclass(frozen=True)
class Box:
    """From the outer edge of its first pixel to that of its last: 0, 0, 2, 1 is two pixels of the first row."""

    left: int | float
    top: int | float
    right: int | float
    bottom: int | float
    size: Shape | None = None

    def shares(
        self, rows: Float[np.ndarray, " rows_1"], columns: Float[np.ndarray, " columns_1"]
    ) -> Float[np.ndarray, "rows columns"]:
        return np.outer(_overlaps(rows, self.top, self.bottom), _overlaps(columns, self.left, self.right))


class Mask:
    """A part that is drawn pixel by pixel."""

    size: Shape

    def drawn(self) -> Bool[np.ndarray, "rows columns"]:
        raise NotImplementedError

    def shares(
        self, rows: Float[np.ndarray, " rows_1"], columns: Float[np.ndarray, " columns_1"]
    ) -> Float[np.ndarray, "rows columns"]:
        return averaged(self.drawn(), rows, columns)


@dataclass(frozen=True, eq=False)
class Runs(Mask):
    """Run lengths down the columns, column after column: so many pixels outside, so many inside, and so on."""

    counts: Int[np.ndarray, " runs"]
    size: Shape

    def __post_init__(self) -> None:
        rows, columns = self.size
        if (self.counts < 0).any() or self.counts.sum() > rows * columns:
            raise ValueError(f"run lengths of {self.counts.sum():,} pixels do not fill {rows} x {columns}")

    @property
    def is_empty(self) -> bool:
        return not self.counts[1::2].any()

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "rows columns"]) -> Runs:
        """The run lengths of a mask."""
        flat = np.concatenate([[False], mask.T.reshape(-1)])
        changes = np.flatnonzero(flat[1:] != flat[:-1])
        return cls(
            np.diff(np.concatenate([[0], changes, [mask.size]])).astype(np.int64), (mask.shape[0], mask.shape[1])
        )

    def drawn(self) -> Bool[np.ndarray, "rows columns"]:
        rows, columns = self.size
        flat = np.zeros(rows * columns, dtype=bool)
        told = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        flat[: len(told)] = told
        return flat.reshape(columns, rows).T


@dataclass(frozen=True, eq=False)
class Polygons(Mask):
    """Closed contours, points (column, row) each; a pixel is inside one that goes round its centre an odd number of
    times, and covered where it is inside any. One that goes round none covers the pixels that its points are in.
    """

    contours: Sequence[Float[np.ndarray, "points 2"]]
    size: Shape

    def __post_init__(self) -> None:
        if not all(np.isfinite(points).all() for points in self.contours):
            raise ValueError("a contour has points that are no numbers")

    @property
    def is_empty(self) -> bool:
        return all(len(points) < 3 for points in self.contours)

    def drawn(self) -> Bool[np.ndarray, "rows columns"]:
        inside = np.zeros(self.size, dtype=bool)
        for points in self.contours:
            filled = _filled(points, self.size)
            if not filled.any() and len(points):
                columns, rows = np.floor(points).astype(np.int64).T
                filled[rows.clip(0, self.size[0] - 1), columns.clip(0, self.size[1] - 1)] = True
            inside |= filled
        return inside


def counts_of(text: str) -> Int[np.ndarray, " runs"]:
    """COCO's compressed run lengths: five bits a character, and from the third each less the one before the last.

    Raises:
        ValueError: a sign that is none of theirs, or a number that does not end.
    """
    counts: list[int] = []
    value = shift = 0
    for sign in text.encode():
        bits = sign - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{chr(sign)!r} is no sign of compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths are cut short")
    return np.array(counts, dtype=np.int64)


def averaged(
    values: Shaped[np.ndarray, "_ _"], rows: Float[np.ndarray, " rows_1"], columns: Float[np.ndarray, " columns_1"]
) -> Float[np.ndarray, "rows columns"]:
    """The mean of an image's values over each cell of these edges, in pixels; beyond the image they are 0."""
    return _over_rows(_over_rows(values, rows).T, columns).T


def _over_rows(values: Shaped[np.ndarray, "n m"], edges: Float[np.ndarray, " k"]) -> Float[np.ndarray, "_ m"]:
    n = len(values)
    sums = np.zeros((n + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    at = edges.clip(0, n)
    below = np.minimum(at.astype(np.int64), n - 1)
    part = (at - below)[:, None]
    until = sums[below] * (1 - part) + sums[below + 1] * part
    return np.diff(until, axis=0) / np.diff(edges)[:, None]


def _overlaps(edges: Float[np.ndarray, " k"], low: int | float, high: int | float) -> Float[np.ndarray, " cells"]:
    inside = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return inside.clip(0) / np.diff(edges)


def _filled(points: Float[np.ndarray, "points 2"], size: Shape) -> Bool[np.ndarray, "rows columns"]:
    """A pixel is inside where an odd number of edges cross its row to the left of its centre."""
    rows, columns = size
    crossings = np.zeros((rows, columns + 1), dtype=bool)
    for (x, y), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        first, last = (int(np.clip(np.ceil(end - 0.5), 0, rows)) for end in (min(y, y2), max(y, y2)))
        crossed = np.arange(first, last)
        if len(crossed):
            at = x + (crossed + 0.5 - y) * ((x2 - x) / (y2 - y))
            crossings[crossed, np.ceil(at - 0.5).clip(0, columns).astype(np.int64)] ^= True
    return np.logical_xor.accumulate(crossings[:, :-1], axis=1)
