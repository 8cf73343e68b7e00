"""SAEs that vision's SAE libraries write: read as their own code computes them, and refused where a file does not
tell."""

import dataclasses
import io
import json
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from helpers.libraries import original
from sae_lens import SAE
from safetensors.torch import save_file
from torch import nn

from medsae_plugin import MedSAEError
from medsae_plugin.release.formats import FORMATS

D, N = 12, 40


def rows(n: int = 64) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(5)) + 0.5


def drawn(*shape: int, seed: int = 3, scale: float = 0.4) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def scrambled(module: nn.Module) -> nn.Module:
    """With every parameter drawn anew, so that none is 0 or tied to another."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module


def imported(format: str, path: Path) -> SAE:
    return SAE.load_from_disk(path, converter=FORMATS[format].disk_loader)


@torch.no_grad()
def assert_same(ours: SAE, codes: torch.Tensor, output: torch.Tensor) -> None:
    """The codes and reconstructions of `rows()`, to 1e-5."""
    assert 0.02 < (codes > 0).float().mean() < 0.9
    torch.testing.assert_close(ours.encode(rows()), codes, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours(rows()), output, rtol=0, atol=1e-5)


def plain_state(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    shapes = {"W_enc": (D, N), "W_dec": (N, D), "b_enc": (N,), "b_dec": (D,)}
    return {key: drawn(*shape, seed=k) for k, (key, shape) in enumerate(shapes.items())} | more


# saev: OSU-NLP-Group/saev. Version 0.1 is on PyPI; the later schemas are written here as `dump` of its
# src/saev/nn/modeling.py does: the header, a newline, torch.save of the state dict.


def test_saev_0_1(tmp_path):
    saev, config = original("saev.nn", "saev"), original("saev.config", "saev")
    theirs = scrambled(saev.SparseAutoencoder(config.SparseAutoencoder(d_vit=D, exp_factor=4)))
    saev.dump(str(tmp_path / "sae.pt"), theirs)
    with torch.no_grad():
        output, codes, _ = theirs(rows())
    assert_same(imported("saev", tmp_path), codes, output)


def dump(path: Path, header: dict, state: dict[str, torch.Tensor]) -> Path:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(json.dumps(header).encode() + b"\n" + buffer.getvalue())
    return path


def header(schema: int, activation: str, **params: object) -> dict:
    width = {"d_vit": D} if schema < 3 else {"d_model": D, "d_sae": N}
    cfg = {**width, "seed": 0, "activation": {"cls": activation, "params": params}}
    return {"schema": schema, "cfg": cfg, "commit": "0", "lib": "0.1.0"}


@pytest.mark.parametrize("schema", [2, 3, 4, 5])
@pytest.mark.parametrize("activation", ["Relu", "TopK", "BatchTopK"])
def test_saev_since_schema_2(tmp_path, schema, activation):
    """No bias is subtracted from the input; batch-top-k fires above its threshold, or (schema 2) takes k of each
    row."""
    state = plain_state()
    if activation == "BatchTopK" and schema > 2:
        state["activation.threshold"] = torch.tensor(0.3)
    params = {} if activation == "Relu" else {"top_k": 5}
    dump(tmp_path / "sae.pt", header(schema, activation, **params), state)
    before = rows() @ state["W_enc"] + state["b_enc"]
    if activation == "Relu":
        codes = before.relu()
    elif "activation.threshold" in state:
        codes = torch.where(before > 0.3, before, 0.0)
    else:
        codes = before * (before >= before.topk(5).values[:, -1:])
    ours = imported("saev", tmp_path)
    assert_same(ours, codes, codes @ state["W_dec"] + state["b_dec"])


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"schema": 1}, {}, "does not tell which wrote it"),
        ({"schema": 6}, {}, "schema 6 is not known"),
        ({"cfg": {"d_model": 99, "activation": {"cls": "Relu", "params": {}}}}, {}, "its d_model is 99"),
        ({"cfg": {"activation": {"cls": "BatchTopK", "params": {"top_k": 5}}}}, {}, "before saev kept its threshold"),
        ({"cfg": {"activation": {"cls": "TopK", "params": {}}}}, {}, "should say k"),
        ({"cfg": {"activation": {"cls": "JumpRelu", "params": {}}}}, {}, "nothing like saev's activation 'JumpRelu'"),
        ({"cfg": {"d_model": D}}, {}, "does not say which activation"),
        ({}, {"W_enc": torch.zeros(3, 3)}, "W_enc is 3 x 3, and there are 40 latents"),
    ],
)
def test_a_saev_checkpoint_that_does_not_tell_is_refused(tmp_path, change, more, message):
    dump(tmp_path / "sae.pt", header(5, "Relu") | change, plain_state(**more))
    with pytest.raises(MedSAEError, match=message):
        imported("saev", tmp_path)


def test_under_schema_1_saev_is_told_where_no_bias_is_there_to_subtract(tmp_path):
    state = plain_state(b_dec=torch.zeros(D))
    dump(tmp_path / "sae.pt", {"schema": 1, "cls": "Relu", "cfg": {"d_vit": D}, "lib": "0.1.0"}, state)
    codes = (rows() @ state["W_enc"] + state["b_enc"]).relu()
    assert_same(imported("saev", tmp_path), codes, codes @ state["W_dec"])


def test_what_is_no_saev_checkpoint_is_said(tmp_path):
    torch.save(plain_state(), tmp_path / "sae.pt")
    with pytest.raises(MedSAEError, match="no checkpoint of saev: those begin with a line of JSON"):
        imported("saev", tmp_path)
    (tmp_path / "sae.pt").write_bytes(dump(tmp_path / "whole.pt", header(5, "Relu"), plain_state()).read_bytes()[:-90])
    with pytest.raises(MedSAEError, match=r"sae\.pt "):
        imported("saev", tmp_path)


# overcomplete


def overcomplete(kind: str, **options: object) -> nn.Module:
    options = {"encoder_module": "linear", **options}
    modules = {"SAE": "base", "TopKSAE": "topk_sae", "BatchTopKSAE": "batchtopk_sae", "JumpSAE": "jump_sae"}
    module = original(f"overcomplete.sae.{modules.get(kind, 'rasae')}", "overcomplete")
    torch.manual_seed(0)
    return scrambled(getattr(module, kind)(D, N, **options))


@torch.no_grad()
def assert_same_as_overcomplete(theirs: nn.Module, path: Path) -> SAE:
    _, codes, output = theirs(rows())
    ours = imported("overcomplete", path)
    assert_same(ours, codes, output)
    return ours


def save_overcomplete(theirs: nn.Module, folder: Path, **config: object) -> Path:
    torch.save(theirs.state_dict(), folder / "sae.pt")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("kind", "config", "architecture"),
    [
        ("SAE", {"sae_type": "sae"}, "standard"),
        ("TopKSAE", {"sae_type": "topk", "top_k": 5}, "topk"),
        ("BatchTopKSAE", {"sae_type": "BatchTopKSAE", "running_threshold": 0.4}, "jumprelu"),
        ("JumpSAE", {}, "jumprelu"),
    ],
)
def test_overcomplete(tmp_path, kind, config, architecture):
    theirs = overcomplete(kind, **({"top_k": 5} if "TopK" in kind else {})).eval()
    if kind == "BatchTopKSAE":
        theirs.running_threshold = torch.tensor(0.4)
    ours = assert_same_as_overcomplete(theirs, save_overcomplete(theirs, tmp_path, **config))
    assert ours.cfg.architecture() == architecture


def test_overcompletes_batch_normalisation_is_folded_into_the_encoder(tmp_path):
    theirs = overcomplete("TopKSAE", top_k=5, encoder_module="mlp_bn_1")
    original("overcomplete.sae.base", "overcomplete")
    theirs.encoder.mlp_blocks = nn.ModuleList()
    theirs.train()
    for k in range(5):
        theirs(rows(128) + k)  # running means and variances
    theirs.eval()
    assert_same_as_overcomplete(theirs, save_overcomplete(theirs, tmp_path, sae_type="topk", top_k=5))


@pytest.mark.parametrize("tied", [True, False])
def test_overcompletes_tieable_encoders(tmp_path, tied):
    theirs = overcomplete("TopKSAE", top_k=5)
    theirs = (theirs.tied(bias=True) if tied else theirs.untied(bias=True, copy_from_dictionary=False)).eval()
    with torch.no_grad():
        theirs.encoder.bias.copy_(drawn(N))
    assert_same_as_overcomplete(theirs, save_overcomplete(theirs, tmp_path, sae_type="topk", top_k=5))


def test_overcompletes_archetypal_dictionary(tmp_path):
    theirs = overcomplete("RATopKSAE", points=drawn(60, D, scale=2.0), top_k=5)
    save_overcomplete(theirs, tmp_path, sae_type="topk", top_k=5)
    with pytest.raises(MedSAEError, match=r"saved within a training step: call \.eval\(\)"):
        imported("overcomplete", tmp_path)
    theirs.eval()
    assert_same_as_overcomplete(theirs, save_overcomplete(theirs, tmp_path, sae_type="ratopk", top_k=5))


def test_overcompletes_dictionary_is_of_unit_rows_or_says_how_it_is_normalised(tmp_path):
    theirs = overcomplete("TopKSAE", top_k=5)  # as a training step leaves it
    save_overcomplete(theirs, tmp_path, sae_type="topk", top_k=5)
    with pytest.raises(MedSAEError, match="rows are not of length 1"):
        imported("overcomplete", tmp_path)
    save_overcomplete(theirs, tmp_path, sae_type="topk", top_k=5, normalization="l2")
    assert_same_as_overcomplete(theirs.eval(), tmp_path)


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        ({}, {}, "have the same keys"),
        ({}, {"sae_type": "topk"}, "should say k"),
        ({}, {"sae_type": "batchtopk"}, "running threshold"),
        ({}, {"sae_type": "mp"}, "nothing like overcomplete's SAE of type 'mp'"),
        ({"encoder_module": "mlp_ln_1"}, {"sae_type": "topk", "top_k": 5}, "LayerNorm"),
        ({"encoder_module": "mlp_ln_3"}, {"sae_type": "topk", "top_k": 5}, "several layers"),
    ],
)
def test_what_overcompletes_keys_do_not_tell_is_asked_for(tmp_path, options, config, message):
    save_overcomplete(overcomplete("TopKSAE", top_k=5, **options).eval(), tmp_path, **config)
    with pytest.raises(MedSAEError, match=message):
        imported("overcomplete", tmp_path)


# ViSAEBench


def visaebench(config: dict, state: dict[str, torch.Tensor]) -> nn.Module:
    return original("visaebench.hub.sae_wrapper", "visaebench").GenericSAE(dict(config), state).eval()


SIMPLE = {
    "encoder.weight": drawn(N, D, seed=1),
    "encoder.bias": drawn(N, seed=2),
    "decoder.weight": drawn(N, D, seed=3),
    "decoder.bias": drawn(D, seed=4),
}
THEIR_KEYS = {
    "encoder.final_block.0.weight": drawn(N, D, seed=1),
    "encoder.final_block.0.bias": drawn(N, seed=2),
    "dictionary._weights": drawn(N, D, seed=3),
    "dictionary.multiplier": torch.tensor(0.3),
}
VISAEBENCH = [
    ({"activation": "topk", "k": 5}, {}),
    ({"sae_type": "batchtopk", "threshold": 0.4}, {}),
    ({"activation": "batchtopk"}, {"_running_threshold": torch.tensor(0.4)}),
    ({"activation": "jumprelu"}, {"jump_thresholds": drawn(N, seed=6).abs()}),
]


@pytest.mark.parametrize("layout", [SIMPLE, THEIR_KEYS], ids=["simple", "overcomplete"])
@pytest.mark.parametrize(("config", "more"), VISAEBENCH)
def test_visaebench(tmp_path, layout, config, more):
    config = {"input_dim": D, "hidden_dim": N, **config}
    codes, output = visaebench(config, layout | more)(rows())
    save_file({k: v.contiguous() for k, v in (layout | more).items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_text("\n".join(f"{key}: {value}" for key, value in config.items()))
    assert_same(imported("visaebench", tmp_path), codes, output)
    torch.save(layout | more, tmp_path / "sae.pt")  # goes before, as in their loader
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_same(imported("visaebench", tmp_path), codes, output)


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        ({}, {}, "should say activation"),
        ({"activation": "topk"}, {}, "should say k"),
        ({"activation": "batchtopk"}, {}, "running threshold"),
        ({"activation": "jumprelu"}, {}, "thresholds .* are not in the file"),
        ({"activation": "jumprelu"}, {"thresholds": torch.zeros(N)}, "their exponentials"),
        ({"activation": "topk", "k": 5, "hidden_dim": 99}, {}, "its hidden_dim is 99"),
    ],
)
def test_what_visaebench_defaults_to_is_not_guessed(tmp_path, config, more, message):
    torch.save(SIMPLE | more, tmp_path / "sae.pt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MedSAEError, match=message):
        imported("visaebench", tmp_path)


def test_weights_that_lie_transposed_are_told_by_their_shape(tmp_path):
    state = {**SIMPLE, "decoder.weight": SIMPLE["decoder.weight"].T.contiguous()}
    torch.save(state, tmp_path / "sae.pt")
    config = {"activation": "topk", "k": 5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="W_dec lies transposed in the file"):
        ours = imported("visaebench", tmp_path)
    codes = torch.relu(rows() @ SIMPLE["encoder.weight"].T + SIMPLE["encoder.bias"])
    codes = codes * (codes >= codes.topk(5).values[:, -1:])
    assert_same(ours, codes, codes @ SIMPLE["decoder.weight"] + SIMPLE["decoder.bias"])
    torch.save(SIMPLE | {"decoder.weight": torch.zeros(D, N + 1)}, tmp_path / "sae.pt")
    with pytest.raises(MedSAEError, match=r"W_dec is 12 x 41, and by the biases should be 40 x 12"):
        imported("visaebench", tmp_path)


# SAIL: pwesp/sail, src/matryoshka_sae.py: relu((x - bias) W^T + b - threshold) through the decoder, + bias; and what
# Lightning writes round the state dict of its `MatryoshkaSAELightning`.


def sail(tied: bool) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    state = {
        "inference_threshold": torch.tensor(0.3),
        "_threshold_sum": torch.tensor(36.0),
        "_threshold_count": torch.tensor(120),
        "bias": drawn(D, seed=1),
        "encoder.weight": drawn(N, D, seed=2),
        "encoder.bias": drawn(N, seed=3),
    } | ({} if tied else {"decoder.weight": drawn(D, N, seed=4)})
    return state, {
        "epoch": 3,
        "global_step": 400,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{key}": value for key, value in state.items()},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"input_dim": D, "dictionary_sizes": [10, N], "tied_weights": tied, "k_values": None},
    }


@pytest.mark.parametrize("tied", [True, False])
def test_sail(tmp_path, tied):
    state, checkpoint = sail(tied)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    codes = torch.relu((rows() - state["bias"]) @ state["encoder.weight"].T + state["encoder.bias"] - 0.3)
    decoder = state["encoder.weight"].T if tied else state["decoder.weight"]
    ours = imported("sail", tmp_path)
    assert_same(ours, codes, codes @ decoder.T + state["bias"])
    assert ours.cfg.metadata.group_sizes == [10, 30]
    checkpoint["state_dict"]["model._threshold_count"] = torch.tensor(0)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(MedSAEError, match="before its inference threshold was learnt"):
        imported("sail", tmp_path)


# ViT-Prisma: soniajoseph/ViT-Prisma, src/vit_prisma/sae/{sae,train_sae,config}.py and
# Prisma-Multimodal/ViT-Prisma, src/vit_prisma/transcoders/transcoder.py (its SAEs are not on PyPI).

PRISMA = {"architecture": "standard", "activation_fn_str": "relu", "normalize_activations": None, "d_in": D}


def prisma_config(monkeypatch, module: str, **values: object) -> object:
    """An instance of a config class of vit_prisma's, as a module of this name would hold it."""
    cls = dataclasses.make_dataclass("VisionModelSAERunnerConfig", [])
    cls.__module__ = cls.__qualname__ = module
    cls.__qualname__ = "VisionModelSAERunnerConfig"
    made = types.ModuleType(module)
    made.VisionModelSAERunnerConfig = cls
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:depth]), made)
    config = cls()
    vars(config).update(values)
    return config


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("where", ["vit_prisma.sae.config", "vit_prisma.transcoders.config"])
def test_prismas_transcoder_whose_pickle_names_its_config(tmp_path, monkeypatch, where, skip):
    state = plain_state(b_dec_out=drawn(D, seed=8), **({"W_skip": drawn(D, D, seed=9)} if skip else {}))
    values = {**PRISMA, "is_transcoder": True, "d_out": D, "hook_point_layer": 9, "layer_subtype": "hook_mlp_in"}
    values |= {"out_hook_point_layer": 9, "layer_out_subtype": "hook_mlp_out", "dtype": torch.float32}
    with monkeypatch.context() as patch:
        cfg = prisma_config(patch, where, **values, device=torch.device("cpu"))
        torch.save({"cfg": cfg, "state_dict": state}, tmp_path / "n_images_2600058.pt")
    assert "vit_prisma" not in sys.modules
    ours = imported("vit_prisma", tmp_path)
    codes = torch.relu((rows() - state["b_dec"]) @ state["W_enc"] + state["b_enc"])
    output = codes @ state["W_dec"] + state["b_dec_out"]
    if skip:
        output = output + rows() @ (torch.eye(D) + state["W_skip"].mT)
    assert_same(ours, codes, output)
    assert ours.cfg.metadata.hook_name_out == "blocks.9.hook_mlp_out"


