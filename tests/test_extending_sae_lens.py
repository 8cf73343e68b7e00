"""An architecture that a module outside registers with SAE-Lens: trained, scored and published like SAE-Lens's own."""

import json
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import planted_rows, write_store
from huggingface_hub import ModelCard
from sae_lens import SAE
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from safetensors.torch import load_file

import medsae_plugin as medsae

MODULE = '''
"""`power_relu`: latents are a power of what a ReLU leaves."""

from dataclasses import dataclass

from sae_lens import StandardSAE, StandardSAEConfig, StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.registry import register_sae_class, register_sae_training_class

@dataclass
class PowerSAEConfig(StandardSAEConfig):
    power: float = 1.0

    @classmethod
    def architecture(cls):
        return "power_relu"

class PowerSAE(StandardSAE):
    def encode(self, x):
        return super().encode(x) ** self.cfg.power

@dataclass
class PowerTrainingSAEConfig(StandardTrainingSAEConfig):
    power: float = 1.0

    @classmethod
    def architecture(cls):
        return "power_relu"

class PowerTrainingSAE(StandardTrainingSAE):
    def encode_with_hidden_pre(self, x):
        acts, before = super().encode_with_hidden_pre(x)
        return acts ** self.cfg.power, before

register_sae_class("power_relu", PowerSAE, PowerSAEConfig)
register_sae_training_class("power_relu", PowerTrainingSAE, PowerTrainingSAEConfig)
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_architecture.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("my_architecture")
    for known in (SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY):
        known.pop("power_relu", None)


def test_an_architecture_of_ones_own_goes_the_whole_way(module, tmp_path):
    rows, codes = planted_rows(450, 8, 6)
    store = write_store(tmp_path / "store", {"planted": rows})
    labels = pd.DataFrame({"path": store.images["path"], "patient": store.images["patient"]})
    labels["Edema"] = (codes[:, 0] > 0).astype(int)
    labels.to_csv(tmp_path / "labels.csv", index=False)
    options = {"power": 1.5, "l1_coefficient": 0.01}
    spec = medsae.SAESpec("own", "planted", "power_relu", expansion=2, options=options)
    config = medsae.TrainingConfig(6400, batch_size=64, lr=3e-3)
    saes = medsae.train_saes(store, [spec], config, tmp_path / "run", progress=False)

    weights = {k: v.double().numpy() for k, v in load_file(saes["own"] / "sae_weights.safetensors").items()}
    latents = np.maximum((rows.astype(float) - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"], 0) ** 1.5
    sae = SAE.load_from_disk(saes["own"])
    assert type(sae) is module.PowerSAE and sae.cfg.power == 1.5
    np.testing.assert_allclose(sae.encode(torch.from_numpy(rows)).detach().numpy(), latents, rtol=1e-3, atol=1e-3)

    table = medsae.read_table(tmp_path / "labels.csv", label_columns=["Edema"])
    evaluation = medsae.evaluate(store, saes, table, tmp_path / "scores", progress=False)
    found = evaluation["own"].observations[0]
    test = (store.images["split"] == "test").to_numpy()
    r = np.corrcoef(latents[test, found.latent], labels["Edema"][test])[0, 1]
    assert evaluation["own"].architecture == "power_relu"
    assert found.value("r") == pytest.approx(r, abs=1e-4) and r > 0.3

    sent = tmp_path / "sent"
    medsae.publish([tmp_path / "run"], "lab/own", metrics=tmp_path / "scores", dry_run=sent, licence="mit", small=1)
    assert json.loads((sent / "own" / "cfg.json").read_text())["architecture"] == "power_relu"
    text = ModelCard.load(sent / "README.md").text
    assert "| `own` | `planted` | power_relu | 8 | 16 |" in text and "power_relu, power = 1.5" in text
    published = SAE.load_from_disk(sent / "own")
    assert torch.equal(published.encode(torch.from_numpy(rows)), sae.encode(torch.from_numpy(rows)))
