"""What training saves, of every architecture that SAE-Lens trains and every normalisation: SAEs of raw activations."""

import itertools
import json

import pytest
import torch
from helpers.planted import planted_rows, write_store
from sae_lens import SAE, AbsTopKSAE, AbsTopKSAEConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from safetensors.torch import load_file

from medsae_plugin import MedSAEError
from medsae_plugin.sae_folders import load_sae
from medsae_plugin.scores.opening import open_units
from medsae_plugin.store import ActivationStore
from medsae_plugin.training import SAESpec, TrainingConfig, split_by_sign, train_saes
from medsae_plugin.training.records import read_training
from medsae_plugin.training.specs import CENTER_AND_SCALE, SAE_LENS_NORMALIZATIONS

HOOK = "hook_embedding"
OPTIONS = {"matryoshka_batchtopk": {"k": 3, "matryoshka_widths": [8, 24]}} | {
    name: {"k": 3} for name in ("topk", "batchtopk", "abstopk", "medsae_topk")
}
# SAE-Lens cannot fold into a tied encoder, and its auxiliary loss fails under a layer norm once a latent is dead.
REFUSED = {
    ("matching_pursuit", CENTER_AND_SCALE),
    ("matching_pursuit", "covariance_whitening"),
    *((name, "layer_norm") for name in ("topk", "medsae_topk", "abstopk", "batchtopk", "matryoshka_batchtopk")),
}
ALL = sorted(itertools.product(SAE_TRAINING_CLASS_REGISTRY, (CENTER_AND_SCALE, *SAE_LENS_NORMALIZATIONS)))
CONFIG = TrainingConfig(2560, batch_size=64, lr=3e-3, validate_every=20, n_checkpoints=3, n_batches_for_norm_estimate=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ActivationStore:
    """Far from the origin and of no unit scale, so that weights of normalised activations are wrong for raw ones."""
    return write_store(tmp_path_factory.mktemp("store") / "store", {HOOK: 4 * planted_rows(300, 12, 18)[0]})


def spec_of(architecture: str, normalize: str, name: str = "a") -> SAESpec:
    return SAESpec(name, HOOK, architecture, 2, normalize, OPTIONS.get(architecture, {}))


def rows_of(store: ActivationStore, split: str = "val") -> torch.Tensor:
    return torch.cat([rows for _, rows in store.image_batches(HOOK, split)])


def explained(sae: SAE, x: torch.Tensor) -> float:
    with torch.no_grad():
        error = x.double() - sae(x).double()
    return float(1 - error.square().sum() / (x.double() - x.double().mean(0)).square().sum())


@pytest.mark.parametrize(("architecture", "normalize"), ALL)
def test_every_architecture_with_every_normalisation_is_saved_for_raw_activations_or_refused(
    store, tmp_path, architecture, normalize
):
    """The last figures of training are in the space that it trains in; those of what is saved are of raw rows."""
    out = tmp_path / "out"
    spec = spec_of(architecture, normalize)
    if (architecture, normalize) in REFUSED:
        with pytest.raises(MedSAEError, match=rf"{normalize}.*(tied encoder|encoder is tied|fails as soon as)"):
            train_saes(store, [spec], CONFIG, out, progress=False)
        assert not out.exists()
        return
    folder = train_saes(store, [spec], CONFIG, out, progress=False)["a"]
    sae, x = load_sae(folder), rows_of(store)
    report = json.loads((folder / "training.json").read_text())
    text = (folder / "cfg.json").read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True)  # SAE-Lens's order is another in each process
    assert SAE.load_from_disk(folder).cfg.normalize_activations == (
        "layer_norm" if normalize == "layer_norm" else "none"
    )
    assert report["validation"]["explained_variance"] == pytest.approx(explained(sae, x), abs=1e-5)
    assert (sae.encode(x) >= 0).all()
    scored = open_units(store, [folder])  # the same latents as a scoring makes
    assert scored[0].name and torch.equal(scored[0].encode(x), sae.encode(x))
    if normalize == CENTER_AND_SCALE and "batchtopk" not in architecture:
        # One centre and one scale leave the explained variance as it is.
        last = read_training(folder).history[-1]
        assert last["explained_variance"] == pytest.approx(explained(sae, x), abs=1e-4)
        assert last["l0"] == pytest.approx(report["validation"]["l0"], abs=1e-6)


