"""Rows of `calibration.py`: p values, claims over all latents and labels, permutations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
from calibration_simulated import (
    Found,
    Row,
    Settings,
    chexpert_labels,
    chexpert_sizes,
    correlated,
    latents,
    patients_of,
    positives,
)
from scipy import sparse, stats

from medsae_plugin.scores import declared  # noqa: F401, which declares the figures
from medsae_plugin.scores.registry import METRICS
from medsae_plugin.scores.scoring import LEAST_FIRING_POSITIVES
from medsae_plugin.statistics.correlation import pearson_of
from medsae_plugin.statistics.multiple import benjamini_hochberg, holm
from medsae_plugin.statistics.permutation import largest_null, own_null
from medsae_plugin.statistics.score_test import PatientLabel, score_p
from medsae_plugin.statistics.tails import permutation_p

LATENTS, LABELS = 200, 14
Data = tuple[np.ndarray, np.ndarray, np.ndarray]  # the patient of each image, activations, labels
Draw = Callable[[np.random.Generator], Data]


def pair_p(data: Data) -> np.ndarray:
    """p of every latent and label, nan where they do not count, as `Scored.score_test`."""
    patients, activations, labels = data
    by_image, fires = sparse.csr_array(activations), activations > 0
    columns = []
    for y in labels.T:
        known = ~np.isnan(y)
        expected = fires[known].mean(0) * y[known].sum()
        columns.append(score_p(by_image, PatientLabel.of(y, patients), expected >= LEAST_FIRING_POSITIVES))
    return np.stack(columns, axis=1)


def densities(rng: np.random.Generator, is_sparse: bool) -> np.ndarray:
    return np.exp(rng.uniform(np.log(0.002), np.log(0.2), LATENTS)) if is_sparse else np.full(LATENTS, 0.5)


def single(is_sparse: bool = False, is_rare: bool = False) -> Draw:
    """1,000 patients of an image each; rare labels have 5 to 30 positives, others a fifth."""

    def draw(rng: np.random.Generator) -> Data:
        patients = np.arange(1000)
        shares = rng.uniform(5, 30, LABELS) / 1000 if is_rare else np.full(LABELS, 0.2)
        return patients, latents(rng, patients, densities(rng, is_sparse)), positives(rng, patients, shares)

    return draw


def clustered(is_sparse: bool = False, is_rare: bool = False) -> Draw:
    """400 patients of CheXpert's numbers of images; latents and labels of intraclass correlation 0.9."""

    def draw(rng: np.random.Generator) -> Data:
        patients = patients_of(chexpert_sizes(rng, 400))
        shares = rng.uniform(5, 30, LABELS) / len(patients) if is_rare else np.full(LABELS, 0.2)
        activations = latents(rng, patients, densities(rng, is_sparse), icc=0.9)
        return patients, activations, positives(rng, patients, shares, icc=0.9)

    return draw


def tied_to_size(rng: np.random.Generator) -> Data:
    """As `clustered`, but who has more images is ill more often, and has larger activations."""
    sizes = chexpert_sizes(rng, 400)
    patients = patients_of(sizes)
    share = np.concatenate([densities(rng, True)[::2], densities(rng, False)[::2]])
    activations = latents(rng, patients, share, icc=0.9) * (1 + 0.1 * sizes[patients])[:, None]
    return patients, activations, ill_by_size(rng, sizes)


def ill_by_size(rng: np.random.Generator, sizes: np.ndarray) -> np.ndarray:
    """Labels of intraclass correlation 0.9 and a share of 0.05, and 0.02 more for every image of the patient."""
    patients = patients_of(sizes)
    cut = stats.norm.isf(np.clip(0.05 + 0.02 * sizes, 0, 0.7))[patients]
    return (correlated(rng, patients, LABELS, 0.9) > cut[:, None]).astype(np.float64)