def test_prismas_checkpoints_are_found_by_their_pattern_where_there_is_one(tmp_path):
    state = plain_state()
    torch.save({"cfg": PRISMA, "state_dict": state}, tmp_path / "n_images_100.pt")
    (tmp_path / "config.json").write_text(json.dumps(PRISMA))
    codes = torch.relu((rows() - state["b_dec"]) @ state["W_enc"] + state["b_enc"])
    assert_same(imported("vit_prisma", tmp_path), codes, codes @ state["W_dec"] + state["b_dec"])
    torch.save(state, tmp_path / "n_images_200.pt")
    with pytest.raises(MedSAEError, match=r"name one of n_images_100\.pt, n_images_200\.pt"):
        imported("vit_prisma", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_fn_str": "topk"}, "transcoder with activation"),
        ({"normalize_activations": "layer_norm"}, "scales its"),
    ],
)
def test_a_transcoder_that_sae_lens_has_nothing_like_is_refused(tmp_path, change, message):
    config = {**PRISMA, "is_transcoder": True, **change}
    torch.save({"cfg": config, "state_dict": plain_state(b_dec_out=drawn(D))}, tmp_path / "weights.pt")
    with pytest.raises(MedSAEError, match=message):
        imported("vit_prisma", tmp_path)


@pytest.mark.parametrize("name", ["os.system", "builtins.exec", "vit_prisma.sae.sae.SparseAutoencoder"])
def test_a_pickle_that_names_something_else_is_not_run(tmp_path, name):
    """The stream is written by hand: GLOBAL, an argument, REDUCE."""
    module, _, attribute = name.rpartition(".")
    torch.save({"cfg": {}, "state_dict": {}}, tmp_path / "weights.pt")
    with zipfile.ZipFile(tmp_path / "weights.pt") as archive:
        parts = {member: archive.read(member) for member in archive.namelist()}
    mark = str(tmp_path / "ran").encode()
    stream = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"X" + len(b"touch " + mark).to_bytes(4, "little")
    stream += b"touch " + mark + b"\x85R."
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        for member, content in parts.items():
            archive.writestr(member, stream if member.endswith("data.pkl") else content)
    with pytest.raises(MedSAEError, match="holds a Python object"):
        imported("vit_prisma", tmp_path)
    assert not (tmp_path / "ran").exists()


