"""The score test between patients: its tail against every outcome there is, and against permutations."""

import itertools

import numpy as np
import pytest
from scipy import sparse, stats
from scipy.optimize import brentq

from medsae_plugin.statistics.permutation import size_bands
from medsae_plugin.statistics.score_test import PatientLabel, score_p


def test_the_tail_is_near_that_of_all_outcomes():
    """16 patients of an image: every label that the null can draw, weighed by its chance."""
    rng = np.random.default_rng(0)
    n, y = 16, np.repeat([1.0, 0.0], [4, 12])
    activations = rng.exponential(size=(n, 60)) + np.linspace(-1, 2, 60) * y[:, None]
    share = y.mean()
    outcomes = np.array(list(itertools.product([0, 1], repeat=n)))
    chance = np.prod(np.where(outcomes, share, 1 - share), axis=1)
    p = score_p(sparse.csr_array(activations), PatientLabel.of(y, np.arange(n)))
    far = 0
    for j, a in enumerate(activations.T):
        u = (a - a.mean()) * np.sqrt(n / (n - 1))
        t, drawn = (a - a.mean()) @ (y - share), outcomes @ u - share * u.sum()
        exact = chance[drawn >= t - 1e-12].sum() if t > 0 else chance[drawn <= t + 1e-12].sum()
        z = abs(t) / np.sqrt(share * (1 - share) * (u @ u))
        if z > 2:
            far += 1
            assert p[j] == pytest.approx(min(1, 2 * exact), rel=0.3)
        else:
            assert p[j] == pytest.approx(2 * stats.norm.sf(z))
    assert far >= 10


def test_p_is_that_of_permuted_patients_far_into_a_skewed_tail():
    """Four in a hundred positive, a latent that fires on one in ten: a t distribution is far off."""
    rng = np.random.default_rng(1)
    a = np.where(rng.random(400) < 0.1, rng.exponential(size=400), 0)
    y = np.zeros(400)
    y[np.concatenate([np.argsort(-a)[[0, 1, 6, 12]], rng.choice(np.flatnonzero(a == 0), 12, replace=False)])] = 1
    drawn = np.array([a[rng.permutation(400)[:16]].sum() for _ in range(100_000)])
    exact = 2 * (drawn >= a[y == 1].sum() - 1e-9).mean()
    p = score_p(sparse.csr_array(a[:, None]), PatientLabel.of(y, np.arange(400)))[0]
    assert 1e-4 < exact < 2e-2 and p == pytest.approx(exact, rel=0.4)
    r, n = stats.pearsonr(a, y)[0], 400
    assert 2 * stats.t.sf(r * np.sqrt((n - 2) / (1 - r**2)), n - 2) < exact / 3


def by_definition(u, v, band):
    """p from the cumulant generating function patient by patient, and which of its forms it has."""
    s, parts = 0.0, []
    for b in np.unique(band):
        here = band == b
        n = here.sum()
        s += u[here] @ (v[here] - v[here].mean())
        parts.append(np.outer(u[here] - u[here].mean(), v[here] - v[here].mean()) * np.sqrt(n / max(n - 1, 1)))

    def cumulants(t):
        k = slope = curve = 0.0
        for exponents in parts:
            e = np.exp(t * exponents)
            mean = (e * exponents).sum(1) / e.sum(1)
            k += np.log(e.mean(1)).sum()
            slope, curve = slope + mean.sum(), curve + ((e * exponents**2).sum(1) / e.sum(1) - mean**2).sum()
        return k, slope, curve

    z = abs(s) / np.sqrt(cumulants(0)[2])
    if z <= 2:
        return 2 * stats.norm.sf(z), "normal"
    side = np.sign(s)
    end = 200 / max(np.abs(exponents).max() for exponents in parts)
    t = side * brentq(lambda t: side * (cumulants(side * t)[1] - s), 0, end)
    k, _, curve = cumulants(t)
    w, lugannani = np.sqrt(2 * (t * s - k)), abs(t) * np.sqrt(curve)
    if lugannani >= 1.5 * w:
        return min(1, 2 * np.exp(-(w**2) / 2)), "bound"
    return min(1, 2 * stats.norm.sf(w + np.log(lugannani / w) / w)), "saddlepoint"


def test_p_is_the_saddlepoint_of_the_cumulants_summed_patient_by_patient():
    """Patients of one to four images in several bands, some unknown; from latents that fire on two patients to dense
    ones, with the label and against it."""
    rng = np.random.default_rng(6)
    sizes = np.repeat([1, 2, 3, 4], [40, 12, 12, 13])
    patients = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    y = np.where(rng.random(len(patients)) < 0.1, np.nan, rng.random(len(patients)) < 0.2).astype(float)
    a = np.maximum(rng.normal(size=(len(y), 150)) + np.outer(np.nan_to_num(y), np.linspace(-2, 3, 150)), 0)
    a *= rng.random(a.shape) < rng.choice([0.05, 0.3, 1], 150)
    found = score_p(sparse.csr_array(a), PatientLabel.of(y, patients))
    known = ~np.isnan(y)
    _, code, counts = np.unique(patients[known], return_inverse=True, return_counts=True)
    v, forms = np.bincount(code, y[known]) / counts, []
    for j in np.flatnonzero(a[known].any(0)):
        expected, form = by_definition(np.bincount(code, a[known, j]) / counts, v, size_bands(counts))
        assert found[j] == pytest.approx(expected, rel=1e-3), form
        forms.append(form)
    assert min(forms.count("normal"), forms.count("saddlepoint")) >= 10


