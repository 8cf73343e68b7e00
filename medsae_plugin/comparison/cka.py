"""Centred kernel alignment of layers, from sums that are streamed over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from medsae_plugin.scores.image_means import chunk_images, image_means

if TYPE_CHECKING:
    from medsae_plugin.store import ActivationStore


class CKASums:
    """Sums over images for the linear CKA of several layers: `d_i x d_j` for each pair, whatever the number of images.

    Linear CKA (Kornblith et al. 2019, arXiv 1905.00414, eq. 4): ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F), columns centred.
    It is too high where images are few beside dimensions, so there is also the ratio of unbiased estimates of HSIC
    (Song et al. 2012, eq. 5; Nguyen et al. 2020, arXiv 2010.15327), which is about 0 for unrelated layers.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        pairs = [(i, j) for i in range(len(widths)) for j in range(i, len(widths))]
        self.n = 0
        self._n_layers = len(widths)
        self._shift: list[np.ndarray] | None = None
        self._sum = [np.zeros(d) for d in widths]
        self._square = np.zeros(len(widths))  # sum_i k_ii, with k_ii = ||x_i||^2
        self._product = {(i, j): np.zeros((widths[i], widths[j])) for i, j in pairs}
        self._squares = np.zeros((len(widths), len(widths)))  # sum_i k_ii l_ii
        self._weighted = {(i, j): np.zeros(widths[i]) for i in range(len(widths)) for j in range(len(widths))}

    def update(self, layers: Sequence[Float[np.ndarray, "images _"]]) -> None:
        """Add images: their vectors at every layer."""
        if self._shift is None:  # near the mean, so that centring loses no digits
            self._shift = [x.mean(0) for x in layers]
        x = [layer - shift for layer, shift in zip(layers, self._shift, strict=True)]
        length = [(a * a).sum(1) for a in x]
        self.n += len(x[0])
        for i, a in enumerate(x):
            self._sum[i] += a.sum(0)
            self._square[i] += length[i].sum()
            for j in range(self._n_layers):
                self._weighted[i, j] += a.T @ length[j]
                self._squares[i, j] += length[i] @ length[j]
        for (i, j), product in self._product.items():
            product += x[i].T @ x[j]

    def cka(self) -> Float[np.ndarray, "layers layers"]:
        """Linear CKA of each pair of layers; nan for a layer that is constant."""
        return self._ratio(self._biased)

    def debiased(self) -> Float[np.ndarray, "layers layers"]:
        """The ratio of unbiased estimates; nan for fewer than four images."""
        if self.n < 4:
            return np.full((self._n_layers, self._n_layers), np.nan)
        return self._ratio(self._unbiased)

    def _ratio(self, hsic: object) -> np.ndarray:
        assert callable(hsic)
        values = np.zeros((self._n_layers, self._n_layers))
        for i, j in self._product:
            values[i, j] = values[j, i] = hsic(i, j)
        own = np.diag(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where((own[:, None] > 0) & (own > 0), values / np.sqrt(np.outer(own, own)), np.nan)

    def _biased(self, i: int, j: int) -> float:
        centred = self._product[i, j] - np.outer(self._sum[i], self._sum[j]) / self.n
        return float((centred**2).sum())

    def _unbiased(self, i: int, j: int) -> float:
        """n (n - 3) HSIC_1, from sums: with K~, L~ the Gram matrices without their diagonals,
        tr(K~ L~) + 1'K~1 1'L~1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K~L~1."""
        n, product = self.n, self._product[i, j]
        trace = float((product**2).sum()) - self._squares[i, j]
        totals = [self._sum[k] @ self._sum[k] - self._square[k] for k in (i, j)]
        rows = (
            self._sum[i] @ product @ self._sum[j]
            - self._sum[i] @ self._weighted[i, j]
            - self._sum[j] @ self._weighted[j, i]
            + self._squares[i, j]
        )
        return float(trace + totals[0] * totals[1] / ((n - 1) * (n - 2)) - 2 * rows / (n - 2))


def cka_of_layers(layers: Sequence[tuple[ActivationStore, str]]) -> CKASums:
    """The sums over every readable image of the layers (stores of the same images, each with a hook)."""
    chunk = min(chunk_images(store, [hook]) for store, hook in layers)
    sums = CKASums([store.hooks[hook].d for store, hook in layers])
    for parts in zip(*(image_means(store, hook, chunk) for store, hook in layers), strict=True):
        sums.update([x for _, x in parts])
    return sums
