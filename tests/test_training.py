"""Training over real stores with SAE-Lens's trainers: what is learnt, folded, saved, and refused."""

import filecmp
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import planted_rows, write_store
from sae_lens import SAE
from sae_lens.training.sae_trainer import SAETrainer

from medsae_plugin import MedSAEError
from medsae_plugin.store import ActivationStore
from medsae_plugin.training import SAESpec, TrainingConfig, train_saes
from medsae_plugin.training.normalization import CenterAndScale
from medsae_plugin.training.records import read_training
from medsae_plugin.training.specs import build_sae

OPTIONS = {
    "standard": {"l1_coefficient": 0.5},
    "gated": {"l1_coefficient": 0.5},
    "jumprelu": {"l0_coefficient": 0.5},
    "topk": {"k": 3},
    "batchtopk": {"k": 3},
    "matryoshka_batchtopk": {"k": 3, "matryoshka_widths": [8, 16]},
}
QUICK = TrainingConfig(12_800, batch_size=128, lr=3e-3, validate_every=40)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ActivationStore:
    embedding, _ = planted_rows(600, 16, 24)
    spatial, _ = planted_rows(2400, 12, 20, seed=5)
    arrays = {"hook_embedding": embedding, "hook_final_norm": spatial.reshape(600, 4, 12)}
    return write_store(tmp_path_factory.mktemp("planted") / "store", arrays)


def rows_of(store: ActivationStore, hook: str, split: str) -> torch.Tensor:
    return torch.cat([rows for _, rows in store.image_batches(hook, split)])


@pytest.mark.parametrize("normalize", ["none", "expected_average_only_in", "covariance_whitening"])
def test_what_is_trained_is_what_sae_lens_own_trainer_makes_of_the_same_batches(store, tmp_path, normalize):
    """Its normalisations are folded by it, so what is saved takes raw activations."""
    spec = SAESpec("a", "hook_embedding", "topk", 2, normalize, {"k": 3, "aux_loss_coefficient": 2.0})
    config = replace(QUICK, n_batches_for_norm_estimate=5)
    folder = train_saes(store, [spec], config, tmp_path / "out", progress=False)["a"]
    by_hand = build_sae(store, spec, config)
    torch.manual_seed(config.seed)
    batches = (batch["hook_embedding"] for batch in store.batches("hook_embedding", 128, split="train", seed=0))
    SAETrainer(config.for_sae_lens(str(tmp_path / "checkpoints")), by_hand, batches).fit()
    by_hand.save_inference_model(tmp_path / "by-hand")
    got, expected = (SAE.load_from_disk(path) for path in (folder, tmp_path / "by-hand"))
    assert got.cfg.normalize_activations == "none"
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(got.state_dict()[name], tensor, rtol=0, atol=0)
    untrained = build_sae(store, spec, config).W_enc
    assert (got.W_enc - untrained).norm() > 0.1 * untrained.norm()


def test_six_architectures_and_two_hooks_train_in_one_pass(store, tmp_path):
    specs = [SAESpec(name, "hook_embedding", name, expansion=1, options=o) for name, o in OPTIONS.items()]
    specs.append(SAESpec("spatial", "hook_final_norm", "topk", expansion=2, options={"k": 3}))
    folders = train_saes(store, specs, QUICK, tmp_path / "out", progress=False)
    for spec in specs:
        sae = SAE.load_from_disk(folders[spec.name])
        report = json.loads((folders[spec.name] / "training.json").read_text())
        x = rows_of(store, spec.hook, "val").double().numpy()
        with torch.no_grad():
            latents = sae.encode(torch.from_numpy(x).float())
            error = x - sae.decode(latents).double().numpy()
        explained = 1 - (error**2).sum() / ((x - x.mean(0)) ** 2).sum()
        assert report["validation"]["explained_variance"] == pytest.approx(explained, abs=1e-5)
        assert report["validation"]["l0"] == pytest.approx((latents != 0).sum(1).double().mean().item(), abs=0.02)
        history = pd.read_parquet(folders[spec.name] / "history.parquet")
        assert list(history["step"]) == [40, 80, 100] and list(history["rows"]) == [5120, 10240, 12800]
        assert history["loss"].notna().all() and history["mean_top_r"].isna().all()
        metadata = sae.cfg.metadata
        assert (metadata.hook_name, metadata.model_name, metadata.training_images) == (spec.hook, "planted", 360)
        assert metadata.training_rows == len(rows_of(store, spec.hook, "train"))
        everything = (folders[spec.name] / "cfg.json").read_text() + json.dumps(report)
        assert str(tmp_path) not in everything and "patient0" not in everything


