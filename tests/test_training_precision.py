"""`--precision` of a training: what it comes to, what is saved, and what is refused."""

import json

import pytest
import torch
from helpers.planted import planted_rows, write_store
from safetensors.torch import load_file

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.precision import Precision
from medsae_plugin.store import ActivationStore
from medsae_plugin.training import SAESpec, TrainingConfig, train_saes
from medsae_plugin.training.precision import in_precision

HOOK = "hook_embedding"
CONFIG = TrainingConfig(640, batch_size=64, lr=3e-3)
TOPK = SAESpec("a", HOOK, "topk", 2, options={"k": 3})
RECIPE = f"""
saes: [{{name: a, hook: {HOOK}, architecture: topk, expansion: 2, options: {{k: 3}}}}]
training: {{samples: 640, batch_size: 64, autocast: AUTOCAST}}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ActivationStore:
    return write_store(tmp_path_factory.mktemp("store") / "store", {HOOK: planted_rows(300, 12, 18)[0]})


@pytest.fixture
def bf16_chip(monkeypatch):
    """A chip that computes in bfloat16, whatever this one does."""
    monkeypatch.setattr("medsae_plugin.precision.computes_in_bfloat16", lambda device: True)


@pytest.mark.parametrize("architecture", ["topk", "medsae_topk", "batchtopk", "gated", "matching_pursuit"])
def test_steps_in_bf16_save_float32(store, tmp_path, bf16_chip, architecture):
    options = {"k": 3} if "topk" in architecture else {}
    spec = SAESpec("a", HOOK, architecture, 2, "none", options)
    config, precision = in_precision("bf16", store, [spec], CONFIG, None)
    assert config.autocast and precision == Precision("bf16")
    weights = {}
    for name, cfg in (("bf16", config), ("fp32", CONFIG)):
        folder = train_saes(store, [spec], cfg, tmp_path / name, progress=False)["a"]
        weights[name] = load_file(folder / "sae_weights.safetensors")
        assert {w.dtype for w in weights[name].values()} == {torch.float32}
        assert json.loads((folder / "cfg.json").read_text())["dtype"] == "float32"
    assert any(not torch.equal(w, weights["fp32"][key]) for key, w in weights["bf16"].items())


def test_auto_takes_bf16_within_the_bounds_and_takes_no_random_numbers(store, bf16_chip):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    config, precision = in_precision("auto", store, [TOPK, SAESpec("b", HOOK, "gated", 2)], CONFIG, None)
    assert torch.equal(torch.rand(3), expected)
    assert config.autocast and str(precision).startswith(
        "computed in bf16 (auto: 128 rows in bf16 have cosines of 0.99"
    )


def test_auto_keeps_to_fp32_where_bf16_fails_a_bound(tmp_path, bf16_chip):
    """Rows of a mean so large, and not taken away, that bfloat16 rounds their differences."""
    far = write_store(tmp_path / "far", {HOOK: planted_rows(300, 12, 18, offset=3000.0)[0]})
    config, precision = in_precision("auto", far, [SAESpec("a", HOOK, "topk", 2, "none", {"k": 3})], CONFIG, None)
    assert not config.autocast and "of noise; auto wants above" in str(precision)
    assert in_precision("auto", far, [TOPK], CONFIG, None)[0].autocast  # whose mean is taken away


def test_auto_on_a_chip_without_bfloat16(store, monkeypatch):
    monkeypatch.setattr("medsae_plugin.precision.computes_in_bfloat16", lambda device: False)
    config, precision = in_precision("auto", store, [TOPK], CONFIG, None)
    assert not config.autocast and str(precision) == "computed in fp32 (auto: no bfloat16 in this chip (cpu))"
    config, precision = in_precision("bf16", store, [TOPK], CONFIG, None)
    assert config.autocast and str(precision) == "computed in bf16 (emulated: no bfloat16 in this chip (cpu))"


@pytest.mark.parametrize("recipe", [True, False])
def test_the_command_goes_by_the_recipe_and_precision_comes_before_it(store, tmp_path, capsys, recipe, bf16_chip):
    file, out = tmp_path / "recipe.yaml", tmp_path / "out"
    file.write_text(RECIPE.replace("AUTOCAST", str(recipe).lower()))
    train = ["train", str(store.path), "--recipe", str(file), "--out", str(out)]
    begun, other = ("bf16", "fp32") if recipe else ("fp32", "bf16")
    assert main([*train, "--plan", "--precision", other]) == 0
    assert f"\ncomputed in {other}\n" in capsys.readouterr().out
    assert main(train) == 0
    assert f"computed in {begun} (as the recipe says)" in capsys.readouterr().err
    assert json.loads((out / "run.json").read_text())["training"]["autocast"] == recipe
    assert main([*train, "--precision", other]) == 1
    assert f"{out} was begun in {begun}; choose another folder, or --precision {begun}" in capsys.readouterr().err
    assert main([*train, "--precision", "auto"]) == 0
    assert f"computed in {begun} (auto: as the run was begun)" in capsys.readouterr().err


def test_a_training_over_a_store_of_another_precision_is_another(store, tmp_path):
    """Its rows are others, though images, encoder and dtype are the same."""
    spec, out = SAESpec("a", HOOK, "topk", 2, options={"k": 3}), tmp_path / "out"
    train_saes(store, [spec], CONFIG, out, progress=False)
    run = json.loads((out / "run.json").read_text())
    assert run["store"].pop("computed_in") == "float32"  # of a run of before there was a choice
    (out / "run.json").write_text(json.dumps(run))
    train_saes(store, [spec], CONFIG, out, progress=False)
    other = ActivationStore(store.path)
    encoder = other.manifest.encoder.model_copy(update={"dtype": "bfloat16 autocast"})
    other.manifest = other.manifest.model_copy(update={"encoder": encoder})
    with pytest.raises(MedSAEError, match=r"store\.computed_in: 'float32' in the folder, 'bfloat16 autocast' now"):
        train_saes(other, [spec], CONFIG, out, progress=False)


def test_what_is_no_precision(store):
    with pytest.raises(MedSAEError, match="precision 'half': use auto, fp32, bf16"):
        in_precision("half", store, [TOPK], CONFIG, None)
