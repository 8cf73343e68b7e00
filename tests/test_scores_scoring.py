"""Scores at the edges: dead latents, one image, one held-out image, labels that never are known or never positive."""

import warnings

import numpy as np
import pandas as pd
import pytest

from medsae_plugin.scores import declared  # noqa: F401, which declares the figures
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import LatentMatrix, LatentWriter
from medsae_plugin.scores.registry import METRICS
from medsae_plugin.scores.scoring import HeldOut, Resampling, Scored, sum_up
from medsae_plugin.scores.units import Neurons


def scores_of(activations: np.ndarray, roles: list[str], folder) -> Scored:
    n, n_latents = activations.shape
    writer = LatentWriter(folder, n_latents)
    writer.add(activations)
    frame = pd.DataFrame({"image_id": np.arange(n), "path": "", "patient": [f"p{i}" for i in range(n)], "split": roles})
    writer.finish({"n_latents": n_latents, "n_images": n, "sae_sha256": ""}, frame)
    matrix = LatentMatrix(folder)
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
    for values in (scored.null, figures["p_null"], *intervals, figures["r"][:, 1:]):
        assert np.isnan(values).all()
    auroc = figures["auroc"]
    assert auroc[0, 0] == 0.5 if case == "dead latents" else np.isnan(auroc[:, 0]).all()
    assert np.isinf(figures["threshold"][0])
