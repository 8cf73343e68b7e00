"""Scores of latents as pure functions of `LatentStatistics`. What is undefined is nan, never 0."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from medsae_plugin.evaluation.statistics import LatentStatistics


def pearson(statistics: LatentStatistics) -> Float[np.ndarray, "latents labels"]:
    """Pearson's r of each latent with each label, over the images where the label is known.

    With labels in {0, 1} this is the point-biserial correlation; MedSAE (arXiv 2510.26411), correlation analysis.
    nan where the latent or the label is constant over those images (a dead latent, a label with no positives), or
    where fewer than two are known. A latent counts as constant when its deviation is rounding error of its mean.
    """
    known, p = statistics.known.numpy(), statistics.mean_label.numpy()
    scatter, mean = statistics.scatter.numpy(), statistics.mean.numpy()
    label_scatter = known * p * (1 - p)
    varies = (scatter > known * (1e-13 * np.abs(mean)) ** 2) & (label_scatter > 0) & (known > 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = statistics.cross.numpy() / np.sqrt(scatter * label_scatter)
    return np.where(varies, np.clip(r, -1, 1), np.nan)


def entropy(r: Float[np.ndarray, "latents labels"]) -> Float[np.ndarray, " latents"]:
    """Entropy of a latent over the labels, in nats: H_j = -sum_c p_jc ln p_jc with p_jc = |r_jc| / sum_c |r_jc|.

    MedSAE (arXiv 2510.26411), entropy analysis. 0 for a latent that follows one label, ln C for one that follows all C
    alike: low is monosemantic. A label whose r is nan counts as r = 0; a latent with no r at all has entropy nan.
    """
    weight = np.abs(np.nan_to_num(r))
    total = weight.sum(1, keepdims=True)
    p = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    h = -(p * np.log(p, out=np.zeros_like(p), where=p > 0)).sum(1)
    return np.where(total[:, 0] > 0, np.abs(h), np.nan)


def top_latent(r: Float[np.ndarray, "latents labels"]) -> Int[np.ndarray, " labels"]:
    """For each label the latent of the largest r (the lowest index on a tie); -1 where no latent has an r."""
    filled = np.where(np.isnan(r), -np.inf, r)
    return np.where(np.isfinite(filled.max(0)), filled.argmax(0), -1)
