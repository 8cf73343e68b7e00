"""The bundled SAEs on phantoms that nobody has seen: which findings their top latents follow, and what chance does."""

from dataclasses import replace

import numpy as np
import pytest

from medsae_plugin.activations import extract
from medsae_plugin.data.phantoms import generate
from medsae_plugin.data.tables import read_table
from medsae_plugin.encoders import HookedVisionEncoder
from medsae_plugin.encoders.cards import pretrained_folder
from medsae_plugin.evaluation import Resampling, evaluate_saes

SEED = 77  # the release was trained on those of seed 0
CLEAR = ("No Finding", "Cardiomegaly", "Edema", "Pleural Effusion", "Support Devices")
FEW = Resampling(n_permutations=99, n_bootstrap=200)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fresh")
    table = read_table(generate(300, folder / "phantoms", seed=SEED, size=128))
    table = table.split_by_patient(fractions={"train": 0.5, "test": 0.5})
    saes = [pretrained_folder() / "medsae-phantom" / name for name in ("last-block", "embedding")]
    hooks = ["stages.2.blocks.3.hook_resid_post", "hook_embedding"]
    store = extract(HookedVisionEncoder.from_pretrained("phantom-swin"), table, hooks, folder / "store", progress=False)
    return store, saes, table, evaluate_saes(store, saes, table, resampling=FEW, progress=False)


def test_top_latents_follow_the_findings_that_were_drawn(scored):
    for sae in (c for c in scored[3]["candidates"] if c["kind"] == "sae"):
        by_label = {o["label"]: o for o in sae["observations"]}
        for label in CLEAR:
            assert by_label[label]["r"] > by_label[label]["r_null"] and by_label[label]["auroc"] > 0.75
        right = sum(o["follows"] == o["label"] for o in sae["observations"])
        assert right >= 6, f"{right} of 14 top latents follow their own observation most"
        assert sae["gain_over_neurons"]["mean_top_r"] > 0
        assert sae["fidelity"]["explained_variance"] > 0.95


def test_labels_of_other_patients_are_not_followed(scored):
    store, saes, table, _ = scored
    patients, code = np.unique(store.images["patient"].to_numpy(), return_inverse=True)
    first = np.array([np.flatnonzero(code == k)[0] for k in range(len(patients))])
    shuffled = np.random.default_rng(0).permutation(len(patients))
    wrong = replace(table, labels=table.labels[first][shuffled][code])
    for sae in evaluate_saes(store, saes, wrong, resampling=FEW, progress=False)["candidates"]:
        assert abs(sae["mean_top_r"]) < 0.12
        assert sum(o["p_null"] is not None and o["p_null"] <= 0.05 for o in sae["observations"]) <= 3
