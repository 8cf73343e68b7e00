"""p of permutations, their extrapolated tails, and corrections for many tests."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from medsae_plugin.statistics.multiple import benjamini_hochberg, holm
from medsae_plugin.statistics.tails import permutation_p


def test_p_counts_the_permutations_that_reach_it():
    null = np.arange(100.0)[:, None]
    assert permutation_p(np.array([50.0]), null)[0] == (1 + 50) / 101
    assert permutation_p(np.array([-1.0]), null)[0] == 1
    few = np.arange(9.0)[:, None]
    assert permutation_p(np.array([20.0]), few)[0] == 1 / 10, "too few to extrapolate from"
    undefined = permutation_p(np.array([np.nan, 1.0]), np.stack([np.zeros(5), np.full(5, np.nan)], axis=1))
    assert np.isnan(undefined).all()
    half = np.where(np.arange(100) % 2, np.nan, 0.0)[:, None]
    assert permutation_p(np.array([1.0]), half)[0] > 0.4, "a shuffle without an r speaks for chance"


@pytest.mark.parametrize("law", [stats.norm(), stats.gamma(1), stats.gamma(0.3), stats.lognorm(0.5)])
def test_an_extrapolated_tail_is_seldom_too_small(law):
    """The true tail where the extrapolated p says 1e-4, over 60 nulls of 1,000: at most a little above that."""
    far = law.isf(np.geomspace(1e-2, 1e-7, 60))
    true = []
    for seed in range(60):
        null = np.repeat(law.rvs((1000, 1), random_state=seed), len(far), axis=1)
        p = permutation_p(far, null)
        assert (np.diff(p) <= 0).all() and (p > 0).all()
        true.append(law.sf(far[np.flatnonzero(p <= 1e-4)[0]]) if (p <= 1e-4).any() else 0)
    assert np.mean(true) < 2.5e-4


def test_an_exponential_tail_is_extrapolated_to_itself():
    p = permutation_p(np.array([np.log(1e5)]), np.random.default_rng(0).exponential(size=(5000, 1)))
    assert 1e-6 < p[0] < 1e-4


def test_holm_steps_down():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, np.nan, 0.06, 0.02])
    many = np.random.default_rng(0).random(50) ** 4
    np.testing.assert_allclose(holm(many), multipletests(many, method="holm")[1])
    np.testing.assert_allclose(holm(np.array([0.6, 0.9])), [1, 1])
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_benjamini_hochberg_is_the_step_up_procedure():
    p = np.array([[0.01, 0.04, np.nan], [0.03, 0.5, 0.02]])
    known = np.sort(p[~np.isnan(p)])
    step_up = np.minimum.accumulate((known * len(known) / np.arange(1, len(known) + 1))[::-1])[::-1]
    q = benjamini_hochberg(p)
    assert np.isnan(q[0, 2]) and np.isnan(benjamini_hochberg(np.array([np.nan]))).all()
    np.testing.assert_allclose(q[~np.isnan(p)], step_up[np.argsort(np.argsort(p[~np.isnan(p)]))])
