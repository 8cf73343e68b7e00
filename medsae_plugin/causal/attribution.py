"""Which latents carry a zero-shot decision: gradient times activation, and exact ablation of single latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medsae_plugin.causal.passes import PixelBatches, load_saes
from medsae_plugin.causal.results import PromptSet
from medsae_plugin.encoders import HookedVisionEncoder, ZeroShot
from medsae_plugin.encoders.splicing import output_hook
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.models import Encoder


@dataclass(frozen=True)
class Attribution:
    """What each latent adds to each zero-shot score of each image, by two estimates.

    A pair is an image and a latent that fires on it; a latent that does not fire adds exactly nothing.

    Attributes:
        labels: the observations.
        n_latents: of the SAE.
        rows: `(images,)`, the images' rows in the table.
        image, latent: `(pairs,)`, `image` as an index into `rows`.
        activation: `(pairs,)`, the latent's highest over positions.
        gradient: `(pairs, labels)`, activation times the score's gradient to it, summed over positions: the first order
            of `ablation` (attribution patching, as for SAE latents in Marks et al. 2024, arXiv 2403.19647).
        ablation: `(pairs, labels)`, the score less the score of a pass in which the latent is silent everywhere.
        sae: its name. encoder, prompts: what the scores are of. unreadable_images: that are left out.
    """

    labels: tuple[str, ...]
    n_latents: int
    rows: Int[np.ndarray, " images"]
    image: Int[np.ndarray, " pairs"]
    latent: Int[np.ndarray, " pairs"]
    activation: Float[np.ndarray, " pairs"]
    gradient: Float[np.ndarray, "pairs labels"]
    ablation: Float[np.ndarray, "pairs labels"]
    sae: str = ""
    encoder: Encoder | None = None
    prompts: PromptSet | None = None
    unreadable_images: int = 0

    @property
    def live(self) -> Int[np.ndarray, " live"]:
        """The latents that fire on some image, ascending."""
        return np.unique(self.latent)

    def mean(
        self, effects: Float[np.ndarray, "pairs labels"], images: Bool[np.ndarray, " images"] | None = None
    ) -> Float[np.ndarray, "live labels"]:
        """The mean over images (all, or those of a mask) of `gradient` or `ablation`, of each live latent."""
        images = np.ones(len(self.rows), dtype=bool) if images is None else images
        kept = images[self.image]
        total = np.zeros((len(self.live), len(self.labels)))
        np.add.at(total, np.searchsorted(self.live, self.latent[kept]), effects[kept])
        return total / max(images.sum(), 1)

    def agreement(self) -> dict[str, float]:
        """Spearman's correlation over live latents of the two estimates' means, by observation.

        nan with fewer than three live latents.
        """
        from scipy.stats import spearmanr

        if len(self.live) < 3:
            return dict.fromkeys(self.labels, float("nan"))
        gradient, ablation = self.mean(self.gradient), self.mean(self.ablation)
        values = [float(spearmanr(g, a).statistic) for g, a in zip(gradient.T, ablation.T, strict=True)]
        return dict(zip(self.labels, values, strict=True))


def attribute(
    encoder: HookedVisionEncoder,
    sae: Any,
    zero_shot: ZeroShot,
    batches: PixelBatches,
) -> Attribution:
    """The part of every latent in every zero-shot score of the images.

    The SAE is spliced in with the error term, so the scores are those of the encoder alone. Ablation runs the encoder
    once for each image and latent that fires on it.

    Args:
        sae: an SAE, a folder of one, or what `train_saes` returned of one.

    Raises:
        MedSAEError: several SAEs, one that does not fit the encoder, no latent that fires, no image that can be read.
    """
    named = load_saes(encoder, sae)
    if len(named) > 1:
        raise MedSAEError(f"attribution is to one SAE at a time; choose one of {', '.join(named)}")
    ((name, sae),) = named.items()
    acts = f"{output_hook(sae)}.hook_sae_acts_post"
    parts: list[list[np.ndarray]] = []
    rows: list[int] = []
    with encoder.saes([sae], use_error_term=True):
        for batch_rows, pixels in batches.run("attributing"):
            fired, gradient = _gradients(encoder, zero_shot, pixels, acts)
            highest = fired if fired.ndim == 2 else fired.amax(1)
            fires = fired != 0 if fired.ndim == 2 else (fired != 0).any(1)
            image, latent = fires.nonzero(as_tuple=True)
            ablation = _ablations(encoder, zero_shot, pixels, acts, image, latent, batches.batch_size)
            of_pairs = (image + len(rows), latent, highest[image, latent], gradient[:, image, latent].T, ablation)
            parts.append([t.cpu().numpy() for t in of_pairs])
            rows += batch_rows
    images, latents, activation, gradients, ablations = (np.concatenate(part) for part in zip(*parts, strict=True))
    if not len(images):
        raise MedSAEError("no latent of the SAE fires on these images, so there is nothing to attribute to")
    return Attribution(
        zero_shot.labels,
        int(sae.cfg.d_sae),
        np.array(rows),
        images,
        latents,
        activation,
        gradients,
        ablations,
        sae=name,
        encoder=Encoder(name=encoder.name, weights_sha256=encoder.weights_sha256),
        prompts=PromptSet(name=zero_shot.prompts.name, source=zero_shot.prompts.source),
        unreadable_images=len(batches.failures),
    )


def _gradients(
    encoder: HookedVisionEncoder, zero_shot: ZeroShot, pixels: Tensor, acts: str
) -> tuple[Float[Tensor, "images *position latents"], Float[Tensor, "labels images latents"]]:
    """The latents, and gradient times activation summed over positions."""
    with _kept(encoder, acts) as kept, torch.enable_grad():
        scores = zero_shot.scores(encoder(pixels))
    (latents,) = kept
    products = []
    for c in range(scores.shape[1]):
        (gradient,) = torch.autograd.grad(scores[:, c].sum(), latents, retain_graph=True)
        product = (gradient * latents).detach()
        products.append(product if product.ndim == 2 else product.sum(1))
    return latents.detach(), torch.stack(products)


@contextmanager
def _kept(encoder: HookedVisionEncoder, hook: str) -> Iterator[list[Tensor]]:
    """Makes the activation at a hook the graph's beginning, and keeps it."""
    kept: list[Tensor] = []

    def begin(activation: Tensor, hook: Any) -> Tensor:
        kept.append(activation.detach().requires_grad_())
        return kept[-1]

    with encoder.hooks(fwd_hooks=[(hook, begin)]):
        yield kept


@torch.no_grad()
def _ablations(
    encoder: HookedVisionEncoder,
    zero_shot: ZeroShot,
    pixels: Tensor,
    acts: str,
    image: Tensor,
    latent: Tensor,
    batch_size: int,
) -> Float[Tensor, "pairs labels"]:
    """The score less the score without the latent, for each image and latent."""
    whole = zero_shot.scores(encoder(pixels))
    if not len(image):
        return whole[:0]
    without = []
    for images, silent in zip(image.split(batch_size), latent.split(batch_size), strict=True):
        with encoder.hooks(fwd_hooks=[(acts, _silencing(silent))]):
            without.append(zero_shot.scores(encoder(pixels[images])))
    return whole[image] - torch.cat(without)


def _silencing(latent: Int[Tensor, " batch"]) -> Callable[[Tensor, Any], Tensor]:
    """A hook that silences one latent of each image, the same or another."""

    def silence(latents: Tensor, hook: Any) -> Tensor:
        index = latent.view(-1, *[1] * (latents.ndim - 1)).expand(*latents.shape[:-1], 1)
        return latents.scatter(-1, index, 0.0)

    return silence
