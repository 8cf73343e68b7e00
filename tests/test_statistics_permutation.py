"""Shuffles of whole patients within bands of like size, and the nulls that they give."""

import numpy as np
import pytest
from scipy import sparse, stats

from medsae_plugin.statistics import permutation
from medsae_plugin.statistics.correlation import pearson_of
from medsae_plugin.statistics.permutation import in_thin_bands, largest_null, own_null, patient_shuffles, size_bands
from medsae_plugin.statistics.tails import permutation_p


def patients_of(sizes: list[int]) -> np.ndarray:
    return np.repeat([f"p{k:03d}" for k in range(len(sizes))], sizes)


def test_bands_take_sizes_in_order_until_they_have_enough_patients():
    sizes = np.array([1] * 12 + [2] * 9 + [3] * 4 + [5] * 10 + [9] * 3)
    band = size_bands(sizes)
    # 2 and 3 make one band; 9, which nobody is left to fill up, joins that of 5.
    assert [sorted(set(sizes[band == b])) for b in range(3)] == [[1], [2, 3], [5, 9]] and band.max() == 2
    assert in_thin_bands(sizes) == 0
    assert in_thin_bands(np.append(sizes, 11)) == 14, "11 images are more than twice 5"
    assert in_thin_bands(np.array([1, 1, 2])) == 3, "fewer than ten patients"
    assert in_thin_bands(np.array([1] * 10)) == in_thin_bands(np.array([1] * 5 + [2] * 5)) == 0, (
        "ten are enough, and twice"
    )
    assert in_thin_bands(np.array([1] * 9)) == 9 and in_thin_bands(np.array([1] * 5 + [3] * 5)) == 10
    assert len(size_bands(np.array([], dtype=np.int64))) == 0


def test_a_shuffle_gives_whole_patients_the_labels_of_patients_of_their_band():
    sizes = [3] * 5 + [1] * 10 + [2] * 6
    patients = np.random.default_rng(0).permutation(patients_of(sizes))  # a patient's images lie apart
    rows_of = {name: np.flatnonzero(patients == name) for name in np.unique(patients)}
    givers = {name: set() for name in rows_of}
    for order in patient_shuffles(patients, 200, seed=1):
        given = [patients[order[rows]][0] for rows in rows_of.values()]
        assert sorted(given) == sorted(rows_of), "each patient's labels are given once"
        for (name, rows), giver in zip(rows_of.items(), given, strict=True):
            theirs = rows_of[giver]
            expected = [theirs[i % len(theirs)] for i in range(len(rows))]  # repeated, or cut
            assert order[rows].tolist() == expected
            givers[name].add(giver)
    ones = {name for name, rows in rows_of.items() if len(rows) == 1}
    for name, found in givers.items():
        assert found == (ones if name in ones else set(rows_of) - ones)
    again = [order.tolist() for order in patient_shuffles(patients, 3, seed=1)]
    other = [order.tolist() for order in patient_shuffles(patients, 3, seed=2)]
    assert next(patient_shuffles(patients, 1)).tolist() == next(patient_shuffles(patients, 1, seed=0)).tolist()
    assert again == [order.tolist() for order in patient_shuffles(patients, 3, seed=1)] != other


def test_nulls_are_the_r_of_shuffled_labels():
    rng = np.random.default_rng(0)
    patients = patients_of([1, 2, 3, 3] * 12)
    a = np.maximum(rng.normal(size=(len(patients), 6)), 0)
    labels = rng.choice([0.0, 1.0, np.nan], p=[0.5, 0.3, 0.2], size=(len(patients), 2))
    largest = largest_null([sparse.csc_array(a[:, :4]), sparse.csc_array(a[:, 4:])], labels, patients, 10, seed=3)
    own = own_null(a[:, :2].astype(np.float32), labels, patients, 10, seed=3)
    for b, order in enumerate(patient_shuffles(patients, 10, seed=3)):
        for c in range(2):
            y = labels[order, c]
            known = ~np.isnan(y)
            r = [stats.pearsonr(a[known, j], y[known])[0] for j in range(6)]
            assert largest[b, c] == pytest.approx(max(r)) and own[b, c] == pytest.approx(r[c], abs=1e-6)
    nothing = np.zeros((len(patients), 1))
    assert np.isnan(largest_null([sparse.csc_array(a)], nothing, patients, 5)).all()
    assert np.isnan(own_null(a[:, :1], nothing, patients, 5)).all()
    assert np.isnan(own_null(nothing, labels[:, :1], patients, 5)).all()


