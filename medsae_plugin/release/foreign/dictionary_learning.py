"""Checkpoints of `dictionary_learning` (Marks, Karvonen, Mueller), which MedSAE's reference and sae-for-vlm use.

A folder holds `ae.pt`, a state dict, and `config.json`, what its trainer was given. The state dict's keys tell the
class, but for top-k and batch-top-k, which only the config tells apart:

- `AutoEncoder` (standard, and the trainer of the April update): `bias`, `encoder.*`, `decoder.weight`
- `AutoEncoderNew` (the April update's own class): `encoder.*`, `decoder.*`
- `AutoEncoderTopK` and `BatchTopKSAE`: `b_dec`, `encoder.*`, `decoder.weight`, `k`, `threshold`; files from before the
  end of 2024 lack the last two, and k stands in the config alone
- `MatryoshkaBatchTopKSAE`: `W_enc`, `b_enc`, `W_dec`, `b_dec`, `k`, `threshold`, `group_sizes`
- `JumpReluAutoEncoder`: `W_enc`, `b_enc`, `W_dec`, `b_dec`, `threshold`
- `GatedAutoEncoder`: `decoder_bias`, `encoder.weight`, `decoder.weight`, `r_mag`, `gate_bias`, `mag_bias`
- the layout of the `sparse_autoencoder` library, which Discover-then-Name's SAEs have and MedSAE's fork turns into an
  `AutoEncoder`: `tied_bias`, `pre_encoder_bias.*`, `encoder.weight`, `encoder.bias`, `decoder.weight`,
  `post_decoder_bias.*`, with an underscore before weight and bias in older files, and a first axis of components

The weights are taken as they were saved. `AutoEncoder.from_pretrained` scales the decoder's rows to length 1 unless it
is told not to; SAE-Lens's `fold_W_dec_norm=True` does the same.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from medsae_plugin.errors import MedSAEError
from medsae_plugin.release.foreign.format import Format
from medsae_plugin.release.foreign.weights import State, check_k, check_width, oriented, state_of


def _convert(saved: dict[str, Any], config: dict[str, Any]) -> tuple[dict[str, Any], State]:
    saved = _of_one_component(state_of(saved))
    trainer = config.get("trainer") or config  # a config that is wrapped with the weights may be the trainer's alone
    kind = _class_of(saved, str(trainer.get("dict_class", "")))
    if "W_enc" in saved:
        state = {key: saved[key] for key in ("W_enc", "b_enc", "W_dec", "b_dec")}
    else:
        state = {"W_enc": saved["encoder.weight"].T, "W_dec": saved["decoder.weight"].T}
        state["b_dec"] = saved[_B_DEC[kind]]
        if kind != "GatedAutoEncoder":
            state["b_enc"] = saved["encoder.bias"]
    if kind == "GatedAutoEncoder":
        state |= {"r_mag": saved["r_mag"], "b_gate": saved["gate_bias"], "b_mag": saved["mag_bias"]}
    d_in, d_sae, state = oriented(state)
    check_width(trainer, {"activation_dim": d_in, "dict_size": d_sae})
    cfg: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "architecture": "standard", "apply_b_dec_to_input": True}
    metadata: dict[str, Any] = {"imported_from": "dictionary_learning", "dict_class": kind}
    if kind == "AutoEncoderNew":
        cfg["apply_b_dec_to_input"] = False
    elif kind == "GatedAutoEncoder":
        cfg["architecture"] = "gated"
    elif kind == "AutoEncoderTopK":
        cfg |= {"architecture": "topk", "k": _k(saved, trainer, d_sae)}
    elif kind == "JumpReluAutoEncoder":
        cfg |= {"architecture": "jumprelu", "apply_b_dec_to_input": False}
        state["threshold"] = saved["threshold"]
    elif kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        cfg["architecture"] = "jumprelu"
        if "threshold" not in saved:
            raise MedSAEError(
                f"this {kind} is from before the end of 2024, when the library began to save the threshold that its "
                "latents fire above; which of them do is not to be known from the file: train it anew"
            )
        state["threshold"] = _learnt(saved["threshold"]).expand(d_sae)
        metadata["k"] = _k(saved, trainer, d_sae)
        if "group_sizes" in saved:
            metadata["group_sizes"] = saved["group_sizes"].tolist()
    return cfg | {"metadata": metadata}, state


_B_DEC = {
    "AutoEncoder": "bias",
    "AutoEncoderNew": "decoder.bias",
    "AutoEncoderTopK": "b_dec",
    "BatchTopKSAE": "b_dec",
    "GatedAutoEncoder": "decoder_bias",
}


def _of_one_component(saved: State) -> State:
    """Keys of the `sparse_autoencoder` library as those of the `AutoEncoder` that it is; others as they are."""
    if "tied_bias" not in saved:
        return saved
    plain = {key.replace("._", "."): value for key, value in saved.items()}
    biases = [plain[key] for key in _TIED if key in plain]
    if any(not torch.equal(bias, plain["tied_bias"]) for bias in biases):
        raise MedSAEError("the biases before the encoder and after the decoder are another than tied_bias")
    wanted = {
        "bias": plain["tied_bias"],
        **{key: plain[key] for key in ("encoder.weight", "encoder.bias", "decoder.weight")},
    }
    if plain["tied_bias"].ndim == 1:
        return wanted
    if (components := len(plain["tied_bias"])) != 1:
        raise MedSAEError(f"it holds the SAEs of {components} components of a model; save one of them alone")
    return {key: value[0] for key, value in wanted.items()}


_TIED = ("pre_encoder_bias.bias_reference", "post_decoder_bias.bias_reference")


def _class_of(saved: State, named: str) -> str:
    """The class whose state dict this is; `named` is what the config says, for the pair that keys do not tell apart."""
    if "group_sizes" in saved:
        return "MatryoshkaBatchTopKSAE"
    if "gate_bias" in saved:
        return "GatedAutoEncoder"
    if "W_enc" in saved:
        return "JumpReluAutoEncoder"
    if "bias" in saved:
        return "AutoEncoder"
    if "decoder.bias" in saved:
        return "AutoEncoderNew"
    if not {"encoder.weight", "encoder.bias", "decoder.weight", "b_dec"} <= saved.keys():
        raise MedSAEError(f"these are the keys of no dictionary_learning class: {', '.join(sorted(saved)[:12])}")
    if named not in ("AutoEncoderTopK", "BatchTopKSAE"):
        raise MedSAEError(
            "top-k and batch-top-k checkpoints have the same keys: put the config.json that was saved with this one "
            "beside it, whose trainer.dict_class tells which it is"
            + (f" (the one that is there says {named})" if named else "")
        )
    return named


def _k(saved: State, trainer: dict[str, Any], d_sae: int) -> int:
    """From the weights or the config, which must not disagree."""
    found = {int(k) for k in (saved.get("k"), trainer.get("k")) if k is not None}
    if not found:
        raise MedSAEError("neither the weights nor trainer.k of the config say k, the number of active latents")
    if len(found) > 1:
        raise MedSAEError(f"k is {int(saved['k'])} in the weights and {trainer['k']} in the config, which is another's")
    return check_k(found.pop(), d_sae, "the weights or the config")


def _learnt(threshold: Tensor) -> Tensor:
    if float(threshold) < 0:
        warnings.warn(
            "the checkpoint's threshold was never learnt (training stopped before its threshold_start_step): every "
            "positive latent is active, as in the original",
            stacklevel=2,
        )
    return threshold


FORMAT = Format("dictionary_learning", weights="ae.pt", config="config.json", convert=_convert, marks=("trainer",))
dictionary_learning_disk_loader = FORMAT.disk_loader
dictionary_learning_huggingface_loader = FORMAT.huggingface_loader