@pytest.mark.parametrize("architecture", OPTIONS)
@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
def test_the_normalisation_is_folded_exactly(store, tmp_path, architecture, apply_b_dec_to_input):
    """A saved SAE on x has the latents of the trained one on s (x - mu), and its output is mapped back."""
    options = {**OPTIONS[architecture], "apply_b_dec_to_input": apply_b_dec_to_input}
    sae = build_sae(store, SAESpec("a", "hook_embedding", architecture, expansion=2, options=options), QUICK)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        if architecture == "jumprelu":
            sae.threshold.clamp_(min=0)  # as SAE-Lens does at every step
    if "topk_threshold" in dict(sae.named_buffers()):
        sae.topk_threshold.fill_(0.7001)
    x = rows_of(store, "hook_embedding", "train")
    mu = x.double().mean(0)
    s = (16 / (x.double() - mu).square().sum(1).mean()).sqrt()
    z = ((x.double() - mu) * s).float()
    with torch.no_grad():
        if "topk_threshold" in dict(sae.named_buffers()):  # saved as a JumpReLU at the threshold
            offset = sae.b_dec if apply_b_dec_to_input else 0
            pre = (z - offset) @ sae.W_enc + sae.b_enc
            if sae.cfg.rescale_acts_by_decoder_norm:
                pre = pre * sae.W_dec.norm(dim=1)
            expected = torch.where(pre > 0.7001, pre, 0)
            z_hat = sae.decode(expected)
        else:
            expected = sae.encode(z)
            z_hat = sae.decode(expected)
    assert 0 < (expected > 0).float().mean() < 1
    center = CenterAndScale.of(store, "hook_embedding")
    torch.testing.assert_close(center.mean, mu)
    assert center.scale == pytest.approx(s.item())
    center.fold_into(sae)
    sae.save_inference_model(tmp_path)
    saved = SAE.load_from_disk(tmp_path)
    with torch.no_grad():
        latents = saved.encode(x)
        torch.testing.assert_close(latents, expected, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(saved.decode(latents).double(), z_hat.double() / s + mu, atol=2e-4, rtol=1e-4)


def test_the_same_training_gives_the_same_files(store, tmp_path):
    specs = [SAESpec(n, "hook_embedding", n, 1, options=OPTIONS[n]) for n in ("batchtopk", "standard")]
    for out in ("one", "two"):
        train_saes(store, specs, QUICK, tmp_path / out, progress=False)
    names = [p.relative_to(tmp_path / "one") for p in sorted((tmp_path / "one").rglob("*")) if p.is_file()]
    assert len(names) == 11
    assert filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, shallow=False)[0] == names
    alone = train_saes(store, specs[1:], QUICK, tmp_path / "alone", progress=False)["standard"]
    assert filecmp.cmp(alone / "sae_weights.safetensors", tmp_path / "one/standard/sae_weights.safetensors", False)


def test_without_a_validation_split_there_are_no_validation_figures(tmp_path):
    rows, _ = planted_rows(60, 8, 8)
    store = write_store(tmp_path / "store", {"h": rows})
    text = (store.path / "images.csv").read_text().replace(",val", ",train")
    (store.path / "images.csv").write_text(text)
    folder = train_saes(
        ActivationStore(store.path),
        [SAESpec("a", "h", "topk", 2, options={"k": 2})],
        QUICK,
        tmp_path / "o",
        progress=False,
    )["a"]
    report = json.loads((folder / "training.json").read_text())
    assert report["validation"] is None and read_training(folder).history == []


