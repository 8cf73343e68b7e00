"""What chance does: nulls that cover."""

import numpy as np
import pytest
from scipy import sparse, stats

from medsae_plugin.scores import metrics
from medsae_plugin.scores.resampling import (
    patient_shuffles,
    permutation_null,
    permutation_p,
)


def patients_of(sizes: list[int]) -> np.ndarray:
    return np.repeat([f"p{k:03d}" for k in range(len(sizes))], sizes)


def test_a_shuffle_moves_whole_patients_to_patients_of_as_many_images():
    patients = patients_of([1, 2, 2, 1, 3, 2, 1, 5])  # 3 and 5 are shared by nobody
    moved = False
    for order in patient_shuffles(patients, 20, seed=1):
        assert sorted(order) == list(range(len(patients)))
        for name in np.unique(patients):
            rows = np.flatnonzero(patients == name)
            if len(rows) < 3:
                assert len(set(patients[order[rows]])) == 1 and (np.diff(order[rows]) == 1).all()
        moved = moved or (order != np.arange(len(order))).any()
    assert moved


def test_the_null_is_the_largest_r_under_shuffles():
    rng = np.random.default_rng(0)
    patients = patients_of([1, 2, 3] * 15)
    a = np.maximum(rng.normal(size=(len(patients), 6)), 0)
    labels = rng.choice([0.0, 1.0, np.nan], p=[0.5, 0.3, 0.2], size=(len(patients), 2))
    blocks = [sparse.csc_array(a[:, :4]), sparse.csc_array(a[:, 4:])]
    null = permutation_null(blocks, labels, patients, 10, seed=3)
    for b, order in enumerate(patient_shuffles(patients, 10, seed=3)):
        for c in range(2):
            y = labels[order, c]
            known = ~np.isnan(y)
            assert null[b, c] == pytest.approx(max(stats.pearsonr(a[known, j], y[known])[0] for j in range(6)))
    assert np.isnan(permutation_null(blocks, np.zeros((len(patients), 1)), patients, 5)).all()


def test_random_labels_have_uniform_p_values_and_a_null_that_covers():
    """One label a patient, activations that cluster by patient: images taken for independent would fail this."""
    rng = np.random.default_rng(5)
    patients = patients_of([1, 2, 4] * 20)
    _, code = np.unique(patients, return_inverse=True)
    a = np.maximum(rng.normal(size=(60, 30))[code] + 0.3 * rng.normal(size=(len(code), 30)), 0)
    labels = (rng.random((60, 150)) < 0.4).astype(float)[code]
    observed = metrics.pearson_of(sparse.csr_array(a.T), labels).max(0)
    p = permutation_p(observed, permutation_null([sparse.csc_array(a)], labels, patients, 99, seed=0))
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.01 < (p <= 0.05).mean() < 0.1
    one_each = (rng.random((60, 300)) < 0.4).astype(float)
    r = metrics.pearson_of(sparse.csr_array(rng.normal(size=(1, 60))), one_each)
    assert stats.kstest(metrics.p_values(r, np.full(300, 60.0))[0], "uniform").pvalue > 0.01


def test_what_is_undefined_has_no_p():
    assert np.isnan(permutation_p(np.array([np.nan]), np.zeros((5, 1)))).all()