def test_the_null_is_the_same_however_little_memory_it_takes(monkeypatch):
    rng = np.random.default_rng(6)
    a, labels = rng.random((40, 7)), (rng.random((40, 3)) < 0.4).astype(float)
    blocks = [sparse.csc_array(a[:, :2]), sparse.csc_array(a[:, 2:])]
    whole = largest_null(blocks, labels, np.arange(40), 10)
    for elements in (0, 3 * 40 * 3 + 1):
        monkeypatch.setattr(permutation, "_CHUNK_ELEMENTS", elements)
        np.testing.assert_allclose(largest_null(blocks, labels, np.arange(40), 10), whole)


def test_r_is_numpys_up_to_its_ends_and_none_where_a_side_is_constant():
    rng = np.random.default_rng(7)
    y = (rng.random((50, 3)) < 0.4).astype(float)
    a = np.stack([y[:, 0], 1 - y[:, 1], rng.random(50), np.full(50, 0.1), 1 + 1e-5 * y[:, 2]])
    y = np.column_stack([y, np.ones(50), np.full(50, np.nan)])
    r = pearson_of(sparse.csr_array(a), y)
    score = rng.normal(size=(50, 1))  # labels are any numbers
    assert pearson_of(sparse.csr_array(a), score)[2, 0] == pytest.approx(np.corrcoef(a[2], score[:, 0])[0, 1])
    for j in (0, 1, 2, 4):
        for c in range(3):
            assert r[j, c] == pytest.approx(np.corrcoef(a[j], y[:, c])[0, 1], abs=1e-5)
    assert r[0, 0] == 1 and r[1, 1] == -1
    for k in range(3, 40):  # one value, but for rounding errors
        same = np.stack([np.full(k, x) for x in (0.1, 1 / 3, 0.7)] + [1 + 1e-7 * rng.normal(size=k)], axis=1)
        assert np.isnan(pearson_of(sparse.csr_array(a[2:3, :k]), same)).all()
        assert np.isnan(pearson_of(sparse.csr_array(same.T), a[2, :k, None])).all()
    assert np.isnan(r[3]).all() and np.isnan(r[:, 3:]).all()
    assert pearson_of(sparse.csr_array([[2.0, 0, 5]]), np.array([[0.0], [np.nan], [1]])).item() == pytest.approx(1)


def test_p_is_uniform_where_activations_and_labels_cluster_by_patients_of_unlike_size():
    """Images taken for independent would fail this, and so did patients of a size of their own laid end to end."""
    rng = np.random.default_rng(5)
    patients = patients_of([1] * 30 + [2] * 20 + [4, 5, 7] * 4 + list(range(9, 21)))
    _, code = np.unique(patients, return_inverse=True)
    n = code.max() + 1
    a = np.maximum(rng.normal(size=(n, 200))[code] + 0.3 * rng.normal(size=(len(code), 200)), 0)
    labels = (rng.random((n, 200)) < 0.3).astype(float)[code]
    r = np.diag(pearson_of(sparse.csr_array(a.T), labels))
    p = permutation_p(r, own_null(a, labels, patients, 199))
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert (p <= 0.05).mean() < 0.1
    largest = pearson_of(sparse.csr_array(a[:, :30].T), labels).max(0)
    p = permutation_p(largest, largest_null([sparse.csc_array(a[:, :30])], labels, patients, 99))
    assert stats.kstest(p, "uniform").pvalue > 0.001 and 0.01 < (p <= 0.05).mean() < 0.1
