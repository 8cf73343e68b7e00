"""Phantoms whose latents are what was drawn: each label's top latent is its own finding, with the figures of arrays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.planted import relu_sae, save_sae, write_store
from scipy import stats
from sklearn.metrics import roc_auc_score

from medsae_plugin.phantoms import FINDINGS
from medsae_plugin.scores import Resampling, evaluate
from medsae_plugin.scores.models import Observation
from medsae_plugin.store import ActivationStore

FEW = Resampling(n_permutations=99)


@pytest.fixture(scope="module")
def scored(phantom_case, tmp_path_factory) -> tuple[ActivationStore, Path]:
    """Activations that are 1 where a finding was drawn, beside one that is always 1; and a latent for each finding."""
    folder = tmp_path_factory.mktemp("drawn")
    drawn = [[name in seen for name in FINDINGS] + [True] for seen in phantom_case.findings]
    images = phantom_case.table.frame[["image_id", "path", "patient", "split"]]
    store = write_store(folder / "store", {"hook_embedding": np.array(drawn, np.float32)}, images=images)
    return store, save_sae(folder / "sae", relu_sae("hook_embedding", torch.eye(len(FINDINGS), len(FINDINGS) + 1)))


def observations(scored, table) -> dict[str, Observation]:
    store, sae = scored
    evaluation = evaluate(store, [sae], table, resampling=FEW, progress=False)
    return {o.label: o for o in evaluation.saes[0].observations}


def test_each_labels_top_latent_is_the_finding_that_was_drawn(phantom_case, scored):
    table = phantom_case.table
    fires = np.array([[name in seen for name in FINDINGS] for seen in phantom_case.findings], dtype=float)
    splits = table.frame["split"].to_numpy()
    by_label, right = observations(scored, table), 0
    for label in FINDINGS:
        o, y, latent = by_label[label], table.labels[:, table.label_names.index(label)], FINDINGS.index(label)
        known, train = ~np.isnan(y) & (splits == "test"), ~np.isnan(y) & (splits == "train")
        r = {j: stats.pearsonr(fires[train, j], y[train])[0] for j in range(len(FINDINGS)) if np.ptp(fires[train, j])}
        if o.latent is None or max(r, key=r.get) != latent:
            continue  # too rare among these patients for a top latent, or a label drawn with errors
        assert o.latent == latent
        assert o.r == pytest.approx(stats.pearsonr(fires[known, latent], y[known])[0], abs=1e-5)
        assert o.auroc == pytest.approx(roc_auc_score(y[known], fires[known, latent]))
        assert o.r > o.r_chance and o.p_top < 0.01 and o.p_holm < 0.05
        right += 1
    assert right >= 10


def test_labels_of_other_patients_are_not_followed(phantom_case, scored):
    """Of 14 labels that are chance, three of four are within what 95 % of shuffles stay under."""
    table = phantom_case.table
    patients, code = np.unique(table.frame["patient"].to_numpy(), return_inverse=True)
    first = np.array([np.flatnonzero(code == k)[0] for k in range(len(patients))])
    wrong = replace(table, labels=table.labels[first][np.random.default_rng(0).permutation(len(patients))][code])
    followed = [o for o in observations(scored, wrong).values() if o.p_holm is not None]
    assert len(followed) >= 10 and sum(o.p_holm <= 0.05 for o in followed) <= len(followed) / 4
