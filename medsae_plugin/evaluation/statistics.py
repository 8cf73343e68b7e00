"""Sums over images from which every score of a latent follows; they merge, so sites can share sums, not images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medsae_plugin.errors import MedSAEError


class LatentStatistics:
    """Moments of latents and labels over images, per label over the images where that label is known.

    Attributes, float64, with L latents and C labels:
        known, mean_label: `(C,)`, the images where the label is known and the share of them that are positive
        mean, scatter: `(L, C)`, a latent's mean over those images, and its sum of squared deviations
        cross: `(L, C)`, sum over those images of (latent - mean)(label - mean_label)
        fired: `(L,)` images on which the latent is above zero; maximum: `(L,)`; n_images

    Means and central moments follow Chan, Golub and LeVeque (1983), so merging parts gives what one pass over all
    images gives, up to rounding, and a large offset of an activation does not cancel its variance.
    """

    def __init__(self, n_latents: int, label_names: Sequence[str]) -> None:
        shape = (n_latents, len(label_names))
        self.label_names = tuple(label_names)
        self.n_latents = n_latents
        self.n_images = 0
        self.known = torch.zeros(shape[1], dtype=torch.float64)
        self.mean_label = torch.zeros(shape[1], dtype=torch.float64)
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self.scatter = torch.zeros(shape, dtype=torch.float64)
        self.cross = torch.zeros(shape, dtype=torch.float64)
        self.fired = torch.zeros(n_latents, dtype=torch.float64)
        self.maximum = torch.full((n_latents,), -torch.inf, dtype=torch.float64)

    def update(self, activations: Float[Tensor, "images latents"], labels: Float[np.ndarray, "images labels"]) -> None:
        """Add images: one activation a latent, and labels in {0, 1, nan = unknown}.

        Raises:
            MedSAEError: shapes that do not fit, activations that are not finite, labels outside {0, 1, nan}.
        """
        a = activations.detach().cpu().double()
        y = torch.as_tensor(np.asarray(labels, dtype=np.float64))
        if a.shape != (len(a), self.n_latents) or y.shape != (len(a), len(self.label_names)):
            raise MedSAEError(
                f"activations {tuple(a.shape)} and labels {tuple(y.shape)} do not fit {self.n_latents} latents and "
                f"{len(self.label_names)} labels"
            )
        if not torch.isfinite(a).all():
            raise MedSAEError("activations hold nan or infinity; check the encoder's weights and the SAE")
        unknown = y.isnan()
        if not (unknown | (y == 0) | (y == 1)).all():
            raise MedSAEError("labels must be 0, 1 or nan (unknown); choose a policy for uncertain ones when reading")
        if len(a) == 0:
            return
        self.merge(self._of_batch(a, y.nan_to_num(0.0), (~unknown).double()))

    def _of_batch(self, a: Tensor, y: Tensor, known: Tensor) -> LatentStatistics:
        part = LatentStatistics(self.n_latents, self.label_names)
        centre = a.mean(0, keepdim=True)
        shifted = a - centre
        n = known.sum(0)
        count = n.clamp(min=1)
        total, positives = shifted.T @ known, y.sum(0)
        part.n_images = len(a)
        part.known = n
        part.mean_label = positives / count
        part.mean = (centre.T + total / count) * (n > 0)
        part.scatter = (shifted.square().T @ known - total.square() / count).clamp(min=0)
        part.cross = shifted.T @ y - total * (positives / count)
        part.fired = (a > 0).sum(0).double()
        part.maximum = a.amax(0)
        return part

    def merge(self, other: LatentStatistics) -> None:
        """Add the images of `other`, in place.

        Raises:
            MedSAEError: `other` has other latents or labels.
        """
        if (self.n_latents, self.label_names) != (other.n_latents, other.label_names):
            raise MedSAEError(
                f"cannot merge statistics of {self.n_latents} latents and labels {self.label_names} "
                f"with {other.n_latents} latents and labels {other.label_names}"
            )
        n = self.known + other.known
        share = other.known / n.clamp(min=1)
        weight = self.known * share  # n_a n_b / n
        latent_gap, label_gap = other.mean - self.mean, other.mean_label - self.mean_label
        self.scatter = self.scatter + other.scatter + latent_gap.square() * weight
        self.cross = self.cross + other.cross + latent_gap * (label_gap * weight)
        self.mean = self.mean + latent_gap * share
        self.mean_label = self.mean_label + label_gap * share
        self.known = n
        self.fired = self.fired + other.fired
        self.maximum = torch.maximum(self.maximum, other.maximum)
        self.n_images += other.n_images

    @property
    def positives(self) -> Float[Tensor, " labels"]:
        """Images on which each label is present."""
        return (self.known * self.mean_label).round()
