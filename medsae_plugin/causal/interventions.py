"""What edits of latents do: to the embedding, to zero-shot findings, and against a latent drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from medsae_plugin.errors import MedSAEError
from medsae_plugin.statistics.bootstrap import studentised_interval
from medsae_plugin.statistics.intervals import FEW_WITH, LEAST_PATIENTS

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.causal.attribution import Attribution
    from medsae_plugin.encoders import HookedVisionEncoder, LatentEdit, ZeroShot

NO_SPREAD = "the latent fires on too few of the patients"


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
    """How far a score falls when a latent is ablated, and when a random live latent is, on average over images.

    `difference` is `fall` less `random_fall`, `low` and `high` the bounds of its interval; nan where there is none, and
    `no_interval` says why.
    """

    images: int
    patients: int
    fall: float
    random_fall: float
    difference: float
    low: float
    high: float
    no_interval: str | None = None


def contrast_with_random(
    attribution: Attribution,
    latent: int | Int[np.ndarray, " images"],
    label: str,
    patients: np.ndarray,
    images: np.ndarray | None = None,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Contrast:
    """Ablating `latent` against ablating another live latent at random, by the fall of the zero-shot score of `label`.

    The random latent's fall is its expectation, the mean over all other live latents, not a draw. The interval of 95 %
    is that of `studentised_interval`, over patients; there is none of fewer than 10 patients, and of a latent that
    fires on so few of them that resamples lack a spread.

    Args:
        latent: of all images, or of each its own, as of cross-fitting.
        patients: `(images,)`, the patient of each image of the attribution.
        images: `(images,)`, a mask: which to average over, such as those with the finding. By default all.

    Raises:
        MedSAEError: an unknown label, no image in the mask, no other live latent.
    """
    if label not in attribution.labels:
        raise MedSAEError(f"there is no score of {label!r}; there are {', '.join(attribution.labels)}")
    images = np.ones(len(attribution.rows), dtype=bool) if images is None else np.asarray(images, dtype=bool)
    n = len(attribution.rows)
    of_image = np.broadcast_to(latent, n)
    n_others = (len(attribution.live) - np.isin(of_image, attribution.live))[images]
    if not images.any() or not n_others.all():
        raise MedSAEError("no image to average over" if n_others.all() else "no other latent fires on these images")
    falls = attribution.ablation[:, attribution.labels.index(label)].astype(np.float64)
    is_it = attribution.latent == of_image[attribution.image]
    mine = np.bincount(attribution.image[is_it], falls[is_it], minlength=n)[images]
    others = np.bincount(attribution.image[~is_it], falls[~is_it], minlength=n)[images] / n_others
    _, whose, counts = np.unique(np.asarray(patients)[images], return_inverse=True, return_counts=True)
    low, high, why = float("nan"), float("nan"), None if len(counts) >= LEAST_PATIENTS else FEW_WITH
    if why is None:
        totals = np.bincount(whose, mine - others)
        low, high = studentised_interval(totals, counts.astype(np.float64), n_resamples, seed)
        why = NO_SPREAD if np.isnan(low) else None
    fall, random_fall = float(mine.mean()), float(others.mean())
    return Contrast(len(whose), len(counts), fall, random_fall, fall - random_fall, low, high, why)
