"""Scores at the edges: dead latents, one image, one held-out image, labels that never are known or never positive."""

import warnings

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from medsae_plugin.scores import summary
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import LatentMatrix, LatentWriter
from medsae_plugin.scores.models import Split
from medsae_plugin.scores.registry import METRICS
from medsae_plugin.scores.scoring import HeldOut, Resampling, Scored, sum_up
from medsae_plugin.scores.table import format_table
from medsae_plugin.scores.units import Neurons
from medsae_plugin.statistics.permutation import patient_shuffles


def scores_of(activations: np.ndarray, roles: list[str], folder, labels: np.ndarray | None = None) -> Scored:
    n, n_latents = activations.shape
    writer = LatentWriter(folder, n_latents)
    writer.add(activations)
    frame = pd.DataFrame({"image_id": np.arange(n), "path": "", "patient": [f"p{i}" for i in range(n)], "split": roles})
    writer.finish({"n_latents": n_latents, "n_images": n, "sae_sha256": ""}, frame)
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
        figures = {name: scored[name] for name in METRICS}
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
    activations[n + 4 : n + 20, 2] = 0  # on report it fires on four of the twenty
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
    whole.link([whole])
    said = format_table([whole], split, split, "max")
    assert "no interval: half (fewer than 10 patients with the finding)" in said
    assert "no interval: the mean (fewer than half" in said
    assert next(line for line in said.splitlines() if line.startswith("half ")).split()[4] == "-"


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
    writer.finish({"n_latents": 6, "n_images": n, "sae_sha256": ""}, frame)
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
