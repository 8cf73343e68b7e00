"""The k strongest images of every latent, followed batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Strongest:
    """Per latent the k images of the largest positive activations, strongest first; a lower image id wins a tie.

    values: `(latents, k)`, 0 where fewer than k images are positive; images: `(latents, k)`, -1 there.
    """

    values: Float[np.ndarray, "latents k"]
    images: Int[np.ndarray, "latents k"]

    @classmethod
    def none(cls, n_latents: int, k: int) -> Strongest:
        return cls(np.zeros((n_latents, k)), np.full((n_latents, k), -1, dtype=np.int64))

    @classmethod
    def of(
        cls,
        latent: Int[np.ndarray, " values"],
        value: Float[np.ndarray, " values"],
        image: Int[np.ndarray, " values"],
        n_latents: int,
        k: int,
    ) -> Strongest:
        """Of activations given one by one: whose, how strong, on which image."""
        result = cls.none(n_latents, k)
        positive = np.flatnonzero(value > 0)
        order = positive[np.lexsort((image[positive], -value[positive], latent[positive]))]
        latent = latent[order]
        rank = np.arange(len(order)) - np.searchsorted(latent, latent)
        kept = rank < k
        result.values[latent[kept], rank[kept]] = value[order][kept]
        result.images[latent[kept], rank[kept]] = image[order][kept]
        return result

    def merge(self, other: Strongest) -> Strongest:
        """The strongest of both."""
        n_latents, k = self.values.shape
        latent = np.repeat(np.arange(n_latents), 2 * k)
        value = np.concatenate([self.values, other.values], axis=1).ravel()
        image = np.concatenate([self.images, other.images], axis=1).ravel()
        return Strongest.of(latent, value, image, n_latents, k)
