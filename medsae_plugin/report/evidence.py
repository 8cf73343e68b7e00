"""What a latent's page shows beside its scores: firing range, strongest images, nearest latents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from medsae_plugin.comparison.correlation import correlations
from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.registry import mean_known
from medsae_plugin.scores.strongest import Strongest

STRIP = 32
STRONGEST = 8
NEAREST = 6
_BLOCK = 1024
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Strip:
    """A latent's firing range: its positive activations, strongest first, in at most `STRIP` bins of as many images.

    level: of each bin the mean activation, as a share of the latent's maximum. present: the share of its images that
    show the observation the latent follows best, of those where that is known; nan for none.
    """

    level: Float[np.ndarray, " bins"]
    present: Float[np.ndarray, " bins"]


def strips(
    matrix: LatentMatrix, rows: np.ndarray, labels: Float[np.ndarray, "images labels"] | None, best: np.ndarray
) -> list[Strip]:
    """The strip of every latent over the images `rows`.

    Args:
        labels: of the images in `rows`, None where labels are not at hand.
        best: `(latents,)` the label whose presence is told, -1 for none.
    """
    made = []
    for start, block in matrix.blocks():
        columns = sparse.csc_array(sparse.csr_array(block)[rows])
        for j in range(columns.shape[1]):
            part = slice(columns.indptr[j], columns.indptr[j + 1])
            made.append(_strip(columns.data[part], columns.indices[part], labels, int(best[start + j])))
    return made


def _strip(values: np.ndarray, images: np.ndarray, labels: np.ndarray | None, label: int) -> Strip:
    order = np.argsort(-values, kind="stable")
    order = order[values[order] > 0]
    if len(order) == 0:
        return Strip(np.zeros(0), np.zeros(0))
    bins = np.array_split(order, min(STRIP, len(order)))
    level = np.array([values[b].mean() for b in bins]) / values[order[0]]
    present = np.full(len(bins), np.nan)
    if labels is not None and label >= 0:
        shown = labels[images, label]
        for k, b in enumerate(bins):
            present[k] = mean_known(shown[b])
    return Strip(level, present)


def strongest(matrix: LatentMatrix, rows: np.ndarray) -> Strongest:
    """The strongest images of every latent among `rows`, as rows of the matrix."""
    mine = np.zeros(matrix.n_images, dtype=bool)
    mine[rows] = True
    best = Strongest.none(matrix.n_latents, STRONGEST)
    for where, shard in matrix.shards():
        latent = np.repeat(np.arange(matrix.n_latents), np.diff(shard.indptr))
        image = shard.indices.astype(np.int64) + where.start
        kept = mine[image]
        part = Strongest.of(latent[kept], shard.data[kept], image[kept], matrix.n_latents, STRONGEST)
        best = best.merge(part)
    return best


def nearest(
    matrix: LatentMatrix, rows: np.ndarray
) -> tuple[Int[np.ndarray, "latents k"], Float[np.ndarray, "latents k"]]:
    """The latents of the same SAE whose activations over images correlate most with each one's, and their r.

    Memory is latents squared. A latent that is silent there has -1 and nan.
    """
    r = correlations(matrix, matrix, {"rows": rows})["rows"]
    np.fill_diagonal(r, np.nan)
    k = min(NEAREST, matrix.n_latents - 1)
    places, values = np.full((len(r), k), -1), np.full((len(r), k), np.nan)
    for start in range(0, len(r) if k else 0, _BLOCK):
        block = slice(start, start + _BLOCK)
        filled = np.nan_to_num(r[block], nan=-2.0)
        some = np.argpartition(-filled, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(filled, some, 1), axis=1, kind="stable")
        nearest_ones = np.take_along_axis(some, order, 1)
        values[block] = np.take_along_axis(r[block], nearest_ones, 1)
        places[block] = np.where(np.isnan(values[block]), -1, nearest_ones)
    return places, values


def digits(shares: np.ndarray) -> str:
    """Shares from 0 to 1 as one character each, in 62 steps; `-` for nan."""
    steps = np.round(np.clip(np.nan_to_num(shares), 0, 1) * (len(_DIGITS) - 1)).astype(int)
    return "".join("-" if np.isnan(x) else _DIGITS[k] for x, k in zip(shares, steps, strict=True))