def test_at_the_end_of_what_can_happen_p_is_the_chance_of_that():
    """A latent that is the label: one outcome of all is as far out, and twice its chance is p."""
    y = np.repeat([1.0, 0.0], [4, 12])
    p = score_p(sparse.csr_array(np.stack([y, 1 - y], axis=1)), PatientLabel.of(y, np.arange(16)))
    np.testing.assert_allclose(p, 2 * 0.25**4 * 0.75**12, rtol=0.15)


def test_p_hangs_on_no_unit():
    """Far tails are searched for, until they are near enough: as near for tiny activations as for huge ones."""
    rng = np.random.default_rng(5)
    y = (rng.random(80) < 0.2).astype(float)
    a = np.maximum(rng.normal(size=(80, 12)) + np.outer(y, np.linspace(0.5, 4, 12)), 0)
    label = PatientLabel.of(y, np.arange(80))
    p = score_p(sparse.csr_array(a), label)
    assert (p < 0.01).sum() >= 6
    for unit in (2.0**-20, 2.0**20):  # by which products are exact
        np.testing.assert_allclose(score_p(sparse.csr_array(unit * a), label), p, rtol=1e-9)


def test_what_a_patients_images_share_is_counted_once():
    """Repeating each patient's image changes nothing, and unknown images are as if they were not there."""
    rng = np.random.default_rng(2)
    a, y = np.maximum(rng.normal(size=(60, 5)), 0), (rng.random(60) < 0.4).astype(float)
    once = score_p(sparse.csr_array(a), PatientLabel.of(y, np.arange(60)))
    thrice = score_p(sparse.csr_array(np.repeat(a, 3, axis=0)), PatientLabel.of(np.repeat(y, 3), np.arange(180) // 3))
    np.testing.assert_allclose(once, thrice)
    more = np.concatenate([a, rng.normal(size=(30, 5))])
    unknown = PatientLabel.of(np.concatenate([y, np.full(30, np.nan)]), np.concatenate([np.arange(60), np.arange(30)]))
    np.testing.assert_allclose(once, score_p(sparse.csr_array(more), unknown))


def test_how_many_images_a_patient_has_is_no_effect():
    """Label and latent go with the number of images and, given that, not with each other."""
    rng = np.random.default_rng(3)
    sizes = np.repeat([1, 2, 4, 8], 60)
    patients = np.repeat(np.arange(240), sizes)
    ill = np.repeat(sizes / 10, sizes)
    y = (rng.random(len(ill)) < ill).astype(float)
    a = np.maximum(rng.normal(size=(len(ill), 200)) + 3 * ill[:, None], 0)
    p = score_p(sparse.csr_array(a), PatientLabel.of(y, patients))
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert np.median([stats.pearsonr(x, y)[1] for x in a.T]) < 1e-4, "over images they all correlate"


def test_false_claims_are_as_rare_as_said_where_latents_are_sparse_and_patients_cluster():
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(300), rng.choice([1, 2, 3, 7], 300))
    own = rng.normal(size=(300, 1500))[patients]
    a = np.maximum(own + 0.3 * rng.normal(size=own.shape) - rng.uniform(1, 2.5, 1500), 0)
    y = (rng.normal(size=(300, 6))[patients] + 0.3 * rng.normal(size=(len(patients), 6)) > 1.4).astype(float)
    p = np.concatenate([score_p(sparse.csr_array(a), PatientLabel.of(c, patients)) for c in y.T])
    assert 0.02 < (p <= 0.05).mean() < 0.065 and (p <= 0.001).mean() < 0.002


def test_what_cannot_be_tested_is_nan():
    y, patients = np.array([0, 1] * 10, dtype=float), np.arange(20)
    a = np.zeros((20, 3))
    a[:, 1], a[:, 2] = 0.1 + 0.2, np.arange(20)
    p = score_p(sparse.csr_array(a), PatientLabel.of(y, patients))
    assert np.isnan(p[:2]).all() and 0 < p[2] <= 1
    for label in (np.zeros(20), np.full(20, np.nan)):
        assert np.isnan(score_p(sparse.csr_array(a), PatientLabel.of(label, patients))).all()
    assert np.isnan(score_p(sparse.csr_array(a), PatientLabel.of(y, patients), np.zeros(3, dtype=bool))).all()
    one = PatientLabel.of(y, np.zeros(20, dtype=np.int64))
    assert np.isnan(score_p(sparse.csr_array(a), one)).all(), "one patient tells nothing"
