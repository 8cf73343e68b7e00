"""Intervals that are those of a plain bootstrap."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from medsae_plugin.scores.resampling import PatientBootstrap, interval


def patients_of(sizes: list[int]) -> np.ndarray:
    return np.repeat([f"p{k:03d}" for k in range(len(sizes))], sizes)


def test_the_bootstrap_is_that_of_resampled_patients():
    rng = np.random.default_rng(2)
    patients = patients_of([1, 2, 3] * 12)
    a = np.round(np.maximum(rng.normal(size=(len(patients), 2)), 0), 1)
    labels = rng.choice([0.0, 1.0, np.nan], p=[0.5, 0.4, 0.1], size=a.shape)
    bootstrap = PatientBootstrap(patients, 25, seed=4)
    r, auroc = bootstrap.pearson(a, labels), bootstrap.auroc(a, labels)
    names = np.unique(patients)
    for b in range(25):
        rows = np.concatenate([np.flatnonzero(patients == names[k]) for k in bootstrap._draws[b]])
        for c in range(2):
            y, x = labels[rows, c], a[rows, c]
            known = ~np.isnan(y)
            assert r[b, c] == pytest.approx(stats.pearsonr(x[known], y[known])[0])
            assert auroc[b, c] == pytest.approx(roc_auc_score(y[known], x[known]))
    low, high = interval(r)
    np.testing.assert_allclose(low, np.percentile(r, 2.5, axis=0))
    np.testing.assert_allclose(high, np.percentile(r, 97.5, axis=0))


def test_an_interval_covers_the_truth_at_its_level():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(60):
        y = (rng.random(150) < 0.5).astype(float)
        x = y + rng.normal(size=150)
        low, high = interval(PatientBootstrap([str(i) for i in range(150)], 300, 0).pearson(x[:, None], y[:, None]))
        covered += low[0] <= 0.5 / np.sqrt(1.25) <= high[0]
    assert 50 <= covered <= 60


def test_what_is_undefined_has_no_interval():
    constant, labels = np.zeros((10, 1)), np.array([[0.0, 1.0] * 5]).T
    replicates = PatientBootstrap([str(i) for i in range(10)], 20).pearson(constant, labels)
    assert np.isnan(replicates).all() and np.isnan(interval(replicates)).all()
