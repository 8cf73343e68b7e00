"""Logistic regressions: each latent's own is scikit-learn's, and so is the head's, on features as they come."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from medsae_plugin.scores.logistic import RIDGE, STRENGTHS, fit_head, single_probes


def drawn(n: int = 250, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, np.nan], p=[0.6, 0.3, 0.1], size=(n, 3))
    a = np.maximum(rng.normal(size=(n, 7)) + np.nan_to_num(labels)[:, [0, 1, 2, 0, 1, 2, 0]] * rng.normal(size=7), 0)
    a *= 10.0 ** np.arange(-3, 4)  # of any scale
    a[:, 2] = 0
    a[:, 3] = np.nan_to_num(labels[:, 0])  # tells all images apart
    a[:, 4] = -a[:, 4]
    return a, labels


def test_each_latents_regression_is_scikit_learns():
    a, labels = drawn()
    found = single_probes(sparse.csc_array(a), labels)
    for c in range(3):
        known = ~np.isnan(labels[:, c])
        y = labels[known, c]
        for j in range(7):
            nonzero = a[:, j][a[:, j] != 0]
            scale = np.sqrt((nonzero**2).mean()) if len(nonzero) else 1.0
            x = a[known, j : j + 1] / scale
            theirs = LogisticRegression(C=1 / (RIDGE * len(y)), tol=1e-10, max_iter=10000).fit(x, y)
            assert found.weight[j, c] * scale == pytest.approx(theirs.coef_[0, 0], rel=1e-3, abs=1e-4)
            assert found.bias[j, c] == pytest.approx(theirs.intercept_[0], rel=1e-3, abs=1e-4)
            assert found.bce[j, c] == pytest.approx(log_loss(y, theirs.predict_proba(x)[:, 1]), rel=1e-4, abs=1e-6)
    assert found.bce[3, 0] < 0.02 and (found.weight[2] == 0).all()


def test_a_label_that_does_not_vary_has_no_regression():
    a, labels = drawn(60)
    labels[:, 0], labels[:, 1] = 0, np.where(np.isnan(labels[:, 1]), np.nan, 1)
    found = single_probes(sparse.csc_array(a), labels)
    assert np.isnan(found.bce[:, :2]).all() and np.isnan(found.weight[:, :2]).all()
    assert np.isfinite(found.bce[:, 2]).all()


def test_the_head_is_scikit_learns_with_the_penalty_that_two_halves_choose():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 12)) * 10.0 ** rng.integers(-3, 3, 12) + 5
    y = (x[:, 0] / x[:, 0].std() + rng.normal(size=300) > 5 / x[:, 0].std()).astype(float)
    x[:, 7] = 3.0  # constant
    half = np.arange(300) // 3 % 2
    head = fit_head(x, y, half)
    varying = np.delete(np.arange(12), 7)
    standard = (x - x.mean(0))[:, varying] / x[:, varying].std(0)
    logits = [LogisticRegression(C=c, max_iter=1000).fit(standard, y).decision_function(standard) for c in STRENGTHS]
    assert min(np.abs(head(x) - theirs).max() for theirs in logits) < 1e-2 and head.weights[7] == 0
    assert np.corrcoef(head(x), x[:, 0])[0, 1] > 0.9


def test_a_penalty_on_sizes_leaves_features_out():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 30))
    y = (x[:, 0] - x[:, 1] + 0.5 * rng.normal(size=400) > 0).astype(float)
    head = fit_head(x, y, np.arange(400) % 2, l1=True)
    used = np.flatnonzero(head.weights)
    assert {0, 1} <= set(used) and len(used) < 30
    assert head.weights[0] > 0 > head.weights[1]


def test_halves_without_both_values_still_have_a_head():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 2)), np.r_[np.ones(3), np.zeros(37)]
    assert np.isfinite(fit_head(x, y, (np.arange(40) >= 3).astype(int)).weights).all()
