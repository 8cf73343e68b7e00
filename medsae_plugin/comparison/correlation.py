"""Correlation of the latents of two SAEs over images: all pairs from one streamed sparse matrix product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse

from medsae_plugin.scores.matrix import LatentMatrix

_LATENTS_A_BLOCK = 1024  # rows of the product that are dense at a time beside the sums


@dataclass(frozen=True)
class LatentMoments:
    """Of each latent over some images, `(n_latents,)`, float64: sum, sum of squares, images on which it is not zero."""

    n: int
    total: Float[np.ndarray, " latents"]
    squares: Float[np.ndarray, " latents"]
    fired: Float[np.ndarray, " latents"]

    @property
    def deviation(self) -> Float[np.ndarray, " latents"]:
        """The root of the sum of squares about the mean; nan for a latent that is constant up to rounding."""
        scatter = self.squares - self.total**2 / max(self.n, 1)
        return np.sqrt(np.where(scatter > 1e-12 * self.squares, scatter, np.nan))


def moments(matrix: LatentMatrix, rows: np.ndarray) -> LatentMoments:
    """The moments of every latent over the images `rows`, shard by shard."""
    total, squares, fired = np.zeros((3, matrix.n_latents))
    chosen = _mask(matrix.n_images, rows)
    for where, shard in matrix.shards():
        a = sparse.csr_array(shard)[np.flatnonzero(chosen[where])].astype(np.float64)
        total += a.sum(0)
        squares += (a**2).sum(0)
        fired += np.bincount(a.indices, minlength=matrix.n_latents)
    return LatentMoments(len(rows), total, squares, fired)


def correlations(
    a: LatentMatrix, b: LatentMatrix, rows: Mapping[str, np.ndarray]
) -> dict[str, Float[np.ndarray, "latents_a latents_b"]]:
    """Pearson's r of every latent of `a` with every latent of `b`, over each of the given sets of images.

    Memory is that of the result: it does not grow with the images. Sums are float64. nan where a latent is constant.

    Args:
        a, b: matrices over the same images.
        rows: sets of matrix rows by name, such as the selection and the report split.
    """
    products = {name: np.zeros((a.n_latents, b.n_latents)) for name in rows}
    masks = {name: _mask(a.n_images, chosen) for name, chosen in rows.items()}
    for (where, shard_a), (_, shard_b) in zip(a.shards(), b.shards(), strict=True):
        by_image_a, by_image_b = sparse.csr_array(shard_a), sparse.csr_array(shard_b)
        for name, product in products.items():
            mine = np.flatnonzero(masks[name][where])
            x, y = sparse.csc_array(by_image_a[mine].astype(np.float64)), by_image_b[mine].astype(np.float64)
            for start in range(0, a.n_latents, _LATENTS_A_BLOCK):
                block = slice(start, start + _LATENTS_A_BLOCK)
                product[block] += (x[:, block].T @ y).toarray()
    result = {}
    for name, product in products.items():
        of_a, of_b = moments(a, rows[name]), moments(b, rows[name])
        product -= np.outer(of_a.total, of_b.total / max(of_a.n, 1))
        product /= of_a.deviation[:, None]
        product /= of_b.deviation
        result[name] = np.clip(product, -1, 1, out=product)
    return result


def _mask(n: int, rows: np.ndarray) -> np.ndarray:
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    return mask