# A dict that wraps the weights, the config and what the inputs are centred by.


@pytest.mark.parametrize("std", [False, True])
@pytest.mark.parametrize("kind", ["standard", "gated", "topk"])
def test_a_mean_beside_the_weights_is_folded_in(tmp_path, kind, std):
    state = plain_state()
    if kind == "gated":
        del state["b_enc"]
        state |= {"r_mag": drawn(N, seed=6), "b_gate": drawn(N, seed=7), "b_mag": drawn(N, seed=8)}
    cfg = {**PRISMA, "architecture": "gated" if kind == "gated" else "standard"}
    if kind == "topk":
        cfg |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}}
    plain = tmp_path / "plain.pt"
    torch.save({"state_dict": state, "cfg": cfg}, plain)
    mean, scale = drawn(D, seed=9, scale=3.0), drawn(D, seed=10).abs() + 0.5
    wrapped = {"state_dict": state, "cfg": cfg, "act_mean": mean} | ({"act_std": scale} if std else {})
    torch.save(wrapped, tmp_path / "wrapped.pt")
    before, after = imported("vit_prisma", plain), imported("vit_prisma", tmp_path / "wrapped.pt")
    scale = scale if std else torch.ones(D)
    x = rows()
    with torch.no_grad():
        torch.testing.assert_close(after.encode(x * scale + mean), before.encode(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(after(x * scale + mean), before(x) * scale + mean, rtol=0, atol=1e-5)
    assert after.cfg.metadata.folded["act_mean"] == pytest.approx(float(mean.norm()), abs=1e-5)


def test_a_normalisation_that_is_not_known_is_refused(tmp_path):
    torch.save({"state_dict": plain_state(), "cfg": PRISMA, "norm_factor": 3.0}, tmp_path / "weights.pt")
    with pytest.raises(MedSAEError, match="holds norm_factor, by which its inputs may be normalised"):
        imported("vit_prisma", tmp_path)
    config = PRISMA | {"normalize_activations": "layer_norm"}
    torch.save({"state_dict": plain_state(), "cfg": config, "act_mean": drawn(D)}, tmp_path / "weights.pt")
    with pytest.raises(MedSAEError, match=r"normalises each row \(layer_norm\)"):
        imported("vit_prisma", tmp_path)


# Discover-then-Name's SAEs, of the sparse_autoencoder library (autoencoder/model.py; in its older versions
# components/linear_encoder.py has `_weight`, `_bias`): relu((x - b) W^T + b_enc) W_dec^T + b.


@pytest.mark.parametrize("dot", [".", "._"])
@pytest.mark.parametrize("components", [None, 1])
def test_discover_then_names_keys(tmp_path, dot, components):
    bias, weight, b_enc, decoder = drawn(D, seed=1), drawn(N, D, seed=2), drawn(N, seed=3), drawn(D, N, seed=4)
    state = {
        "tied_bias": bias,
        "pre_encoder_bias._bias_reference": bias,
        f"encoder{dot}weight": weight,
        f"encoder{dot}bias": b_enc,
        f"decoder{dot}weight": decoder,
        "post_decoder_bias._bias_reference": bias,
    }
    torch.save({k: v if components is None else v[None] for k, v in state.items()}, tmp_path / "ae.pt")
    codes = torch.relu((rows() - bias) @ weight.T + b_enc)
    assert_same(imported("dictionary_learning", tmp_path), codes, codes @ decoder.T + bias)
    torch.save({k: torch.stack([v, v]) for k, v in state.items()}, tmp_path / "ae.pt")
    with pytest.raises(MedSAEError, match="SAEs of 2 components"):
        imported("dictionary_learning", tmp_path)
