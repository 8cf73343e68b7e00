"""Figures of judges against scikit-learn, statsmodels and counting every case."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score, precision_score, recall_score
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss

from medsae_plugin.naming.figures import (
    Confusion,
    bootstrap_interval,
    cohen_kappa,
    combined_p_value,
    fleiss_kappa,
    majority,
)


def binary(size):
    return st.lists(st.integers(0, 1), min_size=size, max_size=size).map(np.array)


@given(st.integers(2, 12).flatmap(lambda n: st.tuples(binary(n), binary(n))))
@settings(max_examples=60, deadline=None)
def test_figures_are_scikit_learns(case):
    truth, answers = case
    c = Confusion.of(truth, answers.astype(float))
    if 0 < truth.sum() < len(truth):
        assert c.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, answers))
        assert c.recall == pytest.approx(recall_score(truth, answers))
    if answers.any():
        assert c.precision == pytest.approx(precision_score(truth, answers))
    if answers.any() or truth.any():
        assert c.f1 == pytest.approx(f1_score(truth, answers))


def count_permutations(truth, answers):
    """The share of all ways to place the firing images that reach as high a balanced accuracy; no formula."""

    def accuracy(fires):
        t = np.zeros(len(truth), int)
        t[list(fires)] = 1
        return (answers[t == 1].mean() + 1 - answers[t == 0].mean()) / 2

    observed = accuracy(np.flatnonzero(truth))
    reached = [accuracy(fires) >= observed - 1e-12 for fires in combinations(range(len(truth)), truth.sum())]
    return np.mean(reached)


@given(st.integers(2, 9).flatmap(lambda n: st.tuples(binary(n), binary(n))))
@settings(max_examples=60, deadline=None)
def test_the_p_value_is_exact(case):
    truth, answers = case
    if 0 < truth.sum() < len(truth):
        assert Confusion.of(truth, answers.astype(float)).p_value == pytest.approx(count_permutations(truth, answers))


def test_the_p_value_of_several_names_is_exact():
    cases = [(np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0])), (np.array([1, 1, 0, 0, 0]), np.array([1, 1, 1, 0, 0]))]
    observed = sum(int((t & a).sum()) for t, a in cases)
    totals = [
        sum(int(a[list(fires)].sum()) for fires, (_, a) in zip(chosen, cases, strict=True))
        for chosen in product(*(list(combinations(range(len(t)), t.sum())) for t, _ in cases))
    ]
    confusions = [Confusion.of(t, a.astype(float)) for t, a in cases]
    assert combined_p_value(confusions) == pytest.approx(np.mean([total >= observed for total in totals]))
    assert combined_p_value(confusions[:1]) == pytest.approx(confusions[0].p_value)


def test_what_is_unanswered_counts_as_neither():
    truth, answers = np.array([1, 1, 0, 0, 1, 0]), np.array([1.0, np.nan, 0.0, np.nan, 1.0, 0.0])
    c = Confusion.of(truth, answers)
    assert (c.tp, c.fp, c.fn, c.tn, c.unanswered) == (2, 0, 0, 2, 2)
    assert c.balanced_accuracy == 1.0
    nothing = Confusion.of(truth, np.full(6, np.nan))
    assert nothing.unanswered == 6
    assert all(np.isnan([nothing.balanced_accuracy, nothing.precision, nothing.f1, nothing.p_value]))


@given(st.integers(2, 30).flatmap(lambda n: st.tuples(binary(n), binary(n))))
@settings(max_examples=60, deadline=None)
def test_cohens_kappa_is_scikit_learns(case):
    a, b = case
    ours = cohen_kappa(np.append(a, np.nan), np.append(b, 1.0))
    if len(set(a) | set(b)) == 1:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(cohen_kappa_score(a, b))


@given(
    st.integers(2, 5).flatmap(
        lambda j: st.integers(2, 12).flatmap(lambda n: st.lists(binary(n), min_size=j, max_size=j))
    )
)
@settings(max_examples=60, deadline=None)
def test_fleiss_kappa_is_statsmodels(rows):
    said = np.array(rows, dtype=float)
    table = np.stack([(said == 0).sum(0), (said == 1).sum(0)], axis=1)
    ours = fleiss_kappa(np.column_stack([said, np.r_[np.nan, np.ones(len(said) - 1)]]))
    if said.min() == said.max():
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(statsmodels_fleiss(table))


def test_the_majority_leaves_a_tie_unanswered():
    n = np.nan
    said = np.array([[1, 1, 0, n, 1, n], [1, 0, 0, n, n, 0], [0, n, 1, n, n, 0]], dtype=float)
    np.testing.assert_array_equal(majority(said), [1, n, 0, n, 1, 0])


def test_bootstrap_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for k in range(200):
        low, high = bootstrap_interval(rng.normal(0.5, 0.1, 40), seed=k, draws=400)
        covered += low <= 0.5 <= high
    assert 0.89 <= covered / 200 <= 0.99
    assert np.isnan(bootstrap_interval(np.array([0.7]), seed=0)).all()
