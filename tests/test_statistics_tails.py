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
    after_one = permutation_p(np.array([np.nan, 1.0]), np.stack([np.zeros(5), np.arange(5)], axis=1))
    assert np.isnan(after_one[0]) and after_one[1] == 5 / 6
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


@pytest.mark.parametrize("law", [stats.uniform(), stats.expon(), stats.lognorm(1), stats.pareto(0.5)])
@pytest.mark.parametrize("m", [79, 80, 600, 2000])
def test_up_to_nine_that_reach_it_the_tail_is_a_generalised_pareto_by_its_moments(law, m):
    """With scipy's distribution and L-moments by definition: the second is half the mean difference of all pairs."""
    null = np.sort(law.rvs(m, random_state=m))
    unseen = m // 7  # shuffles without an r, which tell nothing of the tail's form
    count = min(m // 4, 250)
    start = null[-count - 1 : -count + 1].mean()
    over = null[-count:] - start
    l1, l2 = over.mean(), np.abs(over[:, None] - over).sum() / (count * (count - 1)) / 2
    shape = float(np.clip(2 - l1 / l2, 0, 0.9))
    tail = stats.genpareto(shape, scale=l1 * (1 - shape))
    for reached in (0, 3, 8, 9, 10, 11):
        x = null[m - 1] * 1.2 if reached == 0 else null[m - reached]
        counted = (1 + reached) / (1 + m)
        extrapolated = 1 if count < 20 or reached > 9 else count / m * tail.sf(x - start)
        found = permutation_p(np.array([x]), null[:, None])
        assert found[0] == pytest.approx(min(counted, extrapolated))
        if reached + unseen < 10:
            continue
        with_unseen = permutation_p(np.array([x]), np.append(null, np.full(unseen, np.nan))[:, None])
        assert with_unseen[0] == pytest.approx((1 + reached + unseen) / (1 + m + unseen))
    few = np.append(null, np.full(3, np.nan))[:, None]
    counted, extrapolated = 4 / (m + 4), 1 if count < 20 else count / (m + 3) * tail.sf(null[-1] * 1.2 - start)
    assert permutation_p(np.array([null[-1] * 1.2]), few)[0] == pytest.approx(min(counted, extrapolated))


def test_a_null_that_is_one_value_gives_what_counting_gives():
    null = np.full((400, 2), 0.5)
    p = permutation_p(np.array([0.5, 0.7]), null)
    assert p[0] == 1 and 0 < p[1] <= 1 / 401


def test_an_exponential_tail_is_extrapolated_to_itself():
    p = permutation_p(np.array([np.log(1e5)]), np.random.default_rng(0).exponential(size=(5000, 1)))
    assert 1e-6 < p[0] < 1e-4


def test_holm_steps_down():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.01, np.nan, 0.04, np.nan])), [0.02, np.nan, 0.04, np.nan])
    np.testing.assert_allclose(holm(np.array([0.01, np.nan, 0.04, 0.2])), [0.03, np.nan, 0.08, 0.2])
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
