"""Rankings from nonzeros alone against scikit-learn on dense arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from medsae_plugin.scores.ranking import auroc_and_average_precision, detection_above, thresholds

# Few distinct values, so that ties abound; negative ones as raw neurons have.
ACTIVATIONS = hnp.arrays(
    np.float32, st.tuples(st.integers(4, 30), st.integers(1, 4)), elements=st.sampled_from([-1, 0, 0, 0, 0.5, 1, 2])
)


@settings(max_examples=80, deadline=None)
@given(a=ACTIVATIONS, seed=st.integers(0, 99))
def test_auroc_and_average_precision_are_scikit_learns(a, seed):
    labels = np.random.default_rng(seed).choice([0.0, 1.0, np.nan], p=[0.5, 0.3, 0.2], size=(len(a), 2))
    auroc, precision = auroc_and_average_precision(sparse.csc_array(a), labels)
    for j in range(a.shape[1]):
        for c in range(2):
            known = ~np.isnan(labels[:, c])
            y, x = labels[known, c], a[known, j]
            if y.sum() == 0:
                assert np.isnan(auroc[j, c]) and np.isnan(precision[j, c])
                continue
            assert precision[j, c] == pytest.approx(average_precision_score(y, x))
            expected = np.nan if y.all() else roc_auc_score(y, x)
            assert auroc[j, c] == pytest.approx(expected, nan_ok=True)


@settings(max_examples=80, deadline=None)
@given(a=ACTIVATIONS, q=st.floats(0, 1))
def test_thresholds_are_numpys_quantiles_of_the_positive_activations(a, q):
    found = thresholds(sparse.csc_array(a), q)
    for j in range(a.shape[1]):
        positive = a[a[:, j] > 0, j].astype(np.float64)
        expected = np.quantile(positive, 1 - q) if len(positive) else np.inf
        assert found[j] == pytest.approx(expected)


def test_thresholds_of_many_latents_are_each_their_own():
    rng = np.random.default_rng(3)
    a = rng.normal(size=(37, 40)) * (rng.random((37, 40)) < rng.random(40))
    for q in (0.0, 0.1, 0.37, 0.5, 0.93, 1.0):
        for j, found in enumerate(thresholds(sparse.csc_array(a), q)):
            positive = a[a[:, j] > 0, j]
            assert found == pytest.approx(np.quantile(positive, 1 - q) if len(positive) else np.inf)


def test_a_latent_detects_above_its_threshold_and_not_at_it():
    a = sparse.csc_array(np.array([[1.0], [2.0], [3.0], [0.0]]))
    found = detection_above(a, np.array([2.0]), np.array([[0.0], [0.0], [1.0], [1.0]]))
    assert found["precision"] == 1 and found["recall"] == 0.5
    dead = detection_above(sparse.csc_array(np.zeros((4, 1))), np.array([0.0]), np.ones((4, 1)))
    assert np.isnan(dead["precision"]) and dead["recall"] == 0


def test_detection_is_scikit_learns_and_undefined_where_nothing_fires():
    rng = np.random.default_rng(0)
    a = np.maximum(rng.normal(size=(200, 3)), 0)
    a[:, 2] = 0
    labels = rng.choice([0.0, 1.0, np.nan], size=(200, 2))
    labels[:, 1] = np.where(labels[:, 1] == 1, 0, labels[:, 1])
    columns = sparse.csc_array(a)
    threshold = thresholds(columns, 0.3)
    found = detection_above(columns, threshold, labels)
    known = ~np.isnan(labels[:, 0])
    for j in (0, 1):
        y, fires = labels[known, 0], a[known, j] > threshold[j]
        assert found["precision"][j, 0] == pytest.approx(precision_score(y, fires))
        assert found["recall"][j, 0] == pytest.approx(recall_score(y, fires))
        assert found["f1"][j, 0] == pytest.approx(f1_score(y, fires))
    assert np.isnan(found["precision"][2, 0]) and found["recall"][2, 0] == found["f1"][2, 0] == 0
    assert np.isnan(found["recall"][:, 1]).all() and np.isnan(found["f1"][:, 1]).all()
