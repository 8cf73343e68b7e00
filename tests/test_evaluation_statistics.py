"""Streaming statistics and metrics against scipy, numpy and brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medsae_plugin.errors import MedSAEError
from medsae_plugin.evaluation.metrics import entropy, pearson, top_latent
from medsae_plugin.evaluation.statistics import LatentStatistics

NAMES = ("Edema", "Fracture", "Pneumonia")


def draw(n: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, np.nan], size=(n, 3), p=[0.5, 0.3, 0.2])
    activations = np.maximum(rng.normal(size=(n, 6)) + np.nan_to_num(labels) @ rng.normal(size=(3, 6)), 0)
    activations[:, 4] = 0  # dead
    activations[:, 5] += 1e6  # an offset that cancels naive sums
    return torch.from_numpy(activations), labels


def statistics_of(activations: torch.Tensor, labels: np.ndarray, batch: int = 1000) -> LatentStatistics:
    s = LatentStatistics(activations.shape[1], NAMES)
    for i in range(0, len(activations), batch):
        s.update(activations[i : i + batch], labels[i : i + batch])
    return s


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_pearson_is_scipys_point_biserial_over_the_known_images(batch):
    a, y = draw(200)
    r = pearson(statistics_of(a, y, batch))
    for j in range(6):
        for c in range(3):
            known = ~np.isnan(y[:, c])
            if j == 4:
                assert np.isnan(r[j, c])
            else:
                assert r[j, c] == pytest.approx(stats.pointbiserialr(y[known, c], a.numpy()[known, j])[0], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 120), min_size=2, max_size=2), order=st.permutations(range(3)))
def test_merging_parts_in_any_order_gives_the_whole(cuts, order):
    a, y = draw(120)
    low, high = sorted(cuts)
    parts = [slice(0, low), slice(low, high), slice(high, 120)]
    merged = LatentStatistics(6, NAMES)
    for k in order:
        merged.merge(statistics_of(a[parts[k]], y[parts[k]]))
    whole = statistics_of(a, y)
    assert merged.n_images == 120
    torch.testing.assert_close(merged.fired, (a > 0).sum(0).double())
    torch.testing.assert_close(merged.maximum, a.amax(0))
    torch.testing.assert_close(merged.positives, torch.from_numpy((y == 1).sum(0)).double())
    np.testing.assert_allclose(pearson(merged), pearson(whole), atol=1e-9)


def test_what_is_undefined_is_nan():
    a = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    y = np.array([[1, np.nan, 0], [1, np.nan, 0], [1, np.nan, 1], [1, 0, np.nan]], dtype=float)
    r = pearson(statistics_of(a, y))
    assert np.isnan(r[0, :2]).all() and r[0, 2] == pytest.approx(stats.pearsonr([1, 2, 3], [0, 0, 1])[0])
    assert np.isnan(pearson(statistics_of(a[:1], y[:1]))).all()
    constant = torch.full((4, 1), 0.1 + 0.2)
    assert np.isnan(pearson(statistics_of(constant, y, batch=3))).all()


def test_bad_input_is_refused_in_words():
    s = LatentStatistics(2, NAMES)
    with pytest.raises(MedSAEError, match="nan or infinity"):
        s.update(torch.tensor([[1.0, float("nan")]]), np.zeros((1, 3)))
    with pytest.raises(MedSAEError, match="0, 1 or nan"):
        s.update(torch.ones(1, 2), np.full((1, 3), -1.0))
    with pytest.raises(MedSAEError, match="do not fit"):
        s.update(torch.ones(1, 3), np.zeros((1, 3)))
    with pytest.raises(MedSAEError, match="cannot merge"):
        s.merge(LatentStatistics(2, NAMES[:2]))
    s.update(torch.ones(0, 2), np.zeros((0, 3)))
    assert s.n_images == 0


def test_entropy_is_scipys_and_its_limits_are_0_and_ln_c():
    r = np.array([[0.5, 0, 0, 0], [0.2, -0.2, 0.2, 0.2], [0.1, 0.4, -0.3, np.nan], [np.nan] * 4])
    h = entropy(r)
    assert h[0] == 0 and h[1] == pytest.approx(math.log(4)) and np.isnan(h[3])
    assert h[2] == pytest.approx(stats.entropy([0.1, 0.4, 0.3]))


def test_top_latent_takes_the_largest_signed_r():
    r = np.array([[0.1, np.nan, -0.9], [0.3, np.nan, -0.2], [0.3, np.nan, np.nan]])
    assert top_latent(r).tolist() == [1, -1, 1]
