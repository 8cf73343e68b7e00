"""What chance does: a permutation null over patients, not images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import sparse

from medsae_plugin.scores.metrics import pearson_of

# Elements of the largest temporary array, which bounds memory whatever the number of images.
_CHUNK_ELEMENTS = 2**24


def patient_shuffles(
    patients: Sequence[str] | Shaped[np.ndarray, " images"], n: int, seed: int = 0
) -> Iterator[Int[np.ndarray, " images"]]:
    """`n` orders of the images under which whole patients exchange their labels: `labels[order]` are the shuffled ones.

    Patients exchange with patients of as many images, so the labels of one patient stay together. Those whose number
    of images nobody shares exchange theirs laid end to end.
    """
    _, code = np.unique(np.asarray(patients), return_inverse=True)
    by_patient = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    sizes = np.array([len(rows) for rows in by_patient])
    shared = np.bincount(sizes)[sizes] > 1
    strata = [np.flatnonzero(shared & (sizes == size)) for size in np.unique(sizes[shared])]
    strata += [np.flatnonzero(~shared)] if (~shared).any() else []
    rng = np.random.default_rng(seed)
    for _ in range(n):
        order = np.empty(len(code), dtype=np.int64)
        for members in strata:
            shuffled = rng.permutation(members)
            order[np.concatenate([by_patient[p] for p in members])] = np.concatenate([by_patient[p] for p in shuffled])
        yield order


def permutation_null(
    blocks: Iterable[sparse.csc_array],
    labels: Float[np.ndarray, "images labels"],
    patients: Sequence[str] | Shaped[np.ndarray, " images"],
    n_permutations: int = 200,
    seed: int = 0,
) -> Float[np.ndarray, "permutations labels"]:
    """The largest Pearson r of any latent with each label, when patients' labels are shuffled.

    Computed as matrix products of all latents with many shuffled labels at once.

    Args:
        blocks: the columns of the latents, block by block, `(images, latents)`.

    Returns:
        nan where no latent has an r, as for a label without positives.
    """
    n_images, n_labels = labels.shape
    values = [sparse.csr_array(block.T.astype(np.float64)) for block in blocks]
    widest = max((v.shape[0] for v in values), default=0)
    per_chunk = max(1, _CHUNK_ELEMENTS // max(1, n_labels * max(n_images, widest)))
    orders = patient_shuffles(patients, n_permutations, seed)
    largest = np.full((n_permutations, n_labels), np.nan)
    for first in range(0, n_permutations, per_chunk):
        count = min(per_chunk, n_permutations - first)
        shuffled = np.concatenate([labels[order] for order in islice(orders, count)], axis=1)
        for latents in values:
            r = np.fmax.reduce(pearson_of(latents, shuffled), axis=0, initial=np.nan).reshape(count, n_labels)
            largest[first : first + count] = np.fmax(largest[first : first + count], r)
    return largest


def permutation_p(observed: Float[np.ndarray, " labels"], null: Float[np.ndarray, "permutations labels"]) -> np.ndarray:
    """(1 + permutations whose largest r reaches the observed) / (1 + permutations), as Phipson and Smyth (2010)."""
    reached = (null >= observed).sum(0)
    return np.where(np.isnan(observed) | np.isnan(null).all(0), np.nan, (1 + reached) / (1 + len(null)))
