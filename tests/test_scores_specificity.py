"""The floor of the entropy and r given the other labels: against brute force, statsmodels, and cases worked out."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from medsae_plugin.scores import metrics
from medsae_plugin.scores.specificity import LEAST_OWN, LEAST_SPARE, entropy_floor, partial_r
from medsae_plugin.statistics.permutation import patient_shuffles


def test_the_floor_is_the_mean_entropy_with_all_but_the_strongest_label_shuffled():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 3)
    labels = rng.choice([0.0, 1.0, np.nan], p=[0.6, 0.3, 0.1], size=(120, 4))
    a = np.maximum(rng.normal(size=(120, 3)) + np.nan_to_num(labels)[:, [2, 0, 1]] * [1.0, -2.0, 0.5], 0)
    found = entropy_floor(a, labels, patient_shuffles(patients, 7, seed=3))

    def r(x, y):
        known = ~np.isnan(y)
        return abs(stats.pearsonr(x[known], y[known])[0])

    for j in range(3):
        own = max(range(4), key=lambda c: r(a[:, j], labels[:, c]))
        each = []
        for order in patient_shuffles(patients, 7, seed=3):
            kept = [r(a[:, j], labels[:, c] if c == own else labels[order, c]) for c in range(4)]
            each.append(stats.entropy(np.array(kept) / sum(kept)))
        assert found[j] == pytest.approx(np.mean(each))
        if j == 1:
            known = ~np.isnan(labels[:, own])
            assert own == 0 and stats.pearsonr(a[known, j], labels[known, own])[0] < -0.2, "it follows an absence"


def test_a_latent_of_one_label_lies_at_its_floor_and_one_of_four_labels_above():
    """Labels that know nothing of each other: the first latent is its label, the second is four of them."""
    rng = np.random.default_rng(1)
    patients = np.arange(400)
    above = []
    for _ in range(20):
        labels = (rng.random((400, 10)) < 0.3).astype(float)
        a = np.stack([labels[:, 0], labels[:, 1:5].sum(1)], 1)
        h = metrics.entropy(np.array([[stats.pearsonr(x, y)[0] for y in labels.T] for x in a.T]))
        floor = entropy_floor(a, labels, patient_shuffles(patients, 50, seed=0))
        assert h[0] > 0.5, "noise alone"
        above.append(h - floor)
    specific, shared = np.array(above).T
    assert abs(specific.mean()) < 0.1 and shared.min() > 0.1


def test_what_has_no_entropy_has_no_floor():
    labels = np.array([[0.0, 1.0] * 10, [1.0, 0.0] * 10]).T
    a = np.stack([np.zeros(20), np.arange(20.0)], 1)
    orders = list(patient_shuffles(np.arange(20), 3))
    floor = entropy_floor(a, labels, orders)
    assert np.isnan(floor[0]) and floor[1] > 0
    assert np.isnan(entropy_floor(a, labels[:, :1], orders)).all(), "nothing to choose between"
    assert np.isnan(entropy_floor(a, labels, [])).all()


def residuals(y, controls):
    return sm.OLS(y, sm.add_constant(controls)).fit().resid


@pytest.mark.parametrize("unknown", [0.0, 0.15])
def test_partial_r_is_the_correlation_of_statsmodels_residuals(unknown):
    rng = np.random.default_rng(2)
    latent = rng.normal(size=(300, 2))
    labels = (latent @ rng.normal(size=(2, 5)) + rng.normal(size=(300, 5)) > 0.3).astype(float)
    labels[rng.random(labels.shape) < unknown] = np.nan
    a = np.nan_to_num(labels) @ rng.normal(size=(5, 5)) + 3 * rng.normal(size=(300, 5)) + 50
    found = partial_r(a, labels)
    for c in range(5):
        known = ~np.isnan(labels[:, c])
        others = np.delete(labels[known], c, axis=1)
        controls = np.column_stack([np.nan_to_num(others), np.isnan(others)]) if unknown else others
        x, y = (residuals(v, controls) for v in (a[known, c], labels[known, c]))
        assert found[c] == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-9)
    for unit in (1e-6, 1e6):
        np.testing.assert_allclose(partial_r(unit * a, labels), found, atol=1e-6)
        of_others = unit * np.stack([np.nan_to_num(np.delete(labels, c, 1)).sum(1) for c in range(5)], 1)
        assert np.isnan(partial_r(of_others, labels)).all(), "nothing of it is left"
    if not unknown:  # the textbook's other formula, of the inverse of the correlations
        precision = np.linalg.inv(np.corrcoef(np.column_stack([a[:, 2], labels]).T))
        assert found[2] == pytest.approx(-precision[0, 3] / np.sqrt(precision[0, 0] * precision[3, 3]), abs=1e-9)


def test_what_only_comes_with_another_label_has_none_of_its_own():
    """Each child of an umbrella label has the umbrella; a latent of the child follows the umbrella by that alone."""
    rng = np.random.default_rng(3)
    child = (rng.random(4000) < 0.2).astype(float)
    umbrella = np.maximum(child, rng.random(4000) < 0.2)
    a = child + 0.3 * rng.normal(size=4000)
    assert stats.pearsonr(a, umbrella)[0] > 0.5
    found = partial_r(np.stack([a, a], 1), np.stack([child, umbrella], 1))
    assert found[0] > 0.6 and abs(found[1]) < 0.05


def test_labels_that_determine_each_other_make_no_nonsense():
    rng = np.random.default_rng(4)
    one = (rng.random(1000) < 0.3).astype(float)
    two = ((rng.random(1000) < 0.3) & (one == 0)).astype(float)
    third = (rng.random(1000) < 0.4).astype(float)
    a = one + third + 0.5 * rng.normal(size=1000)
    plain = partial_r(np.tile(a[:, None], 3), np.stack([one, two, third], 1))
    normal = 1 - one - two  # the absence of both
    tied = partial_r(np.tile(a[:, None], 4), np.stack([one, two, third, normal], 1))
    assert np.isnan(tied[[0, 1, 3]]).all(), "each is what the others leave"
    assert tied[2] == pytest.approx(plain[2]), "and the one that is not loses nothing"
    nearly = one.copy()
    nearly[0] = 1 - nearly[0]  # one image is all that tells them apart
    assert 0 < 1 - np.corrcoef(one, nearly)[0, 1] ** 2 < LEAST_OWN
    twins = partial_r(np.tile(a[:, None], 3), np.stack([one, nearly, third], 1))
    assert np.isnan(twins[:2]).all() and not np.isnan(twins[2])


def test_a_partial_r_needs_more_images_than_labels_and_something_that_varies():
    rng = np.random.default_rng(5)
    labels = (rng.random((8, 7)) < 0.5).astype(float)
    assert np.isnan(partial_r(rng.normal(size=(8, 7)), labels)).all()
    # A label that is regressed on takes one of the degrees; from ten images beyond it there is an r, and not before.
    n = LEAST_SPARE + 1
    two, x = np.stack([np.arange(n) % 2, np.arange(n) % 3 == 0], 1).astype(float), rng.normal(size=(n, 2))
    assert np.isfinite(partial_r(x, two)).all() and np.isnan(partial_r(x[:-1], two[:-1])).all() and LEAST_SPARE == 10
    three, x = np.random.default_rng(6).integers(0, 2, (n + 1, 3)).astype(float), rng.normal(size=(n + 1, 3))
    assert np.isfinite(partial_r(x, three)).all() and np.isnan(partial_r(x[:-1], three[:-1])).all()
    alone, x = np.arange(10.0)[:, None] % 2, rng.normal(size=(10, 1))  # nothing to regress on: plain r
    assert partial_r(x, alone)[0] == pytest.approx(stats.pearsonr(x[:, 0], alone[:, 0])[0])
    assert np.isnan(partial_r(x[:9], alone[:9])).all()
    many = (rng.random((60, 2)) < 0.5).astype(float)
    many[:, 1] = 0
    a = np.stack([np.full(60, 3.0), rng.normal(size=60)], 1)
    assert np.isnan(partial_r(a, many)).all()
    assert np.isnan(partial_r(a[:2], many[:2])).all()
