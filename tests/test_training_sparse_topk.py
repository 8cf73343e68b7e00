"""`medsae_topk` beside SAE-Lens's `topk`: the same losses, gradients and steps, and saved as such a one."""

import json
from dataclasses import replace

import pytest
import torch
from helpers.planted import planted_rows, write_store
from sae_lens import SAE, TopKSAE, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput

from medsae_plugin import MedSAEError
from medsae_plugin.store import ActivationStore
from medsae_plugin.training import SAESpec, TrainingConfig, train_saes
from medsae_plugin.training.sparse_topk import SparseTopKConfig, SparseTopKTrainingSAE

HOOK = "hook_embedding"
D, N, K = 12, 30, 4


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ActivationStore:
    return write_store(tmp_path_factory.mktemp("store") / "store", {HOOK: planted_rows(300, D, 18)[0]})


def pair(**options) -> tuple[TopKTrainingSAE, SparseTopKTrainingSAE]:
    """SAE-Lens's and ours, in float64, of the same weights, whose decoder has rows of many lengths."""
    made = []
    for cls, config in ((TopKTrainingSAE, TopKTrainingSAEConfig), (SparseTopKTrainingSAE, SparseTopKConfig)):
        sae = cls(config(d_in=D, d_sae=N, k=K, dtype="float64", aux_loss_coefficient=3.0, **options))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weights in sae.parameters():
                weights.copy_(torch.randn(weights.shape, generator=generator, dtype=torch.float64))
            sae.W_dec *= torch.linspace(0.2, 3, N, dtype=torch.float64)[:, None]
        made.append(sae)
    return made[0], made[1]


@pytest.mark.parametrize("n_dead", [0, 1, 3, 20])  # few and many beside the d / 2 that are revived at a time
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
def test_losses_and_gradients_are_those_of_topk(n_dead, rescale, apply_b_dec_to_input):
    options = {"rescale_acts_by_decoder_norm": rescale, "apply_b_dec_to_input": apply_b_dec_to_input}
    theirs, ours = pair(**options)
    x = 2 * torch.randn(50, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    dead = torch.zeros(N, dtype=torch.bool)
    dead[:n_dead] = True
    outputs = []
    for sae in (theirs, ours):
        step = TrainStepInput(
            sae_in=x, dead_neuron_mask=dead, coefficients={}, n_training_steps=0, is_logging_step=False
        )
        output = sae.training_forward_pass(step)
        output.loss.backward()
        outputs.append(output)
    expected, got = outputs
    assert got.losses.keys() == expected.losses.keys()
    for name, loss in expected.losses.items():
        torch.testing.assert_close(got.losses[name], loss)
    assert (expected.losses["auxiliary_reconstruction_loss"] > 0) == (n_dead > 0)
    torch.testing.assert_close(got.sae_out, expected.sae_out)
    assert got.feature_acts.is_sparse and got.feature_acts._nnz() == 50 * K
    torch.testing.assert_close(got.feature_acts.to_dense(), expected.feature_acts.detach())
    for (name, weights), (_, reference) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(weights.grad, reference.grad, msg=lambda text, name=name: f"{name}: {text}")
        assert weights.grad.stride() == weights.stride()


def test_a_latent_that_is_chosen_below_zero_does_not_fire_and_has_no_gradient():
    theirs, ours = pair()
    with torch.no_grad():
        for sae in (theirs, ours):
            sae.b_enc.fill_(-1000)
    for sae in (theirs, ours):
        x = torch.ones(3, D, dtype=torch.float64)
        output = sae.training_forward_pass(TrainStepInput(x, {}, None, 0, False))
        output.loss.backward()
        assert not output.feature_acts.to_dense().any()
        assert not sae.W_enc.grad.any() and not sae.W_dec.grad.any() and sae.b_dec.grad.any()


def test_a_frozen_decoder_has_no_gradient_and_the_rest_has_its_own():
    theirs, ours = pair()
    for sae in (theirs, ours):
        sae.W_dec.requires_grad_(False)
        sae.training_forward_pass(
            TrainStepInput(torch.ones(3, D, dtype=torch.float64), {}, None, 0, False)
        ).loss.backward()
    assert ours.W_dec.grad is None
    torch.testing.assert_close(ours.W_enc.grad, theirs.W_enc.grad)


def test_a_training_is_that_of_topk_and_saved_as_topk(store, tmp_path):
    """Few steps, after which rounding has chosen no other latents; in a recipe with dead latents to revive."""
    config = TrainingConfig(640, batch_size=64, lr=3e-3, validate_every=5, dead_feature_window=2)
    folders = {}
    for architecture in ("topk", "medsae_topk"):
        spec = SAESpec(architecture, HOOK, architecture, 2, options={"k": 3})
        folders |= train_saes(store, [spec], config, tmp_path / architecture, progress=False)
    theirs, ours = (SAE.load_from_disk(folder) for folder in folders.values())
    assert type(ours) is TopKSAE and ours.cfg.architecture() == "topk"
    assert json.loads((folders["medsae_topk"] / "cfg.json").read_text())["architecture"] == "topk"
    assert ours.cfg.metadata.training_architecture == "medsae_topk"
    for name, weights in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weights, rtol=1e-3, atol=1e-4)


def test_it_goes_on_from_a_checkpoint_to_the_same_weights(store, tmp_path):
    spec = SAESpec("a", HOOK, "medsae_topk", 2, options={"k": 3})
    config = TrainingConfig(1280, batch_size=64, lr=3e-3, n_checkpoints=1)
    whole = train_saes(store, [spec], config, tmp_path / "whole", progress=False)["a"]
    again = train_saes(store, [spec], config, tmp_path / "again", progress=False)["a"]
    expected = (whole / "sae_weights.safetensors").read_bytes()
    (again / "training.json").unlink()
    (again / "sae_weights.safetensors").unlink()
    train_saes(store, [spec], config, tmp_path / "again", progress=False)
    assert (again / "sae_weights.safetensors").read_bytes() == expected


def test_options_that_have_no_meaning_are_refused(store, tmp_path):
    spec = SAESpec("a", HOOK, "medsae_topk", 2, options={"k": 3, "use_sparse_activations": True})
    with pytest.raises(MedSAEError, match="medsae_topk is sparse as it is: leave out use_sparse_activations"):
        train_saes(store, [spec], TrainingConfig(640, batch_size=64), tmp_path / "out", progress=False)
    with pytest.raises(MedSAEError, match="k is 100, and there are 24 latents"):
        train_saes(store, [replace(spec, options={"k": 100})], TrainingConfig(640, batch_size=64), tmp_path / "out")