def test_what_does_not_fit_is_refused_before_anything_runs(store, tmp_path):
    wrong = {
        "has no hook 'hook_pooled'; it has hook_embedding": SAESpec("a", "hook_pooled"),
        "trains no architecture 'relu'; it trains .*batchtopk": SAESpec("a", "hook_embedding", "relu"),
        "no option 'kk'; did you mean 'k'": SAESpec("a", "hook_embedding", "topk", options={"kk": 1}),
        "SAE-Lens refuses": SAESpec(
            "a", "hook_embedding", "matryoshka_batchtopk", 1, options={"k": 2, "matryoshka_widths": [999]}
        ),
    }
    for text, spec in wrong.items():
        with pytest.raises(MedSAEError, match=text):
            train_saes(store, [spec], QUICK, tmp_path / text[:9].replace(" ", "-"), progress=False)
    twice = [SAESpec("a", "hook_embedding"), SAESpec("a", "hook_final_norm")]
    with pytest.raises(MedSAEError, match="two SAEs have the name a"):
        train_saes(store, twice, QUICK, tmp_path / "twice", progress=False)
    for bad in ("../a", "", "a/b", ".hidden"):
        with pytest.raises(MedSAEError, match="no name for an SAE's folder"):
            SAESpec(bad, "hook_embedding")
    with pytest.raises(MedSAEError, match="normalize 'zscore'"):
        SAESpec("a", "hook_embedding", normalize="zscore")
    with pytest.raises(MedSAEError, match="do not fill one batch"):
        TrainingConfig(10, batch_size=100)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_folder_with_another_run_is_left_alone(store, tmp_path):
    spec = SAESpec("a", "hook_embedding", "topk", 1, options={"k": 2})
    folder = train_saes(store, [spec], QUICK, tmp_path / "out", progress=False)["a"]
    before = (folder / "sae_weights.safetensors").read_bytes()
    other = replace(QUICK, batch_size=64)
    with pytest.raises(MedSAEError, match=r"another training run.*\n  training.batch_size: 128 in the folder, 64 now"):
        train_saes(store, [spec], other, tmp_path / "out", progress=False)
    with pytest.raises(MedSAEError, match=r"another training run.*\n  saes.a.options.k: 2 in the folder, 3 now"):
        train_saes(store, [replace(spec, options={"k": 3})], QUICK, tmp_path / "out", progress=False)
    write_store(tmp_path / "other", {"hook_embedding": planted_rows(30, 16, 24)[0]}, preprocessing={"size": 8})
    with pytest.raises(MedSAEError, match=r"another training run.*\n  store.preprocessing"):
        train_saes(ActivationStore(tmp_path / "other"), [spec], QUICK, tmp_path / "out", progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(MedSAEError, match="not empty"):
        train_saes(store, [spec], QUICK, tmp_path / "full", progress=False)
    assert train_saes(store, [spec], QUICK, tmp_path / "out", progress=False) == {"a": folder}
    assert (folder / "sae_weights.safetensors").read_bytes() == before


class Cut(Exception):
    pass


class CutStore(ActivationStore):
    """A store whose stream breaks off after so many batches."""

    batches_left = 0

    def batches(self, *args, **kwargs):
        for batch in super().batches(*args, **kwargs):
            if kwargs.get("split") == "train":
                if self.batches_left == 0:
                    raise Cut
                self.batches_left -= 1
            yield batch


@pytest.mark.parametrize("normalize", ["center_and_scale", "expected_average_only_in"])
@pytest.mark.parametrize("n_specs", [1, 2])
def test_a_run_that_breaks_off_goes_on_to_the_same_weights(store, tmp_path, n_specs, normalize):
    specs = [
        SAESpec(n, "hook_embedding", n, 1, normalize, options=OPTIONS[n]) for n in ("batchtopk", "jumprelu")[:n_specs]
    ]
    config = TrainingConfig(
        12_800,
        batch_size=128,
        lr=3e-3,
        lr_warm_up_steps=30,
        validate_every=20,
        n_checkpoints=6,
        dead_feature_window=15,
        feature_sampling_window=25,
        n_batches_for_norm_estimate=4,
    )
    whole = train_saes(store, specs, config, tmp_path / "whole", progress=False)
    cut = CutStore(store.path)
    for batches in (9, 33, 40):
        cut.batches_left = batches
        with pytest.raises(Cut):
            train_saes(cut, specs, config, tmp_path / "cut", progress=False)
    half = max((tmp_path / "cut" / "checkpoints").iterdir(), key=lambda p: int(p.name))
    (half.parent / str(int(half.name) + 128)).mkdir()  # a checkpoint that was being written when the power went
    resumed = train_saes(store, specs, config, tmp_path / "cut", progress=False)
    for name in whole:
        for file in ("sae_weights.safetensors", "cfg.json", "training.json", "history.parquet"):
            assert filecmp.cmp(whole[name] / file, resumed[name] / file, shallow=False), (name, file)


def test_the_metadata_counts_only_readable_images(tmp_path):
    rows, _ = planted_rows(30, 8, 8)
    store = write_store(tmp_path / "store", {"h": rows})
    sae = build_sae(store, SAESpec("a", "h", "topk", 1, options={"k": 2}), QUICK)
    train = store.images[store.images["split"] == "train"]
    assert sae.cfg.metadata.training_images == len(train) and sae.cfg.metadata.training_patients == 6
    assert np.isclose(sae.cfg.metadata.training_rows, len(train))
    assert Path(str(store.path)).name not in json.dumps(sae.cfg.metadata.to_dict())


def test_each_sae_has_its_own_learning_rate_and_passes_count_the_rows(store, tmp_path):
    """In one pass over the data as if each were trained by itself; and 2 passes are twice the training rows."""
    n = store.n_rows("hook_embedding", "train")
    by_passes = TrainingConfig(batch_size=16, lr=1e-3, epochs=2)
    slow, fast = (
        SAESpec("slow", "hook_embedding", expansion=2, lr=1e-4),
        SAESpec("fast", "hook_embedding", expansion=2),
    )
    both = train_saes(store, [slow, fast], by_passes, tmp_path / "both", progress=False)
    for spec, lr in ((slow, 1e-4), (fast, 1e-3)):
        config = TrainingConfig(2 * n, batch_size=16, lr=lr)
        alone = train_saes(store, [replace(spec, lr=None)], config, tmp_path / spec.name, progress=False)[spec.name]
        theirs, ours = (SAE.load_from_disk(folder).state_dict() for folder in (alone, both[spec.name]))
        assert all(torch.equal(theirs[key], ours[key]) for key in theirs), spec.name
        report = json.loads((both[spec.name] / "training.json").read_text())
        assert report["training"]["total_training_samples"] == 2 * n and report["sae"]["lr"] == spec.lr
    with pytest.raises(MedSAEError, match="these have other counts of rows"):
        two = [slow, SAESpec("b", "hook_final_norm", expansion=2)]
        train_saes(store, two, by_passes, tmp_path / "two", progress=False)
    with pytest.raises(MedSAEError, match=r"0\.01 epochs are \d+ rows, less than one batch"):
        train_saes(store, [slow], replace(by_passes, epochs=0.01), tmp_path / "few", progress=False)
