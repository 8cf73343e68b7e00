"""Scores that need an exact ranking of images by a latent: AUROC, average precision, thresholds at a quantile.

They take columns of a `LatentMatrix`, nonzeros alone: images at 0 are one tie, which is placed without being listed, so
a latent costs as much as its nonzeros.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse

from medsae_plugin.scores.metrics import detection


class _Ties(NamedTuple):
    """Groups of images of equal activation in one latent, strongest first, latent by latent."""

    latent: np.ndarray  # (groups,)
    positives: np.ndarray  # (groups, labels), images in the group where the label is present
    negatives: np.ndarray  # and absent
    first: np.ndarray  # (latents,) each latent's first group


def auroc_and_average_precision(
    columns: sparse.csc_array, labels: Float[np.ndarray, "images labels"]
) -> tuple[Float[np.ndarray, "latents labels"], Float[np.ndarray, "latents labels"]]:
    """AUROC and average precision of each latent for each label, over the images where the label is known.

    AUROC is Mann and Whitney's statistic, ties counted half; average precision is sum_n (R_n - R_(n-1)) P_n over
    thresholds (Zhu 2004), as in scikit-learn. nan where a label has no positives, and AUROC where it has no negatives.
    A constant latent has AUROC 0.5, and the label's prevalence as average precision.
    """
    ties = _ties(columns, labels)
    above_positives, above_negatives = _before(ties.positives, ties), _before(ties.negatives, ties)
    pairs_won = ties.negatives * (above_positives + ties.positives / 2)
    found, shown = above_positives + ties.positives, above_positives + above_negatives + ties.positives + ties.negatives
    gain = ties.positives * np.divide(found, shown, out=np.zeros_like(found), where=shown > 0)
    positives, negatives = (labels == 1).sum(0), (labels == 0).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = np.add.reduceat(pairs_won, ties.first, axis=0) / (positives * negatives)
        precision = np.add.reduceat(gain, ties.first, axis=0) / positives
    return auroc, precision


def aurocs(
    scores: Float[np.ndarray, "images labels"], labels: Float[np.ndarray, "images labels"]
) -> Float[np.ndarray, " labels"]:
    """The AUROC of each column of scores for its own label, as `auroc_and_average_precision`."""
    columns = [(sparse.csc_array(scores[:, [c]]), labels[:, [c]]) for c in range(labels.shape[1])]
    return np.array([auroc_and_average_precision(s, y)[0].item() for s, y in columns])


def thresholds(columns: sparse.csc_array, q: float = 0.3) -> Float[np.ndarray, " latents"]:
    """Each latent's (1 - q) quantile (linear) of its positive activations; inf for one that never is positive."""
    values = np.where(columns.data > 0, columns.data, np.inf).astype(np.float64)
    latent = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))
    values = values[np.lexsort((values, latent))]
    n = np.bincount(latent[columns.data > 0], minlength=columns.shape[1])
    place = (1 - q) * np.maximum(n - 1, 0)
    low = columns.indptr[:-1] + np.floor(place).astype(np.int64)
    values = np.append(values, np.inf)
    at, above = (
        values[np.where(n > 0, low, -1)],
        values[np.where(n > 1, np.minimum(low + 1, columns.indptr[:-1] + n - 1), -1)],
    )
    part = place - np.floor(place)
    return np.where(n > 1, at * (1 - part) + np.where(part > 0, above, 0) * part, at)


def detection_above(
    columns: sparse.csc_array,
    threshold: Float[np.ndarray, " latents"],
    labels: Float[np.ndarray, "images labels"],
) -> dict[str, Float[np.ndarray, "latents labels"]]:
    """`precision`, `recall` and `f1` of "the activation exceeds the latent's threshold", over known images.

    Thresholds are not negative. See `metrics.detection` for what is undefined.
    """
    latent = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))
    fires = (columns.data > threshold[latent]).astype(np.float64)
    firing = sparse.csc_array((fires, columns.indices, columns.indptr), shape=columns.shape)
    present = (labels == 1).astype(np.float64)
    known = (~np.isnan(labels)).astype(np.float64)
    return detection(firing.T @ present, firing.T @ known, present.sum(0))


def _ties(columns: sparse.csc_array, labels: np.ndarray) -> _Ties:
    """The groups of each latent, its images at 0 as one more group, even where it is empty."""
    n_latents = columns.shape[1]
    present, absent = (labels == 1).astype(np.float64), (labels == 0).astype(np.float64)
    latent = np.repeat(np.arange(n_latents), np.diff(columns.indptr))
    rest_present = present.sum(0) - _per_latent(columns, present)
    rest_absent = absent.sum(0) - _per_latent(columns, absent)
    order_latent = np.concatenate([latent, np.arange(n_latents)])
    order_value = np.concatenate([columns.data.astype(np.float64), np.zeros(n_latents)])
    order = np.lexsort((-order_value, order_latent))
    order_latent, order_value = order_latent[order], order_value[order]
    starts = np.flatnonzero(np.diff(order_latent, prepend=-1) | np.diff(order_value, prepend=np.nan).astype(bool))
    group_latent = order_latent[starts]

    def grouped(indicator: np.ndarray, rest: np.ndarray) -> np.ndarray:
        images = np.concatenate([indicator[columns.indices], rest])[order]
        return images if len(starts) == len(images) else np.add.reduceat(images, starts, axis=0)

    return _Ties(
        group_latent,
        grouped(present, rest_present),
        grouped(absent, rest_absent),
        np.searchsorted(group_latent, np.arange(n_latents)),
    )


def _per_latent(columns: sparse.csc_array, indicator: np.ndarray) -> np.ndarray:
    nonzero = sparse.csc_array(
        (np.ones_like(columns.data, dtype=np.float64), columns.indices, columns.indptr), shape=columns.shape
    )
    return nonzero.T @ indicator


def _before(counts: np.ndarray, ties: _Ties) -> np.ndarray:
    """What comes before each group within its latent."""
    running = np.cumsum(counts, axis=0) - counts
    return running - running[ties.first][ties.latent]
