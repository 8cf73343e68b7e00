"""SAEs of overcomplete (Fel et al., arXiv 2502.12892) and of ViSAEBench.

overcomplete has no format of its own: a state dict of its classes, whose keys do not tell them apart, so a config
beside it has to say `sae_type` (`sae`, `topk`, `batchtopk`, `jump`) and `top_k`, or `running_threshold`, which its
batch-top-k keeps outside the state dict. `thresholds` of a JumpSAE are logarithms.

- encoder: `encoder.final_block.0.*`, perhaps followed by the batch normalisation `encoder.final_block.1.*`, or
  `encoder.weight`, `encoder.bias`, or the dictionary's own transpose, `encoder.tied_to.*`
- dictionary: `dictionary._weights`, or `dictionary.C`, `W` and `Relax` of a relaxed archetypal one; times
  exp(`multiplier`)

ViSAEBench publishes `sae.pt` or `model.safetensors` with `config.json`, in overcomplete's keys or in `encoder.weight`,
`encoder.bias`, `decoder.weight` (latents x dimensions) and perhaps `decoder.bias`; `activation` and `k` or `threshold`
are in the config, or `_running_threshold`, or `jump_thresholds` beside the weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medsae_plugin.errors import MedSAEError
from medsae_plugin.release.foreign.format import Format
from medsae_plugin.release.foreign.weights import State, check_k, check_width, oriented, state_of

_MARKS = ("sae_type", "activation", "expansion_factor", "top_k")
_UNIT = 1e-4


def _convert(saved: dict[str, Any], config: dict[str, Any]) -> tuple[dict[str, Any], State]:
    saved = state_of(saved)
    dictionary = _dictionary(saved, config)
    state = _encoder(saved, dictionary) | {"W_dec": dictionary}
    kind = str(config.get("sae_type", config.get("architecture", ""))).lower().removeprefix("ra").removesuffix("sae")
    if "Q" in saved:
        raise MedSAEError("SAE-Lens has nothing like overcomplete's quantised SAE")
    if "thresholds" in saved:
        kind = "jump"
        state["threshold"] = saved["thresholds"].exp()
    elif kind == "" and "sae_type" not in config and "architecture" not in config:
        raise MedSAEError(
            "overcomplete's SAE, TopKSAE and BatchTopKSAE have the same keys: put a config.json beside it that says "
            "sae_type (sae, topk, batchtopk) and top_k or running_threshold"
        )
    return _finished(state, kind, config, saved, "overcomplete")


def _convert_visaebench(saved: dict[str, Any], config: dict[str, Any]) -> tuple[dict[str, Any], State]:
    saved = state_of(saved)
    kind = str(config.get("activation", config.get("sae_type", config.get("architecture", "")))).lower()
    if not kind:
        raise MedSAEError("its config should say activation: topk, batchtopk or jumprelu")
    if "encoder.final_block.0.weight" in saved:
        if extra := [key for key in saved if key.startswith("encoder.") and "final_block.0" not in key]:
            raise MedSAEError(f"ViSAEBench leaves {', '.join(extra[:6])} out; read it as format overcomplete")
        decoder = saved["dictionary._weights"]
        state = _encoder(saved, decoder) | {
            "W_dec": decoder * saved.get("dictionary.multiplier", torch.tensor(0.0)).exp()
        }
    else:
        bias, weight = saved["encoder.bias"], saved["encoder.weight"]
        state = {"W_enc": weight.T, "b_enc": bias, "W_dec": saved["decoder.weight"]}
        if "decoder.bias" in saved:
            state["b_dec"] = saved["decoder.bias"]
    if "thresholds" in saved:
        raise MedSAEError(
            "ViSAEBench takes `thresholds` as they are and overcomplete, whose key it is, their exponentials: read it "
            "as format overcomplete, or name them jump_thresholds"
        )
    if "jump_thresholds" in saved:
        state["threshold"] = saved["jump_thresholds"]
    return _finished(state, kind, config, saved, "visaebench")


def _finished(
    state: State, kind: str, config: dict[str, Any], saved: State, library: str
) -> tuple[dict[str, Any], State]:
    """SAE-Lens's config and state: no bias is subtracted from the input."""
    if "b_dec" not in state:
        d_sae = len(state["b_enc"])
        state["b_dec"] = torch.zeros(next((n for n in state["W_dec"].shape if n != d_sae), d_sae))
    d_in, d_sae, state = oriented(state)
    check_width(config, {"input_dim": d_in, "hidden_dim": d_sae, "nb_concepts": d_sae})
    cfg: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "apply_b_dec_to_input": False}
    metadata: dict[str, Any] = {"imported_from": library}
    k = config.get("top_k", config.get("k"))
    if kind in ("", "relu", "standard", "vanilla"):
        cfg["architecture"] = "standard"
    elif kind == "topk":
        cfg |= {"architecture": "topk", "k": check_k(k, d_sae, "its config")}
    elif kind == "batchtopk":
        cfg["architecture"], metadata["k"] = "jumprelu", k
        state["threshold"] = _below(_running_threshold(saved, config)).expand(d_sae)
    elif kind in ("jump", "jumprelu"):
        cfg["architecture"] = "jumprelu"
        if "threshold" not in state:
            raise MedSAEError("the thresholds that its latents fire above are not in the file")
    else:
        raise MedSAEError(f"SAE-Lens has nothing like {library}'s SAE of type {kind!r}")
    return cfg | {"metadata": metadata}, state