def test_what_sae_lens_has_and_does_not_train_is_refused(store, tmp_path):
    from sae_lens.registry import SAE_CLASS_REGISTRY

    only_read = set(SAE_CLASS_REGISTRY) - set(SAE_TRAINING_CLASS_REGISTRY)
    assert "temporal" in only_read
    for architecture in only_read:
        with pytest.raises(MedSAEError, match=f"SAE-Lens trains no architecture '{architecture}'"):
            train_saes(store, [SAESpec("a", HOOK, architecture)], CONFIG, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("normalize", [CENTER_AND_SCALE, "expected_average_only_in", "covariance_whitening"])
@pytest.mark.parametrize("architectures", [["topk"], ["batchtopk", "gated", "abstopk"]])
def test_a_checkpoint_is_an_sae_of_raw_activations(store, tmp_path, architectures, normalize):
    """Over a training with a learning rate of 0 nothing changes, so every checkpoint is the finished SAE."""
    still = TrainingConfig(2560, batch_size=64, lr=1e-30, n_checkpoints=3, n_batches_for_norm_estimate=2)
    specs = [spec_of(a, normalize, a) for a in architectures]
    finished = train_saes(store, specs, still, tmp_path / "out", progress=False)
    checkpoints = sorted((tmp_path / "out" / "checkpoints").iterdir(), key=lambda p: int(p.name))
    assert len(checkpoints) == 3 and not (tmp_path / "out" / ".checkpoint").exists()
    x = rows_of(store)
    for spec in specs:
        whole = SAE.load_from_disk(finished[spec.name])
        for checkpoint in checkpoints:
            folder = checkpoint if len(specs) == 1 else checkpoint / spec.name
            for read in (SAE.load_from_disk, load_sae):  # SAE-Lens alone too
                sae = read(folder)
                assert sae.cfg.architecture() == whole.cfg.architecture()
                assert sae.cfg.normalize_activations == "none"
                if spec.architecture != "batchtopk":  # its threshold is an average that goes on
                    torch.testing.assert_close(sae(x), whole(x), rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(sae.b_dec, whole.b_dec, rtol=1e-5, atol=1e-5)


def test_a_checkpoint_that_is_being_written_is_not_among_the_checkpoints(store, tmp_path, monkeypatch):
    """The machine goes down after SAE-Lens wrote its files, which take normalised activations."""
    from medsae_plugin.training import run

    class Down(Exception):
        pass

    def go_down(*_):
        raise Down

    with monkeypatch.context() as patch:
        patch.setattr(run, "save_of_raw", go_down)
        with pytest.raises(Down):
            train_saes(store, [spec_of("topk", CENTER_AND_SCALE)], CONFIG, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "checkpoints").exists()
    (left,) = (tmp_path / "out" / ".checkpoint").iterdir()
    assert (left / "cfg.json").is_file()
    with pytest.raises(MedSAEError, match="checkpoint whose weights take centred and scaled activations"):
        load_sae(left)
    train_saes(store, [spec_of("topk", CENTER_AND_SCALE)], CONFIG, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / ".checkpoint").exists()
    assert (tmp_path / "out" / "a" / "training.json").is_file()


@pytest.mark.parametrize("file", ["trainer_state.pt", "sae_weights.safetensors", "activation_scaler.json"])
def test_a_damaged_checkpoint_is_named_when_training_goes_on(store, tmp_path, file):
    out = tmp_path / "out"
    specs = [spec_of("topk", CENTER_AND_SCALE)]
    train_saes(store, specs, CONFIG, out, progress=False)
    (out / "a" / "training.json").unlink()
    last = max((out / "checkpoints").iterdir(), key=lambda p: int(p.name))
    damaged = last / "trainer" / file
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(MedSAEError, match=rf"checkpoint .*{last.name} is damaged .* delete it"):
        train_saes(store, specs, CONFIG, out, progress=False)
    (out / "run.json").write_text("{")
    with pytest.raises(MedSAEError, match=r"run\.json is damaged"):
        train_saes(store, specs, CONFIG, out, progress=False)


@pytest.mark.parametrize("rescale", [False, True])
def test_an_abstopk_sae_split_by_sign_is_the_same_sae(rescale):
    d, n, k = 10, 30, 4
    generator = torch.Generator().manual_seed(0)
    sae = AbsTopKSAE(AbsTopKSAEConfig(d_in=d, d_sae=n, k=k, rescale_acts_by_decoder_norm=rescale))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(50, d, generator=generator)
    both = split_by_sign(sae)
    with torch.no_grad():
        signed, latents = sae.encode(x), both.encode(x)
        assert (signed < 0).any() and (signed > 0).any()
        torch.testing.assert_close(latents[:, :n], signed.clamp(min=0))
        torch.testing.assert_close(latents[:, n:], (-signed).clamp(min=0))
        torch.testing.assert_close(both(x), sae(x))


def test_signed_latents_are_not_scored_without_a_word(store, tmp_path):
    AbsTopKSAE(AbsTopKSAEConfig(d_in=12, d_sae=24, k=2)).save_model(tmp_path)
    with pytest.raises(MedSAEError, match=r"abstopk SAE, whose latents are signed.*split_by_sign"):
        open_units(store, [tmp_path])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 25}, "k is 25, and there are 24 latents"),
        ({"k": 0}, "k is 0"),
        ({"k": "8"}, r"k is '8', should be a whole number \(write 8\)"),
        ({"k": 8.0}, r"k is 8\.0, should be a whole number \(write 8\)"),
        ({"aux_loss_coefficient": "1e-3"}, r"'1e-3', should be a number \(write 1\.0e-3"),
    ],
)
def test_options_that_would_fail_at_the_first_step_are_refused_before(store, tmp_path, options, message):
    with pytest.raises(MedSAEError, match=message):
        train_saes(store, [SAESpec("a", HOOK, "topk", 2, options=options)], CONFIG, tmp_path / "o", progress=False)
    assert not (tmp_path / "o").exists()


