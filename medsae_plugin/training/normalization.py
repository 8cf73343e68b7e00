"""MedSAE's normalisation of activations, and the SAE of raw activations that is saved of one in training."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from medsae_plugin.sae_folders import save_sae
from medsae_plugin.store.reader import ActivationStore

if TYPE_CHECKING:
    from sae_lens import SAE, AbsTopKSAE, TopKSAE
    from sae_lens.saes.sae import TrainingSAE
    from sae_lens.training.activation_scaler import ActivationScaler


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

    def fold_into(self, sae: SAE[Any]) -> None:
        """Make an SAE that was trained on z take x, in place: the same latents, and reconstructions of x.

        W_enc <- s W_enc, W_dec <- W_dec / s, b_dec <- b_dec / s + mu, and where b_dec is not applied to the input
        b_enc <- b_enc - mu W_enc. This is an affine whitening by s I, which SAE-Lens folds for every architecture.
        """
        eye = torch.eye(len(self.mean), dtype=torch.float64)
        sae.fold_activation_whitening(self.mean, eye * self.scale, eye / self.scale)


def save_of_raw(sae: TrainingSAE[Any], center: CenterAndScale | None, scaler: ActivationScaler, folder: Path) -> None:
    """Save an SAE as it is now for use on raw activations, in SAE-Lens's format; the one in training stays as it is.

    Args:
        center, scaler: what its activations are normalised by, MedSAE's and SAE-Lens's, both of which may be nothing.
    """
    from sae_lens import SAE, AbsTopKSAE

    raw = copy.deepcopy(sae).to(device="cpu")  # folding is in float64, which not every device has
    if scaler.scaling_factor is not None:
        raw.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if (whitening := scaler.whitening) is not None:
        raw.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
    if center is not None:
        center.fold_into(raw)
    save_sae(raw, folder)
    if isinstance(saved := SAE.load_from_disk(folder), AbsTopKSAE):
        save_sae(split_by_sign(saved), folder)


@torch.no_grad()
def split_by_sign(sae: AbsTopKSAE) -> TopKSAE:
    """The same SAE with two latents for each signed one: latent j where it is above 0, K + j its negative.

    Of h and -h the k largest, none below 0, are the k of h that are largest by magnitude: a top-k SAE of 2K latents
    that reconstructs what the abstopk SAE of K does (arXiv 2510.00404), and whose latents are at least 0.
    """
    from sae_lens import TopKSAE, TopKSAEConfig

    settings = {key: value for key, value in vars(sae.cfg).items() if key != "d_sae"}
    both = TopKSAE(TopKSAEConfig(d_sae=2 * sae.cfg.d_sae, **settings))
    both.W_enc.copy_(torch.cat([sae.W_enc, -sae.W_enc], dim=1))
    both.b_enc.copy_(torch.cat([sae.b_enc, -sae.b_enc]))
    both.W_dec.copy_(torch.cat([sae.W_dec, -sae.W_dec]))
    both.b_dec.copy_(sae.b_dec)
    return both
