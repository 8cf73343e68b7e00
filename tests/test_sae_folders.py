"""SAE folders: what is read, and in whatever way one is wrong, words that name it and say what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.planted import planted_rows, write_store
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TemporalSAE,
    TemporalSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    TrainingSAE,
    Transcoder,
    TranscoderConfig,
)
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import load_file, save_file

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.cli import main
from medsae_plugin.comparison.entries import sources_of
from medsae_plugin.sae_folders import load_sae
from medsae_plugin.scores.opening import open_units
from medsae_plugin.store import ActivationStore

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
D, N, K = 8, 24, 3
ENCODER = {"model_name": "planted", "encoder_sha256": "0" * 64, "hook_name": "h"}


def make(folder: Path, **metadata: str) -> Path:
    """A top-k SAE of drawn weights, of the encoder that `planted.write_store` names."""
    torch.manual_seed(0)
    sae = TopKSAE(TopKSAEConfig(d_in=D, d_sae=N, k=K, metadata=SAEMetadata(**{**ENCODER, **metadata})))
    sae.save_model(folder)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return make(tmp_path / "sae")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ActivationStore:
    return write_store(tmp_path_factory.mktemp("store") / "store", {"h": planted_rows(120, D, 6)[0]})


@pytest.fixture(scope="module")
def labels(store) -> Path:
    frame = store.images[["path", "patient"]].copy()
    frame["Edema"] = [i % 2 for i in range(len(frame))]
    frame.to_csv(store.path.parent / "labels.csv", index=False)
    return store.path.parent / "labels.csv"


def edit(folder: Path, **fields: object) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **fields}))


def edit_weights(folder: Path, change) -> None:
    save_file({name: change(name, w).contiguous() for name, w in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)


def lfs_pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def without(folder: Path, field: str) -> None:
    config = json.loads((folder / CONFIG).read_text())
    del config[field]
    (folder / CONFIG).write_text(json.dumps(config))


WRONG = {
    "git-lfs weights": (lambda f: lfs_pointer(f / WEIGHTS), "git-lfs pointer.*git lfs pull"),
    "git-lfs config": (lambda f: lfs_pointer(f / CONFIG), "git-lfs pointer.*git lfs pull"),
    "cut weights": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:900]), "cut short or damaged"),
    "empty weights": (lambda f: (f / WEIGHTS).write_bytes(b""), "cut short or damaged"),
    "a page": (lambda f: (f / WEIGHTS).write_text("<!DOCTYPE html><html>log in</html>"), "cut short or damaged"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), f"no {WEIGHTS}"),
    "no config": (lambda f: (f / CONFIG).unlink(), f"no {CONFIG}"),
    "cut config": (lambda f: (f / CONFIG).write_text('{"d_in": 8,'), "is damaged, or not what its name says"),
    "binary config": (
        lambda f: (f / CONFIG).write_bytes(b"\xff\xfe\x00"),
        "is damaged, or not what its name says",
    ),
    "a list": (lambda f: (f / CONFIG).write_text("[1]"), "should hold a JSON object"),
    "unknown architecture": (lambda f: edit(f, architecture="supertopk"), "'supertopk', which SAE-Lens .* not know"),
    "no architecture": (lambda f: without(f, "architecture"), ""),
    "no width": (lambda f: without(f, "d_in"), "do not fit"),
    "other width": (lambda f: edit(f, d_sae=100), f"d_sae 100 and d_in {D}; its W_dec is {N} x {D}"),
    "other architecture": (lambda f: edit(f, architecture="gated"), "does not load.*b_gate"),
    "no k": (lambda f: without(f, "k"), "does not say k"),
    "text for a width": (lambda f: edit(f, d_sae=str(N)), "do not fit"),
    "a list for an architecture": (lambda f: edit(f, architecture=["topk"]), "does not load"),
    "metadata of another kind": (lambda f: edit(f, metadata=[1]), "metadata should be an object"),
    "a word for normalisation": (lambda f: edit(f, normalize_activations="zscore"), "normalize_activations must be"),
    "normalised": (lambda f: edit(f, normalize_activations="expected_average_only_in"), "does not hold by what"),
    "whitened": (lambda f: edit(f, normalize_activations="covariance_whitening"), "does not hold by what"),
    "whole numbers": (
        lambda f: edit_weights(f, lambda name, w: (w * 9).to(torch.int8)),
        "no floating-point numbers: .*W_dec",
    ),
    "diverged": (lambda f: edit_weights(f, lambda name, w: w * float("nan") if name == "b_enc" else w), "nan.*b_enc"),
    "short bias": (lambda f: edit_weights(f, lambda name, w: w[:5] if name == "b_enc" else w), "does not load.*b_enc"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_folder_is_said(folder, what):
    change, message = WRONG[what]
    change(folder)
    with pytest.raises(MedSAEError, match=message) as raised:
        load_sae(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("what", ["git-lfs weights", "cut config", "other width", "no k"])
def test_every_command_says_so(folder, store, labels, tmp_path, capsys, what):
    WRONG[what][0](folder)
    table = ["--table", str(labels)]
    commands = {
        "evaluate": [str(store.path), str(folder), *table, "--out", str(tmp_path / "e")],
        "stats": [str(store.path), str(folder), *table, "--out", str(tmp_path / "s")],
        "compare": [str(store.path), str(folder), *table, "--out", str(tmp_path / "c")],
        "name": [str(store.path), str(folder), *table, "--out", str(tmp_path / "n"), "--backend", "label"],
        "fidelity": ["phantom-swin", str(folder), *table],
        "attribute": ["phantom-swin", str(folder), *table],
        "publish": [str(folder), "--repo", "o/n", "--dry-run", "--out", str(tmp_path / "p")],
    }
    for command, words in commands.items():
        assert main([command, *words]) == 1, command
        err = capsys.readouterr().err
        assert str(folder) in err and "Traceback" not in err, command


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_an_sae_is_read_in_float32_whatever_it_was_saved_in(folder, dtype):
    exact = load_sae(folder).W_dec.to(getattr(torch, dtype)).float()  # now: older safetensors map the file that follows
    edit(folder, dtype=dtype, device="cuda")
    edit_weights(folder, lambda name, w: w.to(getattr(torch, dtype)))
    sae = load_sae(folder)
    assert {weights.dtype for weights in sae.state_dict().values()} == {torch.float32}
    x = torch.randn(20, D, generator=torch.Generator().manual_seed(1))
    assert sae(x).dtype == torch.float32
    assert torch.equal(sae.W_dec, exact)


def test_an_sae_of_sae_lens_5_is_read(folder):
    new = load_sae(folder)
    old = {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "d_in": D,
        "d_sae": N,
        "hook_name": "h",
        "model_name": "planted",
        "hook_layer": 0,
        "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False,
        "normalize_activations": "none",
        "dtype": "float32",
        "device": "mps",
        "context_size": 1,
        "prepend_bos": False,
        "sae_lens_training_version": "5.3.0",
    }
    (folder / CONFIG).write_text(json.dumps(old))
    x = torch.randn(20, D, generator=torch.Generator().manual_seed(1))
    assert torch.equal(load_sae(folder).encode(x), new.encode(x))


def test_a_checkpoint_that_no_inference_class_reads_says_how_to_finish_it(tmp_path):
    BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D, d_sae=N, k=K)).save_model(tmp_path)
    with pytest.raises(MedSAEError, match=r"unfinished batchtopk training.*save_inference_model") as raised:
        load_sae(tmp_path)
    assert f"TrainingSAE.load_from_disk({str(tmp_path)!r})" in str(raised.value)
    TrainingSAE.load_from_disk(tmp_path).save_inference_model(tmp_path / "done")  # the advice works
    assert load_sae(tmp_path / "done").cfg.architecture() == "jumprelu"


def test_what_is_no_sae_of_a_row_is_not_scored(store, tmp_path):
    Transcoder(TranscoderConfig(d_in=D, d_sae=N, d_out=5, apply_b_dec_to_input=False)).save_model(tmp_path / "a")
    with pytest.raises(MedSAEError, match="a is a transcoder"):
        open_units(store, [tmp_path / "a"])
    TemporalSAE(TemporalSAEConfig(d_in=D, d_sae=N, n_heads=1, bottleneck_factor=1)).save_model(tmp_path / "b")
    with pytest.raises(MedSAEError, match="order of rows"):
        open_units(store, [tmp_path / "b"])


def test_paths_that_are_no_folder_of_an_sae_say_what_they_are(folder, tmp_path):
    with pytest.raises(MedSAEError, match="absent holds no SAE: there is no such folder"):
        load_sae(tmp_path / "absent")
    with pytest.raises(MedSAEError, match="it is a file; give the folder"):
        load_sae(folder / WEIGHTS)
    with pytest.raises(MedSAEError, match=r"no cfg\.json in it; there is in sae: give these"):
        load_sae(tmp_path)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "ae.pt").write_bytes(b"")
    with pytest.raises(MedSAEError, match="medsae import"):
        load_sae(tmp_path / "foreign")


@pytest.mark.parametrize("command", ["compare", "evaluate"])
def test_a_star_over_what_train_leaves_takes_the_saes(store, labels, tmp_path, capsys, command):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "saes:\n"
        "  - {name: a, hook: h, architecture: topk, expansion: 2, options: {k: 3}}\n"
        "  - {name: b, hook: h, architecture: topk, expansion: 2, options: {k: 3}, seed: 1}\n"
        "training: {total_training_samples: 640, batch_size: 64, n_checkpoints: 1}\n"
    )
    saes = tmp_path / "saes"
    assert main(["train", str(store.path), "--recipe", str(recipe), "--out", str(saes), "--quiet"]) == 0
    star = sorted(map(str, saes.glob("*")))
    assert [Path(path).name for path in star] == ["a", "b", "checkpoints", "run.json"]
    out = tmp_path / "out"
    capsys.readouterr()
    assert main([command, str(store.path), *star, "--table", str(labels), "--out", str(out), "--quiet"]) == 0
    said = capsys.readouterr()
    assert f"left aside, for they are no SAEs: {star[2]}, {star[3]}" in said.err
    file = out / "scores" / "metrics.json" if command == "compare" else out / "metrics.json"
    scored = [c["name"] for c in json.loads(file.read_text())["candidates"] if c["kind"] == "sae"]
    assert scored == ["a", "b"]
    assert main([command, str(store.path), *star[2:], "--table", str(labels), "--out", str(out)]) == 1
    assert "there is no SAE among these" in capsys.readouterr().err
    (saes / "notes").mkdir()  # what nobody knows is not left aside
    words = [str(store.path), *star[:2], str(saes / "notes"), "--table", str(labels), "--out", str(out)]
    assert main([command, *words]) == 1
    assert "notes holds no SAE" in capsys.readouterr().err


def test_an_sae_of_another_encoder_is_refused_and_one_of_unknown_weights_said(store, tmp_path):
    def scored(**metadata: str) -> list[str]:
        shutil.rmtree(tmp_path / "sae", ignore_errors=True)
        return [c.name for c in open_units(store, [make(tmp_path / "sae", **metadata)])]

    assert scored() == ["sae", "untrained sae", "neurons of h"]
    with pytest.raises(MedSAEError, match=r"sae was trained on encoder weights ffffffffffff\.\.\., those of planted"):
        scored(encoder_sha256="f" * 64)
    # Imported for a card without a checksum: the name is all there is to go by.
    with pytest.raises(MedSAEError, match="an SAE of the encoder medclip-swin, and this is planted"):
        scored(encoder_sha256="", model_name="medclip-swin")
    with pytest.warns(UserWarning, match="taken for an SAE of this planted, unchecked"):
        scored(encoder_sha256="")
    with pytest.raises(MedSAEError, match="does not say which hook"):
        scored(hook_name=None)


def test_saes_of_several_stores_go_to_their_encoders_by_name_where_no_checksum_tells(store, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(store.path, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["encoder"] |= {"name": "second", "weights_sha256": "1" * 64}
    (other / "manifest.json").write_text(json.dumps(manifest))
    stores = [store, ActivationStore(other)]
    mine = make(tmp_path / "mine")
    theirs = make(tmp_path / "theirs", encoder_sha256="", model_name="second")
    sources = sources_of(stores, [theirs, mine])
    folders = [(source.label, *(path for _, path in source.saes.values())) for source in sources]
    assert folders == [
        ("planted", mine),
        ("second", theirs),
    ]
    stray = make(tmp_path / "stray", encoder_sha256="", model_name="third")
    with pytest.raises(
        MedSAEError, match=r"an SAE of encoder third.*none of the stores is: they are of planted, second"
    ):
        sources_of(stores, [mine, stray])


def test_a_layer_norm_sae_is_scored_on_raw_activations(store, labels, tmp_path):
    """ViT-Prisma's default, which SAE-Lens applies at run time."""
    torch.manual_seed(0)
    cfg = StandardSAEConfig(d_in=D, d_sae=N, normalize_activations="layer_norm", metadata=SAEMetadata(**ENCODER))
    StandardSAE(cfg).save_model(tmp_path / "sae")
    from medsae_plugin import evaluate

    evaluation = evaluate(store, [tmp_path / "sae"], read_table(labels), progress=False)
    sae = load_sae(tmp_path / "sae")
    x = torch.cat([rows for _, rows in store.image_batches("h", "test")])
    z = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)
    with torch.no_grad():
        codes = torch.relu((z - sae.b_dec) @ sae.W_enc + sae.b_enc)
        back = (codes @ sae.W_dec + sae.b_dec) * x.std(1, keepdim=True) + x.mean(1, keepdim=True)
    expected = 1 - ((x - back) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert evaluation.saes[0].fidelity["explained_variance"] == pytest.approx(float(expected), rel=1e-4)
