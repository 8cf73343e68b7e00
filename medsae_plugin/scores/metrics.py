"""Scores of latents as pure functions of `LatentStatistics`. What is undefined is nan, never 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from medsae_plugin.scores.sums import LatentStatistics

DENSE = 0.1  # a latent that fires on a larger share of images is dense
DENSITY_EDGES = np.linspace(-6, 0, 25)  # of log10 density
BAND_EDGES = DENSITY_EDGES[::2]  # half a decade each


def pearson(statistics: LatentStatistics) -> Float[np.ndarray, "latents labels"]:
    """Pearson's r of each latent with each label, over the images where the label is known.

    With labels in {0, 1} this is the point-biserial correlation; MedSAE (arXiv 2510.26411), correlation analysis.
    nan where the latent or the label is constant over those images (a dead latent, a label with no positives), or
    where fewer than two are known. A latent counts as constant when its deviation is rounding error of its mean.
    """
    known, p = statistics.known, statistics.mean_label
    label_scatter = known * p * (1 - p)
    rounding = known * (1e-13 * np.abs(statistics.mean)) ** 2
    varies = (statistics.scatter > rounding) & (label_scatter > 0) & (known > 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = statistics.cross / np.sqrt(statistics.scatter * label_scatter)
    return np.where(varies, np.clip(r, -1, 1), np.nan)


def entropy(r: Float[np.ndarray, "latents labels"]) -> Float[np.ndarray, " latents"]:
    """Entropy of a latent over the labels, in nats: H_j = -sum_c p_jc ln p_jc with p_jc = |r_jc| / sum_c |r_jc|.

    MedSAE (arXiv 2510.26411), entropy analysis. 0 for a latent that follows one label, ln C for one that follows all C
    alike: low is monosemantic. A label whose r is nan counts as r = 0; a latent has entropy nan that has an r with
    fewer than two labels: with one there is nothing to choose between.
    """
    weight = np.abs(np.nan_to_num(r))
    total = weight.sum(1, keepdims=True)
    p = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    h = -(p * np.log(p, out=np.zeros_like(p), where=p > 0)).sum(1)
    return np.where((total[:, 0] > 0) & ((~np.isnan(r)).sum(1) > 1), np.abs(h), np.nan)


def top_latent(
    r: Float[np.ndarray, "latents labels"], eligible: np.ndarray | None = None
) -> Int[np.ndarray, " labels"]:
    """For each label the latent of the largest r (the lowest index on a tie); -1 where no latent has an r.

    Args:
        eligible: `(latents,)` bool, those to choose from; default all.
    """
    filled = np.where(np.isnan(r), -np.inf, r)
    if eligible is not None:
        filled[~eligible] = -np.inf
    return np.where(np.isfinite(filled.max(0)), filled.argmax(0), -1)


def selectivity(statistics: LatentStatistics) -> Float[np.ndarray, "latents labels"]:
    """Mean activation where the label is present less the mean where it is absent, over known images.

    nan where a label has no positives or no negatives.
    """
    p = statistics.mean_label
    spread = statistics.known * p * (1 - p)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 0, statistics.cross / spread, np.nan)


def firing_detection(statistics: LatentStatistics) -> dict[str, Float[np.ndarray, "latents labels"]]:
    """`precision`, `recall` and `f1` of "the latent fires" for "the label is present"; see `detection`."""
    return detection(statistics.fired_positive, statistics.fired_known, statistics.positives)


def detection(true_positives: np.ndarray, predicted: np.ndarray, positives: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 from counts that broadcast to `(latents, labels)`.

    nan: precision where nothing is predicted; recall and F1 where nothing is positive. F1 is 0 where there are
    positives and none is found.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "precision": np.where(predicted > 0, true_positives / predicted, np.nan),
            "recall": np.where(positives > 0, true_positives / positives, np.nan),
            "f1": np.where(positives > 0, 2 * true_positives / (predicted + positives), np.nan),
        }


def monosemanticity(statistics: LatentStatistics) -> Float[np.ndarray, " latents"]:
    """Monosemanticity score (Pach et al. 2025, arXiv 2504.02821): the mean cosine of image pairs,
    weighted by both activations.

    With activations min-max scaled per latent to a' and unit embeddings e_i, in one pass and without pairs:
    MS_j = (||sum_i a'_ij e_i||^2 - sum_i a'_ij^2) / ((sum_i a'_ij)^2 - sum_i a'_ij^2). nan for a constant latent,
    for one that is above its minimum on one image alone, and where no embeddings were summed.
    """
    n, low = statistics.n_images, statistics.minimum
    span = statistics.maximum - low
    if statistics.d_embedding == 0 or n < 2:
        return np.full(statistics.n_latents, np.nan)
    shift = np.where(span > 0, low, 0.0)
    scaled_sum = n * (statistics.overall_mean - shift)
    squares = statistics.overall_scatter + n * (statistics.overall_mean - shift) ** 2
    directed = statistics.embedding_sum - shift[:, None] * statistics.embedding_total
    pairs = scaled_sum**2 - squares
    with np.errstate(invalid="ignore", divide="ignore"):
        score = ((directed**2).sum(1) - squares) / pairs
    # With one image above the minimum, both sides are rounding error of sums of that size.
    return np.where((span > 0) & (pairs > 1e-9 * squares), np.clip(score, -1, 1), np.nan)


def expected_top_r(
    r_select: Float[np.ndarray, "units labels"],
    r: Float[np.ndarray, "units labels"],
    eligible: Bool[np.ndarray, " units"],
    n: int,
) -> Float[np.ndarray, " labels"]:
    """r of each label's top unit where it is chosen among `n` of the eligible units: the mean over all draws of them.

    Nothing is drawn: of E units in the order of r on `select`, the i-th (from 0) is the best of n drawn with
    probability C(E - 1 - i, n - 1) / C(E, n). All of them where there are no more than n. A unit without an r is never
    chosen, and counts as r = 0 where it is silent on `report`, as in `mean_top_r`.
    """
    n_alive = int(eligible.sum())
    n = min(n, n_alive)
    if n == 0:
        return np.zeros(r.shape[1])
    best = np.zeros(n_alive)
    best[0] = n / n_alive
    for i in range(n_alive - n):
        best[i + 1] = best[i] * (n_alive - n - i) / (n_alive - 1 - i)
    chosen = r_select[eligible]
    reported = np.where(np.isnan(chosen), 0.0, np.nan_to_num(r[eligible]))
    order = np.argsort(-np.where(np.isnan(chosen), -np.inf, chosen), axis=0, kind="stable")
    return best @ np.take_along_axis(reported, order, axis=0)


def density(statistics: LatentStatistics) -> Float[np.ndarray, " latents"]:
    """The share of images on which each latent fires; nan without images."""
    return statistics.fired / statistics.n_images if statistics.n_images else np.full(statistics.n_latents, np.nan)


def sparsity(statistics: LatentStatistics) -> dict[str, float]:
    """Over images: `l0`, the mean count of latents above zero; `dead` and `dense`, the share of latents that fire on
    none, and on more than a tenth. nan without images."""
    share = density(statistics)
    if statistics.n_images == 0:
        return dict.fromkeys(("l0", "dead", "dense"), float("nan"))
    return {"l0": float(share.sum()), "dead": float((share == 0).mean()), "dense": float((share > DENSE).mean())}


def density_histogram(statistics: LatentStatistics) -> Int[np.ndarray, " bins"]:
    """Counts of latents by log10 density, between `DENSITY_EDGES`.

    Dead latents are in no bin, those rarer than 1e-6 in the first.
    """
    share = density(statistics)
    logs = np.log10(share[share > 0])
    return np.histogram(np.clip(logs, DENSITY_EDGES[0], DENSITY_EDGES[-1]), DENSITY_EDGES)[0]


def density_bands(share: Float[np.ndarray, " latents"]) -> Int[np.ndarray, " latents"]:
    """The band of `BAND_EDGES` that each latent's density is in, -1 for a dead one; at an edge it is the one above."""
    logs = np.log10(share, out=np.full(share.shape, -np.inf), where=share > 0)
    bands = np.clip(np.searchsorted(BAND_EDGES, logs, side="right") - 1, 0, len(BAND_EDGES) - 2)
    return np.where(share > 0, bands, -1)


def mean_ranks(figures: Sequence[Mapping[str, Any]], larger_is_better: Mapping[str, bool]) -> list[float | None]:
    """The mean rank of each SAE over figures (MedSAE, arXiv 2510.26411): 1 is best, ties share their mean rank.

    A figure that an SAE lacks (None or nan) ranks last there. None for all where there is nothing to rank.

    Args:
        figures: for each SAE its figures by name.
        larger_is_better: which figures to rank by, and in which direction.
    """
    if not figures or not larger_is_better:
        return [None] * len(figures)
    ranks = []
    for name, larger in larger_is_better.items():
        values = np.array([np.nan if f.get(name) is None else f[name] for f in figures], dtype=np.float64)
        signed = np.where(np.isnan(values), np.inf, -values if larger else values)
        ranks.append(stats.rankdata(signed))
    return [float(rank) for rank in np.mean(ranks, axis=0)]
