"""Who exchanges labels with whom when chance is tried: whole patients, with patients of about as many images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import sparse

from medsae_plugin.statistics.correlation import pearson_from_sums, pearson_of

LEAST_IN_BAND = 10  # patients; with fewer, the band takes in the next size
WIDEST = 2.0  # a band whose largest patient has more than this many times the images of its smallest is too thin
# Elements of the largest temporary array, which bounds memory whatever the number of images.
_CHUNK_ELEMENTS = 2**24


def size_bands(sizes: Int[np.ndarray, " patients"], least: int = LEAST_IN_BAND) -> Int[np.ndarray, " patients"]:
    """Of each patient a band of like size: the sizes in order, each band closed once it has `least` patients.

    The largest patients, where they are fewer, join the band below them.
    """
    distinct, of, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    band_of_size = np.zeros(len(distinct), dtype=np.int64)
    band = members = 0
    for k, count in enumerate(counts):
        band_of_size[k] = band
        members += count
        if members >= least:
            band, members = band + 1, 0
    if members and band:
        band_of_size[band_of_size == band] = band - 1
    return band_of_size[of]


def in_thin_bands(sizes: Int[np.ndarray, " patients"]) -> int:
    """How many patients can exchange only with patients of very unlike size, or with fewer than `LEAST_IN_BAND`."""
    band = size_bands(sizes)
    n = np.bincount(band)
    smallest, largest = np.full(len(n), np.inf), np.zeros(len(n))
    np.minimum.at(smallest, band, sizes)
    np.maximum.at(largest, band, sizes)
    thin = (n < LEAST_IN_BAND) | (largest > WIDEST * smallest)
    return int(n[thin].sum())


def patient_shuffles(
    patients: Sequence[str] | Shaped[np.ndarray, " images"], n: int, seed: int = 0
) -> Iterator[Int[np.ndarray, " images"]]:
    """`n` orders of the images under which whole patients exchange their labels: `labels[order]` are the shuffled ones.

    Patients exchange within bands of like size (`size_bands`). Whoever has more images than the patient whose labels
    it is given has them repeated in their order, whoever has fewer has the first of them.
    """
    _, code = np.unique(np.asarray(patients), return_inverse=True)
    sizes = np.bincount(code)
    rows = np.argsort(code, kind="stable")
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    band = size_bands(sizes)
    members = [np.flatnonzero(band == b) for b in range(band.max(initial=-1) + 1)]
    at = np.empty(len(code), dtype=np.int64)  # the place of an image among its patient's
    at[rows] = np.arange(len(code)) - np.repeat(first, sizes)
    rng = np.random.default_rng(seed)
    giver = np.empty(len(sizes), dtype=np.int64)
    for _ in range(n):
        for some in members:
            giver[some] = rng.permutation(some)
        given = giver[code]
        yield rows[first[given] + at % sizes[given]]


def own_null(
    activations: Float[np.ndarray, "images labels"],
    labels: Float[np.ndarray, "images labels"],
    patients: Sequence[str] | Shaped[np.ndarray, " images"],
    n_permutations: int,
    seed: int = 0,
) -> Float[np.ndarray, "permutations labels"]:
    """Pearson's r of column c of the activations with label c when patients' labels are shuffled.

    nan where the activations, or the labels that a shuffle gives, are constant.
    """
    known, present = (~np.isnan(labels)).astype(np.float32), np.nan_to_num(labels).astype(np.float32)
    counted = np.concatenate([known, present], axis=1)
    firing = [np.flatnonzero(column) for column in activations.T]
    values = [column[rows].astype(np.float64) for column, rows in zip(activations.T, firing, strict=True)]
    sums = np.zeros((n_permutations, 5, labels.shape[1]))
    for k, order in enumerate(patient_shuffles(patients, n_permutations, seed)):
        times = np.bincount(order, minlength=len(order)).astype(np.float32)
        sums[k, :2] = (times @ counted).reshape(2, -1)
        for c, (rows, a) in enumerate(zip(firing, values, strict=True)):
            given = order[rows]
            there = known[given, c]
            sums[k, 2:, c] = a @ there, (a * a) @ there, a @ present[given, c]
    n, y, a, aa, ay = sums.transpose(1, 0, 2)
    return pearson_from_sums(n, a, aa, y, y, ay)


def largest_null(
    blocks: Iterable[sparse.csc_array],
    labels: Float[np.ndarray, "images labels"],
    patients: Sequence[str] | Shaped[np.ndarray, " images"],
    n_permutations: int,
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
