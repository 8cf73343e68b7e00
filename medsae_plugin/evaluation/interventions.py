"""What edits of latents do: to the embedding, to zero-shot findings, and against a latent drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.encoders import HookedVisionEncoder, LatentEdit, ZeroShot
    from medsae_plugin.evaluation.attribution import Attribution


class EditEffect(NamedTuple):
    """What edits changed, image by image.

    cosine: `(images,)`, of the embedding before and after.
    scores: `(images, labels)`, the zero-shot scores after less those before.
    """

    cosine: Float[Tensor, " images"]
    scores: Float[Tensor, "images labels"]


@torch.no_grad()
def effect_of_edits(
    encoder: HookedVisionEncoder,
    zero_shot: ZeroShot,
    pixel_values: Float[Tensor, "images 3 height width"],
    edits: Mapping[SAE[Any], Mapping[int, LatentEdit]],
) -> EditEffect:
    """Run the images without and with the edits; see `HookedVisionEncoder.latent_edits`."""
    before = encoder(pixel_values)
    with encoder.latent_edits(edits):
        after = encoder(pixel_values)
    return EditEffect(F.cosine_similarity(before, after), zero_shot.scores(after) - zero_shot.scores(before))


class Contrast(NamedTuple):
    """How far ablating a latent lowers a score, and a random live latent, on average over images.

    `difference` is the first less the second, `low` and `high` the bounds of its interval.
    """

    images: int
    patients: int
    latent: float
    random: float
    difference: float
    low: float
    high: float


def contrast_with_random(
    attribution: Attribution,
    latent: int,
    label: str,
    patients: np.ndarray,
    images: np.ndarray | None = None,
    *,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Contrast:
    """Ablating `latent` against ablating another live latent at random, by the fall of the zero-shot score of `label`.

    The random latent's fall is its expectation, the mean over all other live latents, not a draw. The interval is
    the percentile bootstrap over patients, all of whose images are drawn together.

    Args:
        patients: `(images,)`, the patient of each image of the attribution.
        images: `(images,)`, a mask: which to average over, such as those with the finding. By default all.

    Raises:
        MedSAEError: an unknown label, no image in the mask, no other live latent.
    """
    if label not in attribution.labels:
        raise MedSAEError(f"there is no score of {label!r}; there are {', '.join(attribution.labels)}")
    images = np.ones(len(attribution.rows), dtype=bool) if images is None else np.asarray(images, dtype=bool)
    n_others = int((attribution.live != latent).sum())
    if not images.any() or not n_others:
        raise MedSAEError("no image to average over" if n_others else "no other latent fires on these images")
    falls = attribution.ablation[:, attribution.labels.index(label)].astype(np.float64)
    is_it = attribution.latent == latent
    n = len(attribution.rows)
    mine = np.bincount(attribution.image[is_it], falls[is_it], minlength=n)[images]
    others = np.bincount(attribution.image[~is_it], falls[~is_it], minlength=n)[images] / n_others
    names, member = np.unique(np.asarray(patients)[images], return_inverse=True)
    low, high = _bootstrap(mine - others, member, len(names), draws, confidence, seed)
    mean, random = float(mine.mean()), float(others.mean())
    return Contrast(int(images.sum()), len(names), mean, random, mean - random, low, high)


def _bootstrap(
    values: np.ndarray, member: np.ndarray, n_patients: int, draws: int, confidence: float, seed: int
) -> tuple[float, float]:
    """The percentile interval of the mean, patients drawn with replacement (Efron and Tibshirani 1993, chapter 13)."""
    counts, sums = np.bincount(member, minlength=n_patients), np.bincount(member, values, minlength=n_patients)
    drawn = np.random.default_rng(seed).integers(n_patients, size=(draws, n_patients))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