@cache
def replicated(draw: Draw, settings: Settings) -> tuple[Found, np.ndarray, int]:
    """How often Benjamini and Hochberg's procedure claims anything where there is nothing; every p of a pair below
    0.01; and of how many pairs.
    """
    rng, n = np.random.default_rng(settings.seed), settings.replications(10, 400)
    times, small, of = 0, [], 0
    for _ in range(n):
        p = pair_p(draw(rng))
        times += bool((benjamini_hochberg(p) < 0.05).any())
        small.append(p[p < 0.01])
        of += int((~np.isnan(p)).sum())
    return Found(times, n), np.concatenate(small), of


def claims(draw: Draw) -> Callable[[Settings], Found]:
    return lambda settings: replicated(draw, settings)[0]


def small_p(draw: Draw, level: float) -> Callable[[Settings], Found]:
    """How often p of a pair is at most a level. Pairs of one replication share labels: the error is a little larger."""

    def find(settings: Settings) -> Found:
        _, small, of = replicated(draw, settings)
        return Found(int((small <= level).sum()), of)

    return find


def real_claims(settings: Settings) -> Found:
    """The same with CheXpert's labels of 400 of its patients, and half of the latents sparse."""
    if settings.chexpert is None:
        return Found(reason="skipped: needs --chexpert")
    rng, n, times = np.random.default_rng(settings.seed), settings.replications(5, 200), 0
    read = chexpert_labels(settings.chexpert)
    for _ in range(n):
        patients, labels = read(rng, 400)
        share = np.concatenate([densities(rng, True)[::2], densities(rng, False)[::2]])
        p = pair_p((patients, latents(rng, patients, share, icc=0.9), labels))
        times += bool((benjamini_hochberg(p) < 0.05).any())
    return Found(times, n)


def own_p(activations: np.ndarray, labels: np.ndarray, patients: np.ndarray, seed: int, n: int = 200) -> np.ndarray:
    """`p_top` of column c of the activations for label c."""
    observed = np.diag(pearson_of(sparse.csr_array(activations.T.astype(np.float64)), labels))
    return permutation_p(observed, own_null(activations, labels, patients, n, seed))


def permutation_null(tied: bool) -> Callable[[Settings], Found]:
    """p at most 0.05: 300 patients of unequal size, both sides clustered; tied: the more images, the more often ill."""

    def find(settings: Settings) -> Found:
        rng, n, times, of = np.random.default_rng(settings.seed), settings.replications(20, 400), 0, 0
        for k in range(n):
            sizes = chexpert_sizes(rng, 300)
            patients = patients_of(sizes)
            labels = ill_by_size(rng, sizes) if tied else positives(rng, patients, np.full(LABELS, 0.2), icc=0.9)
            p = own_p(latents(rng, patients, np.full(LABELS, 0.3), icc=0.9), labels, patients, k)
            times, of = times + int((p <= 0.05).sum()), of + LABELS
        return Found(times, of)

    return find


def any_of_labels(settings: Settings) -> Found:
    """Holm over 14 labels: any p below 0.05, with 1,000 permutations, so that the tail decides."""
    rng, n, times = np.random.default_rng(settings.seed), settings.replications(10, 300), 0
    for k in range(n):
        patients = patients_of(chexpert_sizes(rng, 150))
        labels = positives(rng, patients, np.full(LABELS, 0.1), icc=0.9)
        p = own_p(latents(rng, patients, np.full(LABELS, 0.1), icc=0.9), labels, patients, k, 1000)
        times += bool((holm(p) < 0.05).any())
    return Found(times, n)


def tail_at(level: float) -> Callable[[Settings], Found]:
    """How often the extrapolated p of a skewed null is at most a level, from 1,000 permutations."""

    def find(settings: Settings) -> Found:
        rng, n = np.random.default_rng(settings.seed), settings.replications(100, 2000)
        far = stats.gamma(4).isf(np.geomspace(1e-2, 1e-7, 200))
        rates = []
        for _ in range(n):
            p = permutation_p(far, np.repeat(rng.gamma(4, size=(1000, 1)), len(far), axis=1))
            below = np.flatnonzero(p <= level)
            rates.append(stats.gamma(4).sf(far[below[0]]) if len(below) else 0.0)
        return Found(float(np.sum(rates)), n, error=2 * float(np.std(rates)) / n**0.5)

    return find


