"""What an imported SAE takes: the hook's activations, unit-length embeddings, centred and scaled ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sae_lens import SAE
from safetensors.torch import save_file

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.encoders import HookedVisionEncoder, build_encoder, load_card
from medsae_plugin.release import import_checkpoint
from medsae_plugin.release.formats import FORMATS

D, N = 96, 192
UNIT = "hook_embedding_unit"


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def checkpoint(folder: Path, activation: str = "topk", d: int = D, **more: object) -> Path:
    """A ViSAEBench checkpoint of the width of phantom-swin's embedding."""
    folder.mkdir(exist_ok=True)
    shapes = {"encoder.weight": (N, d), "encoder.bias": (N,), "decoder.weight": (N, d), "decoder.bias": (d,)}
    state = {key: drawn(*shape, seed=k) for k, (key, shape) in enumerate(shapes.items())}
    if activation == "jumprelu":
        state["jump_thresholds"] = drawn(N, seed=9).abs()
    torch.save(state, folder / "sae.pt")
    (folder / "config.json").write_text(json.dumps({"activation": activation, "k": 9, **more}))
    return folder


def trained(folder: Path) -> SAE:
    """The SAE as it was trained, before anything is folded in."""
    return SAE.load_from_disk(folder, converter=FORMATS["visaebench"].disk_loader)


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".safetensors"])
@pytest.mark.parametrize("activation", ["topk", "jumprelu"])
def test_a_mean_and_a_scale_are_folded_exactly(tmp_path, activation, suffix):
    folder, mean, scale = checkpoint(tmp_path / "theirs", activation), drawn(D, seed=20) * 0.3, 22.6
    file = tmp_path / f"mean{suffix}"
    if suffix == ".npy":
        np.save(file, mean.numpy())
    elif suffix == ".pt":
        torch.save(mean[None], file)
    else:
        save_file({"mean": mean}, file)
    out = tmp_path / "out"
    import_checkpoint(folder, "visaebench", "phantom-swin", "hook_embedding", out, input="raw", mean=file, scale=scale)
    ours, theirs = SAE.load_from_disk(out), trained(folder)
    x = drawn(64, D, seed=21) * 2 / scale + mean
    with torch.no_grad():
        codes = theirs.encode((x - mean) * scale)
        assert 0.02 < (codes > 0).float().mean() < 0.9
        torch.testing.assert_close(ours.encode(x), codes, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours(x), theirs((x - mean) * scale) / scale + mean, rtol=0, atol=1e-5)
    metadata = ours.cfg.metadata
    assert (metadata.input, metadata.folded["scale"]) == ("raw", scale)
    assert metadata.folded["mean_norm"] == pytest.approx(float(mean.norm()), abs=1e-5)
    assert str(tmp_path) not in (out / "cfg.json").read_text()


