"""Figures of maps against regions: arrays alone, many images at once.

A map is what a unit does in each cell of an image, a cover the share of each cell that a region takes, 0 to 1; cells
are those of a hook's grid, of an attribution, or the input's pixels. What is below 0 counts as 0, and a map of zeros is
silent: it points nowhere, so that it hits nothing. Covers may be of several rounds, as chance has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float

Maps = Float[np.ndarray, "images rows columns"]
Covers = Float[np.ndarray, "*rounds images rows columns"]
PerImage = Float[np.ndarray, "*rounds images"]
_Alike = Float[np.ndarray, "..."]  # of all rounds, or the same in each


def bilinear(maps: Maps, shape: tuple[int, int]) -> Float[np.ndarray, "images _ _"]:
    """Maps between the centres of their cells, at another number of rows and columns; constant beyond the outermost."""
    tensor = torch.from_numpy(np.ascontiguousarray(maps))[:, None]
    return torch.nn.functional.interpolate(tensor, size=shape, mode="bilinear", align_corners=False)[:, 0].numpy()


def pointing(maps: Maps, covers: Covers) -> PerImage:
    """The pointing game (Zhang et al. 2018, IJCV 126:1084): whether the strongest cell lies in the region.

    Of a cell that is covered in part, that part; of several equally strong cells, their mean; 0 of a silent map.
    """
    flat, cover = _flat(maps), _flat(covers)
    strongest = (flat == flat.max(1, keepdims=True)) & (flat > 0)
    return (cover * strongest).sum(-1) / np.maximum(strongest.sum(1), 1)


def iou(maps: Maps, covers: Covers, threshold: float) -> PerImage:
    """Intersection over union of the region and the cells above a threshold (of at least 0); nan without a region."""
    both, cells, region = _overlap(maps, covers, threshold)
    return _ratio(both, cells + region - both, region)


def dice(maps: Maps, covers: Covers, threshold: float) -> PerImage:
    """Twice the intersection over the sum of both areas; nan without a region."""
    both, cells, region = _overlap(maps, covers, threshold)
    return _ratio(2 * both, cells + region, region)


def average_precision(maps: Maps, covers: Covers) -> PerImage:
    """Average precision of the cells, each of which counts as positive by what is covered of it and as negative by the
    rest, ties as one step; a silent map has the region's share of the cells. nan without a region.
    """
    flat, cover = _flat(maps), _flat(covers)
    order = np.argsort(-flat, axis=1, kind="stable")
    ordered, n = np.take_along_axis(flat, order, axis=1), flat.shape[1]
    positive = np.take_along_axis(cover, np.broadcast_to(order, cover.shape), axis=-1)
    ends = np.concatenate([ordered[:, 1:] != ordered[:, :-1], np.ones((len(flat), 1), dtype=bool)], axis=1)
    # Of each cell the last of the run of ties that it is in, where its precision is taken.
    last = np.minimum.accumulate(np.where(ends, np.arange(n), n)[:, ::-1], axis=1)[:, ::-1]
    found = np.take_along_axis(np.cumsum(positive, axis=-1), np.broadcast_to(last, cover.shape), axis=-1)
    region = positive.sum(-1)
    return _ratio((positive * found / (last + 1)).sum(-1), region, region)


def mass_inside(maps: Maps, covers: Covers) -> PerImage:
    """The share of a map's sum that lies in the region; nan of a silent map."""
    flat = _flat(maps)
    total = flat.sum(1)
    return _ratio((flat * _flat(covers)).sum(-1), total, total)


def morans_i(maps: Maps) -> PerImage:
    """Moran's I over cells that share an edge (Moran 1950, Biometrika 37:17): 1 where neighbours are alike, -1/(n - 1)
    where cells lie by chance, below where neighbours differ. nan of a map that is the same everywhere.
    """
    z = np.maximum(maps.astype(np.float64), 0)
    z = z - z.mean((1, 2), keepdims=True)
    _, rows, columns = z.shape
    pairs = rows * (columns - 1) + columns * (rows - 1)
    products = (z[:, 1:] * z[:, :-1]).sum((1, 2)) + (z[:, :, 1:] * z[:, :, :-1]).sum((1, 2))
    squares = (z**2).sum((1, 2))
    # Of values of this size less would be rounding error.
    varies = squares > 1e-12 * np.maximum(maps.astype(np.float64), 0).max((1, 2)) ** 2
    return _ratio(rows * columns * products, pairs * squares, varies * float(pairs))


def thresholds_to_try(maps: Maps, steps: int = 32) -> list[float]:
    """0, and quantiles of what is above 0."""
    positive = maps[maps > 0]
    if not len(positive):
        return [0.0]
    return [0.0, *np.unique(np.quantile(positive.astype(np.float64), np.arange(1, steps) / steps)).tolist()]


def best_threshold(
    tried: Sequence[float],
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
    figure: Callable[..., np.ndarray],
) -> float:
    """The threshold of the largest mean of `iou` or `dice` over images, whose maps and covers come in parts."""
    sums = np.zeros(len(tried))
    for maps, covers in parts:
        sums += [float(np.nan_to_num(figure(maps, covers, t)).sum()) for t in tried]
    return float(tried[int(np.argmax(sums))])


def _flat(maps: Covers) -> Float[np.ndarray, "*rounds images cells"]:
    return np.maximum(maps.reshape(*maps.shape[:-2], -1).astype(np.float64), 0)


def _overlap(maps: Maps, covers: Covers, threshold: float) -> tuple[PerImage, _Alike, PerImage]:
    above, cover = _flat(maps) > threshold, _flat(covers)
    return (cover * above).sum(-1), above.sum(1).astype(np.float64), cover.sum(-1)


def _ratio(part: PerImage, whole: _Alike, there: _Alike) -> PerImage:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=there > 0)