def power(against_largest: bool) -> Callable[[Settings], Found]:
    """p at most 0.05 of a latent of r = 0.15 among 400, 260 patients of an image each."""

    def find(settings: Settings) -> Found:
        rng, n, times = np.random.default_rng(settings.seed), settings.replications(20, 200), 0
        patients = np.arange(260)
        for k in range(n):
            labels = positives(rng, patients, np.array([0.2]))
            centred = (labels - labels.mean()) / labels.std()
            activations = rng.normal(size=(260, 400))
            activations[:, :1] = 0.15 * centred + np.sqrt(1 - 0.15**2) * activations[:, :1]
            if against_largest:
                r = pearson_of(sparse.csr_array(activations[:, :1].T), labels)[0]
                p = permutation_p(r, largest_null([sparse.csc_array(activations)], labels, patients, 200, k))
            else:
                p = own_p(activations[:, :1], labels, patients, k, 1000)
            times += bool(p[0] <= 0.05)
        return Found(times, n)

    return find


def same_split(settings: Settings) -> Found:
    """p at most 0.05 of the largest r of 50 latents, chosen where it is reported; patients of unequal size."""
    rng, n, times, of = np.random.default_rng(settings.seed), settings.replications(5, 60), 0, 0
    for k in range(n):
        patients = patients_of(chexpert_sizes(rng, 150))
        activations = latents(rng, patients, densities(rng, True)[:50], icc=0.9)
        labels = positives(rng, patients, np.full(LABELS, 0.2), icc=0.9)
        r = np.nanmax(pearson_of(sparse.csr_array(activations.T), labels), axis=0)
        p = permutation_p(r, largest_null([sparse.csc_array(activations)], labels, patients, 200, k))
        times, of = times + int((p <= 0.05).sum()), of + LABELS
    return Found(times, of)


def merged_sites(settings: Settings) -> Found:
    """Nothing of chance is declared for sums alone."""
    of_chance = ("p", "fdr", "significant", "p_top", "p_holm", "r_chance", "p_same_split")
    assert all(METRICS[name].needs == "images" for name in of_chance)
    return Found(reason="refused: sums do not tell which images are of one patient")


def _rows() -> Iterable[Row]:
    any_claim = "any false claim over latents x labels"
    for name, draw, before in (
        ("dense latents, one image a patient", single(), "0.21"),
        ("rare labels", single(is_rare=True), "0.84"),
        ("sparse latents", single(is_sparse=True), "0.98"),
        ("both", single(True, True), "1.00"),
        ("clustered", clustered(), ""),
        ("clustered, sparse", clustered(True), ""),
        ("clustered, rare and sparse", clustered(True, True), ""),
        ("clustered, size tied to illness and to activations", tied_to_size, ""),
    ):
        yield Row(f"{any_claim}: {name}", "0.05", before, claims(draw))
        for level in (1e-3, 1e-4):
            yield Row(f"p of a pair <= {level:g}: {name}", f"{level:g}", "", small_p(draw, level))
    yield Row(f"{any_claim}: CheXpert's labels, latents of ICC 0.9", "0.05", "0.67", real_claims)
    yield Row("p of a top latent <= 0.05: patients of unequal size", "0.05", "0.10", permutation_null(False))
    yield Row("p of a top latent <= 0.05: size tied to illness", "0.05", "0.20", permutation_null(True))
    yield Row("any of 14 adjusted p (Holm) < 0.05", "0.05", "", any_of_labels)
    for level in (1e-3, 1e-4):
        yield Row(f"extrapolated p <= {level:g}", f"{level:g}", "", tail_at(level))
    yield Row("power of p at r = 0.15, 400 latents: against the largest of all", "", "0.10", power(True))
    yield Row("power of p at r = 0.15, 400 latents: its own null, as printed", "", "0.78", power(False))
    yield Row("p of the same-split figure <= 0.05", "0.05", "", same_split)
    yield Row("p and claims of merged sites", "", "", merged_sites)


ROWS = list(_rows())
