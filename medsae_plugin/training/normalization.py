"""MedSAE's normalisation of activations, and folding it into an SAE's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from sae_lens.saes.sae import TrainingSAE

    from medsae_plugin.activations import ActivationStore


@dataclass(frozen=True)
class CenterAndScale:
    """z = s (x - mu), with mu the training mean and s such that E||z||^2 = d (MedSAE, arXiv 2510.26411)."""

    mean: Float[Tensor, " d"]  # float64
    scale: float

    @classmethod
    def of(cls, store: ActivationStore, hook: str) -> CenterAndScale:
        """Over the rows of the training split."""
        return cls(*store.mean_and_scale(hook, split="train"))

    def __call__(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return (x - self.mean.to(x)) * self.scale

    def fold_into(self, sae: TrainingSAE[Any]) -> None:
        """Make an SAE that was trained on z take x, in place: the same latents, and reconstructions of x.

        W_enc <- s W_enc, W_dec <- W_dec / s, b_dec <- b_dec / s + mu, and where b_dec is not applied to the input
        b_enc <- b_enc - mu W_enc. This is an affine whitening by s I, which SAE-Lens folds for every architecture.
        """
        eye = torch.eye(len(self.mean), dtype=torch.float64)
        sae.fold_activation_whitening(self.mean, eye * self.scale, eye / self.scale)
