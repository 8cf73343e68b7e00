"""What chance does: nulls that cover, intervals that are those of a plain bootstrap."""

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.metrics import roc_auc_score

from medsae_plugin.scores import metrics
from medsae_plugin.scores.resampling import (
    PatientBootstrap,
    interval,
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


@pytest.mark.parametrize("values", [[-2, -1, 0, 0, 1, 3], [-3, -2, -1], [0, 1, 2], [-1, 0]])
def test_a_resampled_auroc_ranks_zeros_below_positives_and_above_negatives_and_knows_no_unknown_label(values):
    rng = np.random.default_rng(9)
    patients = patients_of([2, 1, 3] * 8)
    a = rng.choice(np.array(values, float), size=(len(patients), 1))
    labels = rng.choice([0.0, 1.0, np.nan], p=[0.3, 0.3, 0.4], size=a.shape)
    a[np.isnan(labels)] = rng.choice([-9.0, 0.0, 9.0], size=int(np.isnan(labels).sum()))
    bootstrap = PatientBootstrap(patients, 20, seed=1)
    auroc, r = bootstrap.auroc(a, labels), bootstrap.pearson(a, labels)
    names = np.unique(patients)
    for b in range(20):
        rows = np.concatenate([np.flatnonzero(patients == names[k]) for k in bootstrap._draws[b]])
        rows = rows[~np.isnan(labels[rows, 0])]
        assert auroc[b, 0] == pytest.approx(roc_auc_score(labels[rows, 0], a[rows, 0]))
        assert r[b, 0] == pytest.approx(stats.pearsonr(labels[rows, 0], a[rows, 0])[0])


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
    assert np.isnan(permutation_p(np.array([np.nan]), np.zeros((5, 1)))).all()
