"""SAEs of other libraries encode and decode as the originals do, whose own classes make the checkpoints."""

import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest
import torch
from sae_lens import SAE
from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_LOADERS

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.hub import dictionary_learning_disk_loader, import_checkpoint, vit_prisma_disk_loader

D, N = 12, 40


def original(module: str) -> types.ModuleType:
    """A module of the real dictionary_learning package.

    Its `__init__` imports nnsight for a buffer of language models' activations; the dictionaries need none of it.
    """
    if "dictionary_learning" not in sys.modules:
        spec = importlib.util.find_spec("dictionary_learning")
        if spec is None or spec.submodule_search_locations is None:
            pytest.skip("dictionary_learning is not installed (pip install --no-deps dictionary-learning)")
        package = types.ModuleType("dictionary_learning")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["dictionary_learning"] = package
    return importlib.import_module(f"dictionary_learning.{module}")


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
    assert metadata.encoder_sha256.startswith("5b8efdef")
    assert str(tmp_path) not in (out / "cfg.json").read_text()
    assert main([*arguments, "--hook", "hook_embedding"]) == 1
    assert "is not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--hook": "hook_embeding"}, "has no hook point 'hook_embeding'"),
        ({"--hook": "hook_embed"}, "the SAE takes 96 dimensions; phantom-swin has 24"),
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
