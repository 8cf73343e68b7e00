"""SAEs of other libraries encode and decode as the originals do, whose own classes make the checkpoints."""

import dataclasses
import io
import json
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from helpers import libraries
from sae_lens import SAE
from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_CONFIG_GETTERS, NAMED_PRETRAINED_SAE_LOADERS
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from medsae_plugin import MedSAEError, register_releases
from medsae_plugin.cli import main
from medsae_plugin.files import sha256_of
from medsae_plugin.release import (
    Format,
    dictionary_learning_disk_loader,
    import_checkpoint,
    register_format,
    registry,
    vit_prisma_disk_loader,
)
from medsae_plugin.release.formats import FORMATS

D, N = 12, 40


def original(module: str) -> types.ModuleType:
    """A module of the real dictionary_learning package."""
    return libraries.original(f"dictionary_learning.{module}", "dictionary-learning")


def rows(n: int = 64) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(5)) + 0.5


def scrambled(sae: torch.nn.Module) -> torch.nn.Module:
    """With every parameter drawn anew, so that none is 0 or tied to another."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return sae.eval()


def make(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    dictionary = original("dictionary")
    if kind == "AutoEncoderTopK":
        return scrambled(original("trainers.top_k").AutoEncoderTopK(D, N, k=5))
    if kind == "BatchTopKSAE":
        sae = scrambled(original("trainers.batch_top_k").BatchTopKSAE(D, N, k=5))
        sae.threshold.fill_(0.8)
        return sae
    if kind == "MatryoshkaBatchTopKSAE":
        module = original("trainers.matryoshka_batch_top_k")
        sae = scrambled(module.MatryoshkaBatchTopKSAE(D, N, k=5, group_sizes=[10, 30]))
        sae.threshold.fill_(0.8)
        return sae
    sae = scrambled(getattr(dictionary, kind)(D, N))
    if kind == "JumpReluAutoEncoder":
        sae.threshold.data = sae.threshold.data.abs()
    return sae


KINDS = {
    "AutoEncoder": "standard",
    "AutoEncoderNew": "standard",
    "BatchTopKSAE": "jumprelu",
    "MatryoshkaBatchTopKSAE": "jumprelu",
    "AutoEncoderTopK": "topk",
    "JumpReluAutoEncoder": "jumprelu",
    "GatedAutoEncoder": "gated",
}


def save(sae: torch.nn.Module, folder: Path, **trainer: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(sae.state_dict(), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": type(sae).__name__, **trainer}}))
    return folder


@torch.no_grad()
def assert_same(theirs: torch.nn.Module, ours: SAE) -> None:
    x = rows()
    codes = theirs.encode(x)
    assert 0.02 < (codes > 0).float().mean() < 0.9
    torch.testing.assert_close(ours.encode(x), codes, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.decode(codes), theirs.decode(codes), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_dictionary_learning(kind, tmp_path):
    theirs = make(kind)
    folder = save(theirs, tmp_path / "trainer_0")
    assert_same(theirs, SAE.load_from_disk(folder, converter=dictionary_learning_disk_loader))
    assert (
        SAE.load_from_disk(folder / "ae.pt", converter=dictionary_learning_disk_loader).cfg.architecture()
        == KINDS[kind]
    )


@pytest.mark.parametrize("trainer", ["StandardTrainer", "StandardTrainerAprilUpdate", "BatchTopKTrainer"])
def test_dictionary_learning_as_its_trainers_leave_it(trainer, tmp_path):
    """Trained for some steps, so with biases, thresholds and decoder norms as they come."""
    module = original("trainers.batch_top_k" if trainer.startswith("Batch") else "trainers.standard")
    common = {
        "steps": 30,
        "activation_dim": D,
        "dict_size": N,
        "layer": 0,
        "lm_name": "none",
        "device": "cpu",
        "seed": 1,
    }
    batch_topk = trainer.startswith("Batch")
    options = {"k": 5, "threshold_start_step": 5} if batch_topk else {"sparsity_warmup_steps": 5}
    trained = getattr(module, trainer)(**common, **options, warmup_steps=2)
    for step in range(30):
        trained.update(step, rows(128) + step * 0.01)
    theirs = trained.ae.eval()
    (tmp_path / "sae").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "sae" / "ae.pt")
    (tmp_path / "sae" / "config.json").write_text(json.dumps({"trainer": trained.config}))
    assert_same(theirs, SAE.load_from_disk(tmp_path / "sae", converter=dictionary_learning_disk_loader))


def test_folding_the_decoders_norm_is_what_from_pretrained_does(tmp_path):
    folder = save(make("AutoEncoder"), tmp_path)
    theirs = original("dictionary").AutoEncoder.from_pretrained(folder / "ae.pt")
    ours = SAE.load_from_disk(folder, converter=dictionary_learning_disk_loader, fold_W_dec_norm=True)
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(rows()), theirs.encode(rows()), rtol=1e-5, atol=1e-5)


def test_top_k_without_its_config_is_not_guessed_at(tmp_path):
    folder = save(make("BatchTopKSAE"), tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(MedSAEError, match=r"put the config\.json"):
        SAE.load_from_disk(folder, converter=dictionary_learning_disk_loader)


def as_saved_by(folder: Path, **change: object) -> Path:
    """Edit a checkpoint: keys to set, or with None to drop."""
    state = torch.load(folder / "ae.pt", weights_only=True) | change
    torch.save({key: value for key, value in state.items() if value is not None}, folder / "ae.pt")
    return folder


def test_top_k_from_before_k_was_saved_takes_it_from_the_config(tmp_path):
    """As the library does, which refuses a k that disagrees too."""
    theirs = make("AutoEncoderTopK")
    folder = as_saved_by(save(theirs, tmp_path, k=5), k=None, threshold=None)
    assert_same(theirs, SAE.load_from_disk(folder, converter=dictionary_learning_disk_loader))
    save(theirs, tmp_path, k=7)
    with pytest.raises(MedSAEError, match=r"ae\.pt: k is 5 in the weights and 7 in the config"):
        SAE.load_from_disk(tmp_path, converter=dictionary_learning_disk_loader)
    as_saved_by(save(theirs, tmp_path), k=None)
    with pytest.raises(MedSAEError, match=r"neither the weights nor trainer\.k of the config say k"):
        SAE.load_from_disk(tmp_path, converter=dictionary_learning_disk_loader)
    as_saved_by(save(theirs, tmp_path, k=N + 1), k=None)
    with pytest.raises(MedSAEError, match=f"should say k, 1 to {N}, the number of active latents; it is {N + 1}"):
        SAE.load_from_disk(tmp_path, converter=dictionary_learning_disk_loader)


@pytest.mark.parametrize("gone", [{"threshold": None}, {"threshold": None, "k": None}])
def test_batch_top_k_from_before_its_threshold_was_saved_is_told_to_be_too_old(tmp_path, gone):
    folder = as_saved_by(save(make("BatchTopKSAE"), tmp_path, k=5), **gone)
    with pytest.raises(MedSAEError, match="BatchTopKSAE is from before the end of 2024"):
        SAE.load_from_disk(folder, converter=dictionary_learning_disk_loader)


@pytest.mark.parametrize("prefixes", ["_orig_mod.", "module.", "module._orig_mod."])
@pytest.mark.parametrize("kind", ["AutoEncoderTopK", "MatryoshkaBatchTopKSAE", "GatedAutoEncoder"])
def test_weights_of_a_compiled_or_parallel_module(tmp_path, kind, prefixes):
    theirs = make(kind)
    folder = save(theirs, tmp_path)
    torch.save({prefixes + key: value for key, value in theirs.state_dict().items()}, folder / "ae.pt")
    assert_same(theirs, SAE.load_from_disk(folder, converter=dictionary_learning_disk_loader))


def test_a_checkpoint_of_an_unfinished_training_has_its_config_one_folder_up(tmp_path):
    theirs = make("BatchTopKSAE")
    save(theirs, tmp_path / "trainer_0", k=5)
    (tmp_path / "trainer_0" / "checkpoints").mkdir()
    file = tmp_path / "trainer_0" / "checkpoints" / "ae_1000.pt"
    (tmp_path / "trainer_0" / "ae.pt").rename(file)
    with pytest.warns(UserWarning, match=r"trainer_0/config\.json is taken for the config of .*ae_1000\.pt"):
        ours = SAE.load_from_disk(file, converter=dictionary_learning_disk_loader)
    assert_same(theirs, ours)
    with pytest.raises(MedSAEError, match=r"no dictionary_learning checkpoint at .*; name one of ae_1000\.pt"):
        SAE.load_from_disk(file.parent, converter=dictionary_learning_disk_loader)
    # A config of something else is not taken for this library's, nor that of an SAE of another width.
    (tmp_path / "trainer_0" / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(MedSAEError, match=r"put the config\.json"):
        SAE.load_from_disk(file, converter=dictionary_learning_disk_loader)
    (file.parent / "config.json").write_text('{"trainer": {"dict_class": "BatchTopKSAE", "activation_dim": 512}}')
    with pytest.raises(MedSAEError, match=f"its activation_dim is 512, that of the weights {D}"):
        SAE.load_from_disk(file, converter=dictionary_learning_disk_loader)


def zipped(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


WEIGHTS = {"W_enc": torch.zeros(D, N)}
SAEV = json.dumps({"schema": 1, "cfg": {"d_vit": D}}).encode() + b"\n" + zipped(WEIGHTS)
FILES = {
    "saev": (SAEV, "checkpoint of saev .*read it as format saev"),
    "saev, cut": (SAEV[:-100], "checkpoint of saev .*read it as format saev"),
    "a module": (zipped(torch.nn.Linear(2, 2)), r"a Python object \(torch\.nn\.modules\.linear\.Linear\).*state_dict"),
    "a module by name": (zipped({"ae": torch.nn.Linear(2, 2)}), "a Python object .*Linear"),
    "cut": (zipped(WEIGHTS)[:-200], "cut short or damaged"),
    "empty": (b"", "no file of weights"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer"),
    "a page": (b"<!DOCTYPE html>", "no file of weights .*DOCTYPE"),
    "json": (b'{"trainer": {}}', "no file of weights"),
    "one tensor": (zipped(torch.zeros(2)), "holds a Tensor, and no weights by name"),
    "a trainer's state": (zipped({"model": WEIGHTS, "step": 3}), "no state dict: model, step in it are no tensors"),
    "another library's": (zipped({"W": torch.zeros(2)}), "keys of no|lacks"),
}


@pytest.mark.parametrize("format", ["dictionary_learning", "vit_prisma"])
@pytest.mark.parametrize("what", FILES)
def test_what_a_file_of_weights_is_instead_is_said(tmp_path, format, what):
    content, message = FILES[what]
    (tmp_path / "ae.pt").write_bytes(content)
    (tmp_path / "config.json").write_text('{"architecture": "standard"}')
    with pytest.raises(MedSAEError, match=message) as raised:
        import_checkpoint(tmp_path / "ae.pt", format, "phantom-swin", "hook_embedding", tmp_path / "out")
    assert str(tmp_path / "ae.pt") in str(raised.value) and not (tmp_path / "out").exists()


def test_what_is_in_sae_lens_format_needs_no_import(tmp_path):
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(MedSAEError, match="SAE-Lens's format already"):
        import_checkpoint(tmp_path, "dictionary_learning", "phantom-swin", "hook_embedding", tmp_path / "out")


def test_a_threshold_that_was_never_learnt_is_said(tmp_path):
    theirs = make("MatryoshkaBatchTopKSAE")
    theirs.threshold.fill_(-1.0)
    with pytest.warns(UserWarning, match="threshold was never learnt"):
        ours = SAE.load_from_disk(save(theirs, tmp_path), converter=dictionary_learning_disk_loader)
    assert_same(theirs, ours)


class Prisma:
    """ViT-Prisma's SAE from its published formula: x -> (layer norm) -> f((x - b_dec) W_enc + b_enc) W_dec + b_dec."""

    def __init__(self, architecture: str, activation: str, normalize: str) -> None:
        g = torch.Generator().manual_seed(3)
        shapes = {"W_enc": (D, N), "W_dec": (N, D), "b_enc": (N,), "b_dec": (D,)}
        shapes |= {"r_mag": (N,), "b_gate": (N,), "b_mag": (N,)} if architecture == "gated" else {}
        self.state = {k: torch.randn(s, generator=g) * 0.5 for k, s in shapes.items()}
        self.config = {
            "architecture": architecture,
            "activation_fn_str": activation,
            "activation_fn_kwargs": {"k": 6} if activation == "topk" else {},
            "normalize_activations": normalize,
            "hook_point_layer": 9,
            "layer_subtype": "hook_resid_post",
            "model_name": "open-clip:some/model",
            "d_in": D,
            "device": {"__type__": "torch.device", "value": "cuda"},
            "dtype": {"__type__": "torch.dtype", "value": "torch.float32"},
        }

    def codes_and_output(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s, mu, std = self.state, torch.zeros(len(x), 1), torch.ones(len(x), 1)
        if self.config["normalize_activations"] == "layer_norm":
            mu = x.mean(-1, keepdim=True)
            std = (x - mu).std(-1, keepdim=True)
            x = (x - mu) / (std + 1e-5)
        x = x - s["b_dec"]
        if self.config["architecture"] == "gated":
            gate = x @ s["W_enc"] + s["b_gate"] > 0
            codes = gate * torch.relu(x @ (s["W_enc"] * s["r_mag"].exp()) + s["b_mag"])
        else:
            codes = torch.relu(x @ s["W_enc"] + s["b_enc"])
            if self.config["activation_fn_str"] == "topk":
                codes = codes * (codes >= codes.topk(6).values[:, -1:])
        return codes, (codes @ s["W_dec"] + s["b_dec"]) * std + mu


@pytest.mark.parametrize(
    ("architecture", "activation", "normalize"),
    [("standard", "relu", "layer_norm"), ("standard", "topk", "none"), ("gated", "relu", "layer_norm")],
)
def test_vit_prisma(architecture, activation, normalize, tmp_path):
    theirs = Prisma(architecture, activation, normalize)
    torch.save(theirs.state, tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text(json.dumps(theirs.config))
    ours = SAE.load_from_disk(tmp_path, converter=vit_prisma_disk_loader)
    codes, output = theirs.codes_and_output(rows())
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(rows()), codes, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours(rows()), output, rtol=0, atol=1e-5)
    assert ours.cfg.metadata.hook_name == "blocks.9.hook_resid_post"


@pytest.mark.parametrize("where", ["config.json", "a dict in the pickle"])
def test_vit_prisma_normalises_by_layer_unless_its_config_says_otherwise(tmp_path, where):
    theirs = Prisma("standard", "topk", "layer_norm")
    config = {
        key: value for key, value in theirs.config.items() if key not in ("normalize_activations", "device", "dtype")
    }
    if where == "config.json":
        torch.save({f"_orig_mod.{key}": value for key, value in theirs.state.items()}, tmp_path / "weights.pt")
        (tmp_path / "config.json").write_text(json.dumps(config))
    else:
        torch.save({"cfg": config, "state_dict": theirs.state}, tmp_path / "weights.pt")
    ours = SAE.load_from_disk(tmp_path, converter=vit_prisma_disk_loader)
    codes, output = theirs.codes_and_output(rows())
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(rows()), codes, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours(rows()), output, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_fn_kwargs": {}}, "should say activation_fn_kwargs.k"),
        ({"activation_fn_kwargs": None}, "should say activation_fn_kwargs.k"),
        ({"activation_fn_kwargs": {"k": 1000}}, f"should say activation_fn_kwargs.k, 1 to {N}"),
        ({"d_in": 768}, "its d_in is 768"),
        ({"normalize_activations": "expected_average_only_in"}, "does not hold by what"),
        ({"normalize_activations": "zscore"}, "normalize_activations must be"),
        ({"is_transcoder": True}, "transcoder"),
    ],
)
def test_what_a_vit_prisma_config_should_say(tmp_path, change, message):
    theirs = Prisma("standard", "topk", "none")
    torch.save(theirs.state, tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text(json.dumps(theirs.config | change))
    with pytest.raises(MedSAEError, match=message):
        import_checkpoint(tmp_path, "vit_prisma", "phantom-swin", "hook_embedding", tmp_path / "out")


def test_vit_prismas_pickled_config_is_read_without_its_code(tmp_path, monkeypatch):
    """The file names a class of vit_prisma, which is not there; its values are read all the same."""
    module = types.ModuleType("vit_prisma.sae.config")

    class VisionModelSAERunnerConfig:
        pass

    VisionModelSAERunnerConfig.__module__, VisionModelSAERunnerConfig.__qualname__ = (
        module.__name__,
        "VisionModelSAERunnerConfig",
    )
    module.VisionModelSAERunnerConfig = VisionModelSAERunnerConfig
    theirs = Prisma("standard", "relu", "none")
    cfg = VisionModelSAERunnerConfig()
    vars(cfg).update(theirs.config | {"device": torch.device("cpu"), "dtype": torch.float32})
    with monkeypatch.context() as patch:
        for name in ("vit_prisma", "vit_prisma.sae", module.__name__):
            patch.setitem(sys.modules, name, module)
        torch.save({"cfg": cfg, "state_dict": theirs.state}, tmp_path / "weights.pt")
    assert "vit_prisma" not in sys.modules
    ours = SAE.load_from_disk(tmp_path / "weights.pt", converter=vit_prisma_disk_loader)
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(rows()), theirs.codes_and_output(rows())[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("format", ["dictionary_learning", "vit_prisma"])
def test_a_pickle_that_would_run_code_is_refused(format, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"W_enc": torch.zeros(2, 2), "cfg": Hostile()}, tmp_path / "ae.pt")
    with pytest.raises(MedSAEError, match=r"ae\.pt"):
        import_checkpoint(tmp_path / "ae.pt", format, "phantom-swin", "hook_embedding", tmp_path / "out")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_converters_are_among_sae_lens_own():
    assert {"dictionary_learning", "vit_prisma"} <= NAMED_PRETRAINED_SAE_LOADERS.keys()


def test_a_format_of_ones_own_is_an_entry(tmp_path):
    """Registered outside: `import_checkpoint`, a release's card and SAE-Lens's named loaders read it."""

    def convert(saved, config):
        d_in, d_sae = saved["up"].shape
        state = {"W_enc": saved["up"], "W_dec": saved["down"]} | {f"b_{k}": saved[k] for k in ("enc", "dec")}
        cfg = {"d_in": d_in, "d_sae": d_sae, "architecture": "topk", "k": config["active"], "metadata": {}}
        return cfg | {"apply_b_dec_to_input": False}, state

    saved = {"up": torch.eye(96), "down": 2 * torch.eye(96), "enc": torch.zeros(96), "dec": torch.ones(96)}
    (tmp_path / "theirs").mkdir()
    torch.save(saved, tmp_path / "theirs" / "up-down.pt")
    (tmp_path / "theirs" / "how.json").write_text('{"active": 3}')
    sae = {"id": "one", "path": "theirs", "hook": "hook_embedding"}
    sae["sha256"] = {"up-down.pt": sha256_of(tmp_path / "theirs" / "up-down.pt")}
    card = {"folder": ".", "model": "phantom-swin", "encoder": "phantom-swin", "licence": "MIT", "saes": [sae]}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump({"own-format": {**card, "conversion_func": "up_down"}}))
    with pytest.raises(MedSAEError, match="conversion_func 'up_down' is not one of"):
        register_releases(tmp_path / "card.yaml")
    mine = Format("up_down", weights="up-down.pt", config="how.json", convert=convert, marks=("active",))
    try:
        register_format(mine)
        with pytest.raises(MedSAEError, match="there is a format 'up_down' already"):
            register_format(dataclasses.replace(mine, config="other.json"))
        register_releases(tmp_path / "card.yaml")
        x = torch.randn(5, 96)
        expected = 2 * torch.zeros(5, 96).scatter(1, *reversed([x.relu().topk(3).values, x.topk(3).indices])) + 1
        with torch.no_grad():
            torch.testing.assert_close(SAE.from_pretrained("own-format", "one")(x), expected)
            imported = import_checkpoint(
                tmp_path / "theirs", "up_down", "phantom-swin", "hook_embedding", tmp_path / "out"
            )
            torch.testing.assert_close(imported(x), expected)
        assert "up_down" in NAMED_PRETRAINED_SAE_LOADERS
    finally:
        FORMATS.pop("up_down", None)
        registry._registered.pop("own-format", None)
        get_pretrained_saes_directory().pop("own-format", None)
        for known in (NAMED_PRETRAINED_SAE_LOADERS, NAMED_PRETRAINED_SAE_CONFIG_GETTERS):
            known.pop("up_down", None)