def test_a_training_that_diverges_is_said_and_the_others_are_saved(store, tmp_path):
    specs = [
        spec_of("topk", CENTER_AND_SCALE),
        SAESpec("b", HOOK, "standard", 2, options={"l1_coefficient": float("inf")}),
    ]
    with pytest.raises(MedSAEError, match="training of b diverged"):
        train_saes(store, specs, CONFIG, tmp_path / "out", progress=False)
    assert load_sae(tmp_path / "out" / "a").cfg.d_sae == 24
    assert not (tmp_path / "out" / "b").exists()


def test_names_that_training_needs_and_widths_of_nothing_are_refused(store, tmp_path):
    with pytest.raises(MedSAEError, match="training writes one of that name"):
        SAESpec("checkpoints", HOOK)
    with pytest.raises(MedSAEError, match="leaves no latent"):
        train_saes(store, [SAESpec("a", HOOK, expansion=0.01)], CONFIG, tmp_path / "o", progress=False)


def test_what_training_goes_on_from_is_not_an_sae_folder(store, tmp_path):
    train_saes(store, [spec_of("topk", CENTER_AND_SCALE)], CONFIG, tmp_path / "out", progress=False)
    checkpoint = next((tmp_path / "out" / "checkpoints").iterdir())
    assert not (checkpoint / "trainer" / "cfg.json").exists()
    raw, trained = (load_file(folder / "sae_weights.safetensors") for folder in (checkpoint, checkpoint / "trainer"))
    assert not torch.equal(raw["W_enc"], trained["W_enc"])