def test_unit_input_stands_at_the_unit_embedding(tmp_path, capsys):
    """Latents there are those of rows divided by their length, centred and scaled."""
    folder, mean = checkpoint(tmp_path / "theirs"), drawn(D, seed=20)
    torch.save(mean, tmp_path / "mean.pt")
    words = ["import", str(folder), "--format", "visaebench", "--encoder", "phantom-swin", "--hook", "hook_embedding"]
    words += ["--input", "unit", "--mean", str(tmp_path / "mean.pt"), "--scale", "4", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert f"at {UNIT}" in printed and "folded into the weights" in printed and "scale 4" in printed
    ours, theirs = SAE.load_from_disk(tmp_path / "out"), trained(folder)
    assert (ours.cfg.metadata.hook_name, ours.cfg.metadata.input) == (UNIT, "unit")
    encoder = HookedVisionEncoder.from_pretrained("phantom-swin")
    images = torch.rand(2, *encoder.preprocess(Image.new("L", (64, 64))).shape[-3:])
    with torch.no_grad():
        _, cache = encoder.run_with_cache(images)
        unit = cache["hook_embedding"] / cache["hook_embedding"].norm(dim=-1, keepdim=True)
        torch.testing.assert_close(ours.encode(cache[UNIT]), theirs.encode((unit - mean) * 4), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "say which: MedCLIP's own encode_image"),
        ({"input": "unit", "hook": "hook_pooled"}, "to be had at hook_embedding_unit, not at hook_pooled"),
        ({"input": "raw", "hook": UNIT}, "says that they are not"),
        ({"input": "cosine"}, "input 'cosine' is neither of unit, raw"),
        ({"input": "unit", "scale": 0.0}, "scale 0.0 should be a number above 0"),
        ({"input": "unit", "scale": float("nan")}, "should be a number above 0"),
        ({"input": "unit", "mean": "short.npy"}, "the mean has 3 dimensions, the SAE 512"),
        ({"input": "unit", "mean": "matrix.npy"}, r"should hold one vector .* it is \(2, 3\)"),
        ({"input": "unit", "mean": "text.npy"}, "holds no vector"),
    ],
)
def test_what_has_to_be_said_of_medclips_embedding(tmp_path, change, message):
    """Its `hook_embedding` is not normalised, and MedSAE's reference normalises: which it was is not guessed."""
    np.save(tmp_path / "short.npy", np.zeros(3))
    np.save(tmp_path / "matrix.npy", np.zeros((2, 3)))
    (tmp_path / "text.npy").write_text("0 0 0")
    how = {"hook": "hook_embedding", **change}
    if "mean" in how:
        how["mean"] = tmp_path / how["mean"]
    folder = checkpoint(tmp_path / "theirs", d=512)
    with pytest.raises(MedSAEError, match=message):
        import_checkpoint(folder, "visaebench", "medclip-resnet50", how.pop("hook"), tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("input", ["raw", "unit"])
def test_medclips_embedding_is_taken_once_it_is_said(tmp_path, input):
    folder = checkpoint(tmp_path / "theirs", d=512)
    ours = import_checkpoint(folder, "visaebench", "medclip-resnet50", "hook_embedding", tmp_path / "out", input=input)
    assert ours.cfg.metadata.hook_name == {"raw": "hook_embedding", "unit": UNIT}[input]
    assert UNIT in build_encoder(load_card("medclip-resnet50")).hook_specs


def test_what_saev_trained_on_has_to_be_said(tmp_path):
    shapes = {"W_enc": (D, N), "W_dec": (N, D), "b_enc": (N,), "b_dec": (D,)}
    state = {key: drawn(*shape, seed=k) for k, (key, shape) in enumerate(shapes.items())}
    torch.save(state, tmp_path / "state.pt")
    line = json.dumps({"d_vit": D, "exp_factor": 2, "seed": 0}).encode()
    (tmp_path / "sae.pt").write_bytes(line + b"\n" + (tmp_path / "state.pt").read_bytes())
    at = (tmp_path / "sae.pt", "saev", "phantom-swin", "hook_embedding", tmp_path / "out")
    with pytest.raises(MedSAEError, match="does not hold: say --input raw if it did not"):
        import_checkpoint(*at)
    assert import_checkpoint(*at, input="raw").cfg.metadata.imported_from == "saev"


def test_a_mean_is_not_folded_twice_nor_into_what_normalises_rows(tmp_path):
    shapes = {"W_enc": (D, N), "W_dec": (N, D), "b_enc": (N,), "b_dec": (D,)}
    state = {key: drawn(*shape, seed=k) for k, (key, shape) in enumerate(shapes.items())}
    config = {"architecture": "standard", "activation_fn_str": "relu", "normalize_activations": None, "d_in": D}
    torch.save({"state_dict": state, "cfg": config, "act_mean": drawn(D, seed=9)}, tmp_path / "weights.pt")
    at = (tmp_path, "vit_prisma", "phantom-swin", "hook_embedding", tmp_path / "out")
    with pytest.raises(MedSAEError, match="a mean of its own"):
        import_checkpoint(*at, scale=2.0)
    torch.save({"state_dict": state, "cfg": config | {"normalize_activations": "layer_norm"}}, tmp_path / "weights.pt")
    with pytest.raises(MedSAEError, match=r"normalises each row \(layer_norm\)"):
        import_checkpoint(*at, scale=2.0)