def _running_threshold(saved: State, config: dict[str, Any]) -> Tensor:
    for value in (config.get("threshold"), config.get("running_threshold"), saved.get("_running_threshold")):
        if value is not None:
            return torch.as_tensor(value, dtype=torch.float32)
    raise MedSAEError("neither its config nor the weights hold the running threshold of this batch-top-k SAE")


def _below(threshold: Tensor) -> Tensor:
    """The next smaller number: these libraries fire at the threshold too, SAE-Lens's JumpReLU above it alone."""
    return torch.nextafter(threshold, torch.tensor(-torch.inf))


def _encoder(saved: State, dictionary: Tensor) -> State:
    """W_enc and b_enc; a batch normalisation, which is affine once trained, is folded into them.

    Raises:
        MedSAEError: an encoder that is more than one linear layer.
    """
    if any(
        key.startswith(("encoder.mlp_blocks.", "encoder.attention_blocks.", "encoder.resnet_blocks.")) for key in saved
    ):
        raise MedSAEError("its encoder is a network of several layers; SAE-Lens's encoders are one linear layer")
    if any(key.startswith("encoder.tied_to.") for key in saved):
        weight, bias = dictionary, saved.get("encoder.bias")
    elif "encoder.weight" in saved:
        weight, bias = saved["encoder.weight"], saved.get("encoder.bias")
    elif "encoder.final_block.0.weight" in saved:
        weight, bias = saved["encoder.final_block.0.weight"], saved["encoder.final_block.0.bias"]
    else:
        raise MedSAEError(f"these are the keys of no encoder of overcomplete: {', '.join(sorted(saved)[:12])}")
    bias = torch.zeros(len(weight)) if bias is None else bias
    norm = {key.rpartition(".")[2]: value for key, value in saved.items() if key.startswith("encoder.final_block.1.")}
    if "running_var" in norm:
        gain = norm["weight"].double() / (norm["running_var"].double() + torch.nn.BatchNorm1d(1).eps).sqrt()
        weight = weight.double() * gain[:, None]
        bias = (bias.double() - norm["running_mean"].double()) * gain + norm["bias"].double()
    elif norm:
        raise MedSAEError("its encoder normalises each row's latents (LayerNorm), which SAE-Lens's do not")
    return {"W_enc": weight.T, "b_enc": bias}


def _dictionary(saved: State, config: dict[str, Any]) -> Tensor:
    """The dictionary as the library fuses it in `.eval()`.

    Raises:
        MedSAEError: one that was saved before that, so that its constraint does not hold, or is not known.
    """
    if "dictionary.C" in saved:
        weights = saved["dictionary.W"]
        if bool((weights < 0).any()) or not torch.allclose(weights.sum(1), torch.ones(len(weights)), atol=_UNIT):
            raise MedSAEError("this archetypal dictionary was saved within a training step: call .eval(), then save it")
        dictionary = weights @ saved["dictionary.C"] + saved["dictionary.Relax"]
    else:
        dictionary = saved["dictionary._weights"]
        normalisation = config.get("normalization")
        unit = torch.allclose(dictionary.norm(dim=1), torch.ones(len(dictionary)), atol=_UNIT)
        if normalisation == "l2" and not unit:
            dictionary = dictionary / (dictionary.norm(dim=1, keepdim=True) + 1e-8)
        elif normalisation != "identity" and not unit:
            raise MedSAEError(
                "the dictionary's rows are not of length 1, and how the library normalises them is not in the file: "
                "call .eval() before saving it, or say normalization (l2, identity) in its config.json"
            )
    return dictionary * saved.get("dictionary.multiplier", torch.tensor(0.0)).exp()


FORMAT = Format(
    "overcomplete",
    weights="sae.pt",
    config="config.json",
    convert=_convert,
    marks=_MARKS,
    others=("*.pt", "*.safetensors"),
)
VISAEBENCH = Format(
    "visaebench",
    weights="sae.pt",
    config="config.json",
    convert=_convert_visaebench,
    marks=_MARKS,
    others=("model.safetensors", "model.pt"),
)
