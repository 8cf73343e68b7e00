"""Scores at the edges: dead latents, one image, one held-out image, labels that never are known or never positive."""

import warnings

import numpy as np
import pandas as pd
import pytest
from medsae_plugin.scores.targets import Targets

from medsae_plugin.scores.matrix import LatentMatrix, LatentWriter
from medsae_plugin.scores.scoring import RankScores, Resampling, SumScores, score_ranks, score_sums, sum_up


def scores_of(activations: np.ndarray, roles: list[str], folder) -> tuple[SumScores, RankScores]:
    n, n_latents = activations.shape
    writer = LatentWriter(folder, n_latents)
    writer.add(activations)
    images = pd.DataFrame({"image_id": np.arange(n), "path": "", "patient": "", "split": ""})
    writer.finish({"n_latents": n_latents, "n_images": n, "sae_sha256": ""}, images)
    matrix = LatentMatrix(folder)
    labels = np.stack([np.arange(n) % 2, np.full(n, np.nan), np.zeros(n)], axis=1).astype(float)
    targets = Targets(("half", "unknown", "never"), labels, np.array([f"p{i}" for i in range(n)]), np.array(roles))
    sums = sum_up(matrix, targets)
    by_sums = score_sums(sums["select"], sums["report"])
    return by_sums, score_ranks(matrix, targets, by_sums, 0.3, Resampling(9, 9))


@pytest.mark.parametrize("case", ["dead latents", "one image each", "one held out"])
def test_what_is_undefined_is_nan_without_a_warning(case, tmp_path):
    n = 2 if case == "one image each" else 30
    activations = np.zeros((n, 4), np.float32)
    if case != "dead latents":
        activations[:, 1] = np.arange(n) % 3
    held_out = 1 if case == "one held out" else n // 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sums, ranks = scores_of(activations, ["select"] * (n - held_out) + ["report"] * held_out, tmp_path)
    assert sums.top.tolist() == ([1, -1, -1] if case == "one held out" else [-1, -1, -1])
    for values in (ranks.null, ranks.p_null, *ranks.r_interval, *ranks.auroc_interval, sums.r[:, 1:]):
        assert np.isnan(values).all()
    assert ranks.auroc[0, 0] == 0.5 if case == "dead latents" else np.isnan(ranks.auroc[:, 0]).all()
    assert np.isinf(ranks.threshold[0])
