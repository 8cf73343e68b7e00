"""Figures of maps against regions: arrays alone, many images at once.

A map is what a unit does in each cell of an image, a cover the share of each cell that a region takes, 0 to 1; cells
are those of a hook's grid, or the input's pixels. What is below 0 counts as 0, and a map of zeros is silent: it points
nowhere, so that it hits nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float

Maps = Float[np.ndarray, "images rows columns"]
PerImage = Float[np.ndarray, " images"]


def bilinear(maps: Maps, shape: tuple[int, int]) -> Float[np.ndarray, "images _ _"]:
    """Maps between the centres of their cells, at another number of rows and columns; constant beyond the outermost."""
    tensor = torch.from_numpy(np.ascontiguousarray(maps))[:, None]
    return torch.nn.functional.interpolate(tensor, size=shape, mode="bilinear", align_corners=False)[:, 0].numpy()


def pointing(maps: Maps, covers: Maps) -> PerImage:
    """The pointing game (Zhang et al. 2018, IJCV 126:1084): whether the strongest cell lies in the region.

    Of a cell that is covered in part, that part; of several equally strong cells, their mean; 0 of a silent map.
    """
    flat, cover = _flat(maps), _flat(covers)
    strongest = (flat == flat.max(1, keepdims=True)) & (flat > 0)
    return (cover * strongest).sum(1) / np.maximum(strongest.sum(1), 1)


def iou(maps: Maps, covers: Maps, threshold: float) -> PerImage:
    """Intersection over union of the region and the cells above a threshold (of at least 0); nan without a region."""
    both, cells, region = _overlap(maps, covers, threshold)
    return _ratio(both, cells + region - both, region)


def dice(maps: Maps, covers: Maps, threshold: float) -> PerImage:
    """Twice the intersection over the sum of both areas; nan without a region."""
    both, cells, region = _overlap(maps, covers, threshold)
    return _ratio(2 * both, cells + region, region)


def average_precision(maps: Maps, covers: Maps) -> PerImage:
    """Average precision of the cells, each of which counts as positive by what is covered of it and as negative by the
    rest, ties as one step; a silent map has the region's share of the cells. nan without a region.
    """
    return np.array([_average_precision(m, c) for m, c in zip(_flat(maps), _flat(covers), strict=True)])


def mass_inside(maps: Maps, covers: Maps) -> PerImage:
    """The share of a map's sum that lies in the region; nan of a silent map."""
    flat = _flat(maps)
    total = flat.sum(1)
    return _ratio((flat * _flat(covers)).sum(1), total, total)


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


def best_threshold(maps: Maps, covers: Maps, figure: Callable[[Maps, Maps, float], PerImage], steps: int = 32) -> float:
    """The threshold of the largest mean of `iou` or `dice`: 0, or a quantile of what is above; 0 where nothing is."""
    positive = maps[maps > 0]
    if not len(positive):
        return 0.0
    tried = [0.0, *np.unique(np.quantile(positive.astype(np.float64), np.arange(1, steps) / steps)).tolist()]
    means = [float(np.nan_to_num(figure(maps, covers, t)).mean()) for t in tried]
    return float(tried[int(np.argmax(means))])


def _flat(maps: Maps) -> Float[np.ndarray, "images cells"]:
    return np.maximum(rearrange(maps, "image row column -> image (row column)").astype(np.float64), 0)


def _overlap(maps: Maps, covers: Maps, threshold: float) -> tuple[PerImage, PerImage, PerImage]:
    above, cover = _flat(maps) > threshold, _flat(covers)
    return (cover * above).sum(1), above.sum(1).astype(np.float64), cover.sum(1)


def _ratio(part: PerImage, whole: PerImage, there: PerImage) -> PerImage:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=there > 0)


def _average_precision(flat: Float[np.ndarray, " cells"], cover: Float[np.ndarray, " cells"]) -> float:
    if cover.sum() <= 0:
        return float("nan")
    order = np.argsort(-flat, kind="stable")
    last = np.flatnonzero(np.append(np.diff(flat[order]) != 0, True))  # of each run of ties
    found = np.cumsum(cover[order])[last]
    return float((np.diff(found, prepend=0) * found / (last + 1)).sum() / cover.sum())
