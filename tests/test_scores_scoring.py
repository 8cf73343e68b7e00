"""What each figure is taken from, split by split; and scores at the edges: dead latents, one image, one held-out image,
labels that never are known or never positive."""

import warnings

import numpy as np
import pandas as pd
import pytest
from helpers.planted import matrix_manifest
from scipy import stats
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from statsmodels.stats.multitest import multipletests

from medsae_plugin.scores import (
    declared,  # noqa: F401  so that METRICS holds the package's own
    summary,
)
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import LatentMatrix, LatentWriter
from medsae_plugin.scores.models import Split
from medsae_plugin.scores.registry import METRICS
from medsae_plugin.scores.scoring import HeldOut, Resampling, Scored, least_firing, sum_up
from medsae_plugin.scores.specificity import FLOOR_SHUFFLES
from medsae_plugin.scores.table import format_table
from medsae_plugin.scores.units import Neurons
from medsae_plugin.statistics.permutation import patient_shuffles


def scores_of(activations: np.ndarray, roles: list[str], folder, labels: np.ndarray | None = None) -> Scored:
    n, n_latents = activations.shape
    writer = LatentWriter(folder, n_latents)
    writer.add(activations)
    frame = pd.DataFrame({"image_id": np.arange(n), "path": "", "patient": [f"p{i}" for i in range(n)], "split": roles})
    writer.finish(matrix_manifest(n_latents, n), frame)
    matrix = LatentMatrix(folder)
    if labels is None:
        labels = np.stack([np.arange(n) % 2, np.full(n, np.nan), np.zeros(n)], axis=1).astype(float)
    splits = {"select": "select", "report": "report"}
    images = LabelledImages(frame, ("half", "unknown", "never"), labels, splits=splits)
    held_out = HeldOut(images, 0.3, Resampling(9, 9))
    units = Neurons.of("h", n_latents // 2)
    return Scored(units, sum_up(matrix, images), matrix=matrix, held_out=held_out)


@pytest.mark.parametrize("case", ["dead latents", "one image each", "one held out"])
def test_what_is_undefined_is_nan_without_a_warning(case, tmp_path):
    n = 2 if case == "one image each" else 30
    activations = np.zeros((n, 4), np.float32)
    if case != "dead latents":
        activations[:, 1] = np.arange(n) % 3
    held_out = 1 if case == "one held out" else n // 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scored = scores_of(activations, ["select"] * (n - held_out) + ["report"] * held_out, tmp_path)
        figures = {name: scored[name] for name in METRICS if scored.has(name)}
    assert scored.varying.tolist() == [case not in ("one image each", "one held out"), False, False]
    assert scored.top.tolist() == ([1, -1, -1] if case == "one held out" else [-1, -1, -1])
    intervals = [figures[name] for name in ("r_low", "r_high", "auroc_low", "auroc_high")]
    for values in (scored.own_null, scored.largest_null, figures["p_holm"], *intervals, figures["r"][:, 1:]):
        assert np.isnan(values).all()
    auroc = figures["auroc"]
    assert auroc[0, 0] == 0.5 if case == "dead latents" else np.isnan(auroc[:, 0]).all()
    assert np.isinf(figures["threshold"][0])


def test_nine_patients_with_a_finding_have_no_interval_and_ten_have_one(tmp_path):
    """As do few firings: each label without an interval says why in `metrics.json` and in the table."""
    n, rng = 80, np.random.default_rng(0)
    labels = np.zeros((2 * n, 3))
    for role in (0, n):
        labels[role : role + 9, 0] = labels[role : role + 10, 1] = labels[role : role + 20, 2] = 1
    activations = np.stack([labels[:, 0], labels[:, 1], labels[:, 2], np.zeros(2 * n)], axis=1) * rng.uniform(
        1, 2, (2 * n, 4)
    )
    activations[n + 4 : n + 20, 2] = 0  # on report it fires on four of the twenty,
    activations[n + 40 : n + 45, 2] = 1  # and on five others, so that 9 / 80 of twenty would be two
    scored = scores_of(activations.astype(np.float32), ["select"] * n + ["report"] * n, tmp_path, labels)
    few, enough, seldom = summary._observations(scored)
    assert few.latent == 0 and few.no_interval == "fewer than 10 patients with the finding"
    assert few.r_low is few.r_high is few.auroc_low is few.auroc_high is None and few.r > 0.9
    assert enough.no_interval is None and 0.5 < enough.r_low < enough.r < enough.r_high <= 1
    assert enough.auroc_low < enough.auroc == enough.auroc_high == 1
    assert seldom.no_interval == "fires on fewer than 5 patients with the finding" and seldom.r_low is None
    # One label of three has an interval: the mean has none.
    whole = summary._summary(scored)
    assert whole.mean_top_r_low is None and whole.no_interval.startswith("fewer than half of the observations")
    split = Split(split="report", images=n, patients=n)
    # One of two has: the mean has one.
    (tmp_path / "half").mkdir()
    roles = ["select"] * n + ["report"] * n
    two = np.column_stack([labels[:, 1:], np.zeros(2 * n)])  # and a label of nobody, which does not count
    half = scores_of(activations.astype(np.float32), roles, tmp_path / "half", two)
    assert [why is None for why in half.no_interval] == [True, False, False] and np.isfinite(half["mean_top_r_low"])
    whole.link([whole])
    said = format_table([whole], split, split, "max")
    assert "no interval: half (fewer than 10 patients with the finding)" in said
    assert "no interval: the mean (fewer than half" in said
    assert next(line for line in said.splitlines() if line.startswith("half ")).split()[4] == "-"


def test_a_pair_counts_from_five_firing_positives_that_are_to_be_expected(tmp_path):
    """Of 100 images 20 with the label: 25 firings make five, 24 less. Where half is unknown, of what is known."""
    labels = np.zeros((200, 3))
    labels[::5, :2] = 1
    labels[:, 2] = np.where(np.arange(200) % 2, np.nan, np.arange(200) % 20 < 4)
    fires = np.zeros((200, 4), np.float32)
    for j, n in enumerate((24, 25, 26)):
        fires[100 : 100 + n, j] = 1
    fires[100:150, 3] = np.arange(50) % 2 == 0  # on half of the fifty that are known of the third
    counted = scores_of(fires, ["select"] * 100 + ["report"] * 100, tmp_path, labels).counted
    assert counted[:, 0].tolist() == [False, True, True, True]
    assert counted[:, 2].tolist() == [False, False, False, True]


def test_chance_is_that_of_shuffled_patients_of_the_report_split(tmp_path):
    """Against loops over the shuffles: a top latent's null is its own, the same split's that of all latents."""
    rng = np.random.default_rng(0)
    n, names = 240, ("a", "b")
    activations = np.maximum(rng.normal(size=(n, 6)) - 0.5, 0).astype(np.float32)
    writer = LatentWriter(tmp_path, 6)
    writer.add(activations)
    roles = np.repeat(["select", "report"], n // 2)
    patients = np.char.add("p", (np.arange(n) // 3).astype(str))
    frame = pd.DataFrame({"image_id": np.arange(n), "path": "", "patient": patients, "split": roles})
    writer.finish(matrix_manifest(6, n), frame)
    labels = rng.choice([0.0, 1.0, np.nan], p=[0.6, 0.3, 0.1], size=(n, 2))
    images = LabelledImages(frame, names, labels, splits={"select": "select", "report": "report"})
    matrix, held_out = LatentMatrix(tmp_path), HeldOut(images, 0.3, Resampling(40, 9, seed=3))
    scored = Scored(Neurons.of("h", 3), sum_up(matrix, images), matrix=matrix, held_out=held_out)
    mine = np.flatnonzero(roles == "report")

    def r(order, j, c):
        y = labels[mine][order, c]
        known = ~np.isnan(y)
        return np.corrcoef(activations[mine][known, j], y[known])[0, 1]

    orders = list(patient_shuffles(patients[mine], 200, seed=3))
    for c in range(2):
        own = np.array([r(order, scored.top[c], c) for order in orders])
        assert scored["r_chance"][c] == pytest.approx(np.quantile(own, 0.95))
        observed = r(np.arange(len(mine)), scored.top[c], c)
        assert (own >= observed).sum() >= 10 and scored["p_top"][c] == (1 + (own >= observed).sum()) / 201
        largest = np.array([max(r(order, j, c) for j in range(6)) for order in orders[:40]])
        assert scored["r_same_split_chance"][c] == pytest.approx(np.quantile(largest, 0.95))
        best = max(r(np.arange(len(mine)), j, c) for j in range(6))
        assert scored["r_same_split"][c] == pytest.approx(best)
        assert (largest >= best).sum() >= 10 and scored["p_same_split"][c] == (1 + (largest >= best).sum()) / 41
    np.testing.assert_allclose(scored["p_holm"], multipletests(scored["p_top"], method="holm")[1])


Q, N_DRAWN, SEED = 0.3, 60, 5
SELECT, REPORT = np.arange(0, 90), np.arange(90, 210)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Latents that do one thing on `select` and another on `report`, so that no figure of one passes for the other's.

    Three images a patient; labels and latents go by patient. Returns the scores, activations, labels and embeddings.
    """
    folder, rng = tmp_path_factory.mktemp("drawn"), np.random.default_rng(11)
    patient = np.arange(210) // 3
    labels = (rng.random((70, 3)) < 0.4).astype(float)[patient]
    a = np.maximum(rng.normal(size=(70, 6))[patient] + 0.3 * rng.normal(size=(210, 6)), 0)
    a[:90, :3] += labels[:90]  # on select, latent c follows label c,
    a[90:, :3] += 3 * labels[90:][:, [1, 2, 0]]  # on report another one, and stronger
    a[:90, 3:] *= rng.random((90, 3)) < 0.5
    labels[rng.random(labels.shape) < 0.1] = np.nan
    embeddings = rng.normal(size=(210, 4)) + np.arange(210)[:, None] / 50
    frame = pd.DataFrame({"image_id": np.arange(210), "path": "", "patient": [f"p{k:02d}" for k in patient]})
    frame["split"] = np.where(np.arange(210) < 90, "train", "test")
    writer = LatentWriter(folder, 6)
    writer.add(a.astype(np.float32))
    writer.finish(matrix_manifest(6, 210), frame)
    matrix = LatentMatrix(folder)
    images = LabelledImages(
        frame,
        ("one", "two", "three"),
        labels,
        splits={"select": "train", "report": "test"},
        d_embedding=4,
        embeddings=lambda rows: embeddings[rows],
    )
    held_out = HeldOut(images, Q, Resampling(N_DRAWN, N_DRAWN, SEED))
    scored = Scored(Neurons.of("h", 3), sum_up(matrix, images), matrix=matrix, held_out=held_out)
    return scored, a.astype(np.float32).astype(np.float64), labels, embeddings


def test_a_latent_is_chosen_that_fires_on_ten_images_or_of_few_on_a_twentieth_and_two():
    found = {n: least_firing(n) for n in (0, 39, 40, 59, 60, 199, 200, 10**6)}
    assert found == {0: 2, 39: 2, 40: 2, 59: 2, 60: 3, 199: 9, 200: 10, 10**6: 10}


def test_what_fires_too_seldom_on_select_is_not_chosen(tmp_path):
    fires = np.zeros((160, 4), np.float32)
    for j, n in enumerate((3, 4, 5)):
        fires[:n, j] = fires[80 : 80 + n, j] = 1
    labels = np.tile((fires[:, :1] > 0).astype(float), 3)  # that of three images, which the first latent is
    scored = scores_of(fires, ["select"] * 80 + ["report"] * 80, tmp_path, labels)
    assert scored.eligible.tolist() == [False, True, True, False] and scored.top.tolist() == [1, 1, 1]


def known_pairs(a, labels, rows, j, c):
    rows = rows[~np.isnan(labels[rows, c])]
    return a[rows, j], labels[rows, c]


def test_top_latents_are_chosen_on_select_and_reported_on_report(drawn):
    scored, a, labels, _ = drawn
    assert scored.top.tolist() == [0, 1, 2]
    for name, rows in (("r_select", SELECT), ("r", REPORT)):
        for j in range(6):
            for c in range(3):
                assert scored[name][j, c] == pytest.approx(stats.pearsonr(*known_pairs(a, labels, rows, j, c))[0])
    assert (np.abs(scored["r"] - scored["r_select"]).max(0) > 0.2).all()
    np.testing.assert_array_equal(scored.top_r, scored["r"][scored.top])
    for c, label in enumerate(labels[REPORT].T):
        showing = [len({row // 3 for row in np.flatnonzero(label == value)}) for value in (0, 1)]
        assert scored.degrees[c] == min(showing) - 1


def test_thresholds_are_those_of_select_and_what_they_detect_that_of_report(drawn):
    scored, a, labels, _ = drawn
    for j in range(6):
        on_select = a[SELECT, j]
        threshold = np.quantile(on_select[on_select > 0], 1 - Q)
        assert scored["threshold"][j] == pytest.approx(threshold, abs=1e-6)
        assert abs(threshold - np.quantile(a[REPORT, j][a[REPORT, j] > 0], 1 - Q)) > 1e-3
        for c in range(3):
            x, y = known_pairs(a, labels, REPORT, j, c)
            assert scored["precision"][j, c] == pytest.approx(precision_score(y, x > threshold))
            assert scored["recall"][j, c] == pytest.approx(recall_score(y, x > threshold))
            assert scored["f1"][j, c] == pytest.approx(f1_score(y, x > threshold))
            assert scored["auroc"][j, c] == pytest.approx(roc_auc_score(y, x))


def test_figures_of_a_latent_are_those_of_report(drawn):
    scored, a, labels, embeddings = drawn
    unit = embeddings[REPORT] / np.linalg.norm(embeddings[REPORT], axis=1, keepdims=True)
    cosine = unit @ unit.T
    for j in range(6):
        x = a[REPORT, j]
        assert scored["density"][j] == pytest.approx((x > 0).mean())
        assert scored["maximum"][j] == pytest.approx(x.max())
        weight = np.array([abs(stats.pearsonr(*known_pairs(a, labels, REPORT, j, c))[0]) for c in range(3)])
        assert scored["entropy"][j] == pytest.approx(stats.entropy(weight / weight.sum()))
        scaled = (x - x.min()) / (x.max() - x.min())
        pairs = np.outer(scaled, scaled) * (1 - np.eye(len(x)))
        assert scored["monosemanticity"][j] == pytest.approx((pairs * cosine).sum() / pairs.sum())
        for c in range(3):
            x, y = known_pairs(a, labels, REPORT, j, c)
            assert scored["selectivity"][j, c] == pytest.approx(x[y == 1].mean() - x[y == 0].mean())


def test_the_floor_shuffles_patients_of_report_by_the_seed(drawn):
    scored, a, labels, _ = drawn
    assert FLOOR_SHUFFLES < N_DRAWN
    patients = scored.held_out.images.patients[REPORT]
    r = np.array([[stats.pearsonr(*known_pairs(a, labels, REPORT, j, c))[0] for c in range(3)] for j in range(3)])
    for j, own in enumerate(np.abs(r).argmax(1)):
        entropies = []
        for order in patient_shuffles(patients, FLOOR_SHUFFLES, SEED):
            shuffled = np.vstack([labels[SELECT], labels[REPORT][order]])
            kept = np.array([abs(stats.pearsonr(*known_pairs(a, shuffled, REPORT, j, c))[0]) for c in range(3)])
            kept[own] = abs(r[j, own])
            entropies.append(stats.entropy(kept / kept.sum()))
        assert scored["entropy_floor"][j] == pytest.approx(np.mean(entropies), abs=1e-6)


def test_r_given_the_others_is_that_of_report(drawn):
    scored, a, labels, _ = drawn
    for c, j in enumerate(scored.top):
        rows = REPORT[~np.isnan(labels[REPORT, c])]
        others = np.delete(labels[rows], c, axis=1)
        controls = np.column_stack([np.ones(len(rows)), np.nan_to_num(others), np.isnan(others)])
        x, y = (v - controls @ np.linalg.lstsq(controls, v, rcond=None)[0] for v in (a[rows, j], labels[rows, c]))
        assert scored["r_partial"][c] == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-6)
