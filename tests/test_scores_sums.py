"""Streaming statistics and metrics against scipy, scikit-learn, numpy and brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats
from sklearn import metrics as sk

from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores import metrics, sketch
from medsae_plugin.scores.strongest import Strongest
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.statistics.correlation import pearson_of

NAMES = ("Edema", "Fracture", "Pneumonia")
D = 5


def draw(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, np.nan], size=(n, 3), p=[0.5, 0.3, 0.2])
    activations = np.maximum(rng.normal(size=(n, 7)) + np.nan_to_num(labels) @ rng.normal(size=(3, 7)), 0)
    activations[:, 4] = 0  # dead
    activations[:, 5] += 1e6  # an offset that cancels naive sums
    activations[:, 6] -= 1  # with a sign
    return activations, labels, rng.normal(size=(n, D)) + 0.5


def statistics_of(a, labels, embeddings, batch: int = 1000) -> LatentStatistics:
    s = LatentStatistics(a.shape[1], NAMES, embeddings.shape[1])
    for i in range(0, a.shape[0], batch):
        part = slice(i, i + batch)
        s.update(a[part], labels[part], embeddings[part])
    return s


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, sparse.csr_array])
@pytest.mark.parametrize("batch", [1, 7, 500])
def test_pearson_is_scipys_point_biserial_over_the_known_images(batch, kind):
    a, y, e = draw(200)
    s = statistics_of(kind(a), y, e, batch)
    r = metrics.pearson(s)
    direct = pearson_of(sparse.csr_array(a.T), y)
    for j in range(7):
        for c in range(3):
            known = ~np.isnan(y[:, c])
            if j == 4:
                assert np.isnan(r[j, c]) and np.isnan(direct[j, c])
                continue
            expected = stats.pointbiserialr(y[known, c], a[known, j])
            assert r[j, c] == pytest.approx(expected[0], abs=1e-9)
            if j != 5:
                assert direct[j, c] == pytest.approx(expected[0], abs=1e-9)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_batches_of_few_images_of_sparse_latents_add_up(batch):
    """As of a label that is known on one image of the batch, or on none."""
    a, y, e = draw(120)
    a = np.where(a > 1.5, a, 0) * (np.arange(7) != 5)
    for kind in (np.asarray, sparse.csr_array):
        parts, whole = statistics_of(kind(a), y, e, batch), statistics_of(a, y, e)
        for name in ("mean", "scatter", "cross", "overall_mean", "overall_scatter", "mean_label"):
            np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-9, err_msg=name)


def test_other_sums_are_those_of_all_images_at_once():
    a, y, e = draw(150)
    s = statistics_of(a, y, e, batch=40)
    for c in range(3):
        known, present = ~np.isnan(y[:, c]), y[:, c] == 1
        np.testing.assert_allclose(
            metrics.selectivity(s)[:, c], a[present].mean(0) - a[known & ~present].mean(0), atol=1e-8
        )
        fires = metrics.firing_detection(s)
        for j in (0, 4, 6):
            args = {"y_true": present[known], "y_pred": a[known, j] > 0, "zero_division": np.nan}
            assert fires["precision"][j, c] == pytest.approx(sk.precision_score(**args), nan_ok=True)
            assert fires["recall"][j, c] == pytest.approx(sk.recall_score(**args))
            assert fires["f1"][j, c] == pytest.approx(sk.f1_score(**{**args, "zero_division": 0}))
    np.testing.assert_array_equal(s.fired, (a > 0).sum(0))
    np.testing.assert_array_equal(s.maximum, a.max(0))
    np.testing.assert_array_equal(s.minimum, a.min(0))
    share = (a > 0).mean(0)
    assert metrics.sparsity(s) == pytest.approx(
        {"l0": (a > 0).sum(1).mean(), "dead": (share == 0).mean(), "dense": (share > 0.1).mean()}
    )
    assert metrics.density_histogram(s).sum() == (share > 0).sum()
    quarters = np.floor(4 * (np.log10(share[share > 0]) + 6)).clip(0, 23).astype(int)  # of a decade, from 1e-6 on
    np.testing.assert_array_equal(metrics.density_histogram(s), np.bincount(quarters, minlength=24))


def test_the_strongest_images_are_those_of_sorting_whatever_the_parts():
    a = np.round(draw(150)[0], 1)  # ties
    image, latent = a.nonzero()
    got = Strongest.none(7, 3)
    for part in np.array_split(np.random.default_rng(0).permutation(len(image)), 4):
        got = got.merge(Strongest.of(latent[part], a[image[part], latent[part]], image[part], 7, 3))
    for j in range(7):
        strongest = np.lexsort((np.arange(150), -a[:, j]))[:3]
        strongest = np.where(a[strongest, j] > 0, strongest, -1)
        np.testing.assert_array_equal(got.images[j], strongest)
        np.testing.assert_array_equal(got.values[j], np.where(strongest >= 0, a[strongest, j], 0))


def test_monosemanticity_is_the_pair_loops():
    a, y, e = draw(60)
    a[:, 3] = 0
    a[7, 3] = 2.0  # above its minimum on one image alone: no pair
    score = metrics.monosemanticity(statistics_of(a, y, e, batch=13))
    unit = e / np.linalg.norm(e, axis=1, keepdims=True)
    for j in range(7):
        if j in (3, 4):
            assert np.isnan(score[j])
            continue
        scaled = (a[:, j] - a[:, j].min()) / (a[:, j].max() - a[:, j].min())
        weighted = weights = 0.0
        for i in range(60):
            for k in range(i):
                weighted += scaled[i] * scaled[k] * (unit[i] @ unit[k])
                weights += scaled[i] * scaled[k]
        assert score[j] == pytest.approx(weighted / weights, abs=1e-8)
    assert np.isnan(metrics.monosemanticity(statistics_of(a, y, e[:, :0]))).all()
    for unit in (1e-6, 1e6):
        again = metrics.monosemanticity(statistics_of(unit * a, y, e))
        np.testing.assert_allclose(again, score, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 120), min_size=2, max_size=2), order=st.permutations(range(3)), sparsely=st.booleans()
)
def test_merging_parts_in_any_order_gives_the_whole(cuts, order, sparsely):
    a, y, e = draw(120)
    if sparsely:
        a[:, 5] -= 1e6
        a = sparse.csr_array(np.where(a > 0.8, a, 0))
    low, high = sorted(cuts)
    bounds = [(0, low), (low, high), (high, 120)]
    merged = LatentStatistics(7, NAMES, D)
    for k in order:
        first, last = bounds[k]
        merged.merge(statistics_of(a[first:last], y[first:last], e[first:last]))
    whole = statistics_of(a, y, e)
    for name in ("n_images", "fired", "fired_known", "fired_positive", "minimum", "maximum", "histogram", "positives"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
    for score in (metrics.pearson, metrics.selectivity, metrics.monosemanticity):
        np.testing.assert_allclose(score(merged), score(whole), atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-7, 1e7), min_size=1, max_size=60), st.floats(0, 1))
def test_a_sketched_quantile_is_the_lower_one_to_its_relative_error(values, q):
    x = np.array(values)
    counts = sketch.count(np.zeros(len(x), dtype=int), x, 1)
    expected = np.quantile(x, q, method="lower")
    assert sketch.quantile(counts, q)[0] == pytest.approx(expected, rel=1.01 * sketch.RELATIVE_ERROR)


def test_what_is_saved_is_what_is_loaded_and_merges_on(tmp_path):
    a, y, e = draw(90)
    first, second = statistics_of(a[:50], y[:50], e[:50]), statistics_of(a[50:], y[50:], e[50:])
    second.patients = np.array([3.0, 4.0, 5.0])
    second.save(tmp_path / "site.safetensors")
    loaded = LatentStatistics.load(tmp_path / "site.safetensors")
    for name in vars(second):
        if name != "strongest":
            np.testing.assert_array_equal(getattr(loaded, name), getattr(second, name))
    first.merge(loaded)
    np.testing.assert_allclose(metrics.pearson(first), metrics.pearson(statistics_of(a, y, e)), atol=1e-9)
    second.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "site.safetensors").read_bytes()


def test_files_that_are_no_sound_statistics_are_refused(tmp_path):
    with pytest.raises(MedSAEError, match="no statistics at"):
        LatentStatistics.load(tmp_path / "absent.safetensors")
    statistics_of(*draw(9)).save(tmp_path / "sound.safetensors")
    whole = (tmp_path / "sound.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-10])
    (tmp_path / "old.safetensors").write_bytes(whole.replace(b'schema_version\\": 1', b'schema_version\\": 9'))
    (tmp_path / "text.safetensors").write_text("not statistics")
    with pytest.raises(MedSAEError, match="schema version 9"):
        LatentStatistics.load(tmp_path / "old.safetensors")
    for name in ("cut", "text"):
        with pytest.raises(MedSAEError, match="sound statistics"):
            LatentStatistics.load(tmp_path / f"{name}.safetensors")


def test_what_is_undefined_is_nan():
    def pearson(a, y):
        s = LatentStatistics(a.shape[1], NAMES)
        for i in range(0, len(a), 3):
            s.update(a[i : i + 3], y[i : i + 3])
        return metrics.pearson(s)

    a = np.array([[1.0], [2.0], [3.0], [4.0]])
    y = np.array([[1, np.nan, 0], [1, np.nan, 0], [1, np.nan, 1], [1, 0, np.nan]], dtype=float)
    r = pearson(a, y)
    assert np.isnan(r[0, :2]).all() and r[0, 2] == pytest.approx(stats.pearsonr([1, 2, 3], [0, 0, 1])[0])
    assert np.isnan(pearson(a[:1], y[:1])).all()
    assert np.isnan(pearson(np.full((4, 1), 0.1 + 0.2), y)).all()
    nothing = LatentStatistics(2, NAMES)
    assert math.isnan(metrics.sparsity(nothing)["l0"]) and np.isnan(metrics.density(nothing)).all()


def test_bad_input_is_refused_in_words():
    s = LatentStatistics(2, NAMES, 1)
    e = np.ones((1, 1))
    with pytest.raises(MedSAEError, match="nan or infinity"):
        s.update(torch.tensor([[1.0, float("nan")]]), np.zeros((1, 3)), e)
    with pytest.raises(MedSAEError, match="nan or infinity"):
        s.update(sparse.csr_array(np.array([[np.inf, 1.0]])), np.zeros((1, 3)), e)
    with pytest.raises(MedSAEError, match="0, 1 or nan"):
        s.update(torch.ones(1, 2), np.full((1, 3), -1.0), e)
    with pytest.raises(MedSAEError, match="do not fit"):
        s.update(torch.ones(1, 3), np.zeros((1, 3)), e)
    with pytest.raises(MedSAEError, match="embeddings"):
        s.update(torch.ones(1, 2), np.zeros((1, 3)))
    with pytest.raises(MedSAEError, match="do not fit 1 images of 1 dimensions"):
        s.update(torch.ones(1, 2), np.zeros((1, 3)), np.ones((1, 2)))
    with pytest.raises(MedSAEError, match="no direction"):
        s.update(torch.ones(1, 2), np.zeros((1, 3)), 0 * e)
    with pytest.raises(MedSAEError, match="cannot merge statistics: label_names"):
        s.merge(LatentStatistics(2, NAMES[:2], 1))
    s.update(torch.ones(0, 2), np.zeros((0, 3)), np.ones((0, 1)))
    assert s.n_images == 0


def test_entropy_is_scipys_and_its_limits_are_0_and_ln_c():
    r = np.array([[0.5, 0, 0, 0], [0.2, -0.2, 0.2, 0.2], [0.1, 0.4, -0.3, np.nan], [np.nan] * 4])
    h = metrics.entropy(r)
    assert h[0] == 0 and h[1] == pytest.approx(math.log(4)) and np.isnan(h[3])
    assert h[2] == pytest.approx(stats.entropy([0.1, 0.4, 0.3]))
    assert np.isnan(metrics.entropy(np.zeros((1, 3)))).all(), "it follows none"


def test_top_latent_takes_the_largest_signed_r_of_those_eligible():
    r = np.array([[0.1, np.nan, -0.9], [0.3, np.nan, -0.2], [0.3, np.nan, np.nan]])
    assert metrics.top_latent(r).tolist() == [1, -1, 1]
    assert metrics.top_latent(r, np.array([True, False, False])).tolist() == [0, -1, 0]


def test_mean_ranks_rank_in_the_right_direction_and_share_ties():
    figures = [{"r": 0.5, "h": 1.0}, {"r": 0.4, "h": 1.0}, {"r": None, "h": 0.5}]
    assert metrics.mean_ranks(figures, {"r": True, "h": False}) == [1.75, 2.25, 2.0]
    assert metrics.mean_ranks([], {"r": True}) == []