@pytest.fixture
def foreign(tmp_path):
    """A checkpoint of the width of phantom-swin's embedding."""
    torch.manual_seed(0)
    sae = original("dictionary").AutoEncoder(96, 192)
    return sae, save(sae, tmp_path / "trainer_0") / "ae.pt"


def test_import_command(foreign, tmp_path, capsys):
    sae, checkpoint = foreign
    out = tmp_path / "imported"
    arguments = [
        "import",
        str(checkpoint),
        "--format",
        "dictionary_learning",
        "--encoder",
        "phantom-swin",
        "--out",
        str(out),
    ]
    assert main([*arguments, "--hook", "hook_embedding"]) == 0
    assert "standard, 96 dimensions, 192 latents" in capsys.readouterr().out
    loaded = SAE.load_from_disk(out)
    x = torch.randn(9, 96)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), sae(x), rtol=0, atol=1e-5)
    metadata = loaded.cfg.metadata
    assert (metadata.model_name, metadata.hook_name) == ("phantom-swin", "hook_embedding")
    assert metadata.encoder_sha256.startswith("a5960a19")
    assert str(tmp_path) not in (out / "cfg.json").read_text()
    assert main([*arguments, "--hook", "hook_embedding"]) == 1
    assert "is not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--hook": "hook_embeding"}, "has no hook point 'hook_embeding'"),
        ({"--hook": "hook_embed"}, "takes 96 dimensions; encoder phantom-swin has 24 at hook_embed"),
        ({"--encoder": "medclip"}, "no card named 'medclip'"),
        ({"checkpoint": "absent.pt"}, "there is no dictionary_learning checkpoint at"),
    ],
)
def test_import_mistakes(foreign, tmp_path, capsys, change, message):
    options = {"checkpoint": str(foreign[1]), "--encoder": "phantom-swin", "--hook": "hook_embedding"} | change
    out = tmp_path / "out"
    rest = [word for key, value in options.items() if key != "checkpoint" for word in (key, value)]
    assert main(["import", options["checkpoint"], "--format", "dictionary_learning", "--out", str(out), *rest]) == 1
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and not out.exists()
