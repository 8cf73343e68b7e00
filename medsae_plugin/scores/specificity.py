"""How much of a top latent's entropy is noise, and how much of its r is its own label's."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from medsae_plugin.scores.metrics import entropy
from medsae_plugin.statistics.correlation import pearson_of

LEAST_OWN = 0.01
"""Of a label's variance, the least that the other labels must leave for a partial r: a variance inflation of 100."""
FLOOR_SHUFFLES = 50
"""Shuffles that a floor averages, at most: of a mean more would change the third digit."""
LEAST_SPARE = 10
"""Images beyond what is regressed on."""


def entropy_floor(
    activations: Float[np.ndarray, "images latents"],
    labels: Float[np.ndarray, "images labels"],
    orders: Iterable[Int[np.ndarray, " images"]],
) -> Float[np.ndarray, " latents"]:
    """The entropy that each latent would have if it followed its strongest label alone: noise is never 0.

    Its largest |r| is kept, the r with every other label are those of a shuffle of patients' labels, and the entropies
    of the shuffles are averaged. A latent whose H is at its floor is as specific as images so few can show. What it
    leaves out is co-occurrence: a latent of one finding also follows what comes with that finding, and lies above.

    Args:
        orders: of the images, as `patient_shuffles` gives them.

    Returns:
        nan where `entropy` is, and without a shuffle.
    """
    values = sparse.csr_array(activations.T.astype(np.float64))
    r = pearson_of(values, labels)
    own = np.abs(np.nan_to_num(r)).argmax(1)
    latents = np.arange(len(own))
    total, n = np.zeros(len(own)), 0
    for order in orders:
        shuffled = pearson_of(values, labels[order])
        shuffled[latents, own] = r[latents, own]
        total, n = total + entropy(shuffled), n + 1
    return total / n if n else np.full(len(own), np.nan)


def partial_r(
    activations: Float[np.ndarray, "images labels"], labels: Float[np.ndarray, "images labels"]
) -> Float[np.ndarray, " labels"]:
    """r of column c of the activations with label c given all other labels, over the images where c is known.

    The correlation of what is left of both when the others are regressed out (Pearson's partial correlation). Where
    another label is unknown, that counts as a third value of it, so no image is lost.

    Returns:
        nan where r is; where the others leave less than `LEAST_OWN` of the label's variance, as of one that is the
        absence of all others; and where there are not `LEAST_SPARE` more images than things regressed on.
    """
    return np.array([_partial(activations[:, c], labels, c) for c in range(labels.shape[1])])


def _partial(activation: np.ndarray, labels: np.ndarray, c: int) -> float:
    known = ~np.isnan(labels[:, c])
    others = np.delete(labels[known], c, axis=1)
    columns = np.column_stack([activation[known], labels[known, c], np.nan_to_num(others), np.isnan(others)])
    if len(columns) < LEAST_SPARE:
        return np.nan
    columns = columns.astype(np.float64) - columns.mean(0)
    products = columns.T @ columns
    both, across, rest = products[:2, :2], products[:2, 2:], products[2:, 2:]
    # Labels that determine one another leave the rest singular, which the pseudoinverse takes as it is.
    left = both - across @ np.linalg.pinv(rest, rcond=1e-10, hermitian=True) @ across.T
    rank = np.linalg.matrix_rank(rest, rtol=1e-10, hermitian=True) if rest.size else 0  # numpy 2.1 has none of nothing
    own = np.diag(left) > [1e-9 * both[0, 0], LEAST_OWN * both[1, 1]]
    if not own.all() or len(columns) < rank + LEAST_SPARE:
        return np.nan
    return float(np.clip(left[0, 1] / np.sqrt(left[0, 0] * left[1, 1]), -1, 1))
