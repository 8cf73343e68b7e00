"""The score test between patients: its tail against every outcome there is, and against permutations."""

import itertools

import numpy as np
import pytest
from scipy import sparse, stats

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
    assert np.median(stats.pearsonr(a, y[:, None])[1]) < 1e-4, "over images they all correlate"


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
