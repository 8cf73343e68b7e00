"""SAEs and transcoders of ViT-Prisma (Joseph et al., arXiv 2504.19475), as its `SparseAutoencoder.save_model` writes
them.

A folder holds `weights.pt` (as published) or `n_images_N.pt` (as its trainer saves), either `{"cfg": ...,
"state_dict": ...}` or a state dict alone, and `config.json`, the fields of its `VisionModelSAERunnerConfig`. The
pickled cfg is read as a bag of plain values: none of its code runs.

Its `Transcoder`: x -> f((x - b_dec) W_enc + b_enc) W_dec + b_dec_out, and with `W_skip` also + x (I + W_skip^T).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from medsae_plugin.errors import MedSAEError
from medsae_plugin.release.foreign.format import Format
from medsae_plugin.release.foreign.weights import State, check_width, oriented, read_saved, state_of


def _read(path: Path) -> dict[str, Any]:
    return read_saved(path, lambda name: name.startswith("vit_prisma.") and name.endswith("Config"))


def _convert(saved: dict[str, Any], config: dict[str, Any]) -> tuple[dict[str, Any], State]:
    saved = state_of(saved)
    if not config:
        raise MedSAEError("a ViT-Prisma SAE needs its config.json beside the weights, or its cfg in their file")
    cfg: dict[str, Any] = {
        # The default of VisionModelSAERunnerConfig; null is no normalisation.
        "normalize_activations": config.get("normalize_activations", "layer_norm") or "none",
    }
    if config.get("is_transcoder") or "b_dec_out" in saved:
        return _transcoder(saved, config, cfg)
    architecture, activation = config.get("architecture", "standard"), config.get("activation_fn_str", "relu")
    state = {key: saved[key] for key in ("W_enc", "W_dec", "b_dec")}
    if architecture == "gated":
        state |= {key: saved[key] for key in ("r_mag", "b_gate", "b_mag")}
    else:
        state["b_enc"] = saved["b_enc"]
    d_in, d_sae, state = oriented(state)
    check_width(config, {"d_in": d_in})
    cfg |= {"d_in": d_in, "d_sae": d_sae, "apply_b_dec_to_input": True}
    if architecture == "gated" and activation == "relu":
        cfg["architecture"] = "gated"
    elif architecture == "standard" and activation == "relu":
        cfg["architecture"] = "standard"
    elif architecture == "standard" and activation == "topk":
        kwargs = config.get("activation_fn_kwargs") or {}
        if not 0 < (k := int(kwargs.get("k", 0))) <= d_sae:
            raise MedSAEError(
                f"its config should say activation_fn_kwargs.k, 1 to {d_sae}, the number of active latents"
            )
        cfg |= {"architecture": "topk", "k": k}
    else:
        raise MedSAEError(f"SAE-Lens has nothing like ViT-Prisma's {architecture} SAE with activation {activation!r}")
    return cfg | {"metadata": _metadata(config)}, state


def _transcoder(saved: State, config: dict[str, Any], cfg: dict[str, Any]) -> tuple[dict[str, Any], State]:
    if (activation := config.get("activation_fn_str", "relu")) != "relu":
        raise MedSAEError(f"SAE-Lens has nothing like ViT-Prisma's transcoder with activation {activation!r}")
    if (normalised := cfg["normalize_activations"]) != "none":
        raise MedSAEError(
            f"this is a ViT-Prisma transcoder that normalises rows ({normalised}) and scales its output back by the "
            "input's norm, which SAE-Lens's transcoders do not"
        )
    state = {"W_enc": saved["W_enc"], "W_dec": saved["W_dec"], "b_enc": saved["b_enc"], "b_dec": saved["b_dec_out"]}
    d_in, d_sae, state = oriented(state)
    d_out = len(state["b_dec"])
    check_width(config, {"d_in": d_in, "d_out": d_out})
    state["b_enc"] = state["b_enc"] - saved["b_dec"] @ state["W_enc"]
    cfg |= {"d_in": d_in, "d_sae": d_sae, "d_out": d_out, "architecture": "transcoder", "apply_b_dec_to_input": False}
    if "W_skip" in saved:
        cfg["architecture"] = "skip_transcoder"
        state["W_skip"] = torch.eye(d_in) + saved["W_skip"]
    metadata = _metadata(config)
    if "out_hook_point_layer" in config and "layer_out_subtype" in config:
        metadata["hook_name_out"] = f"blocks.{config['out_hook_point_layer']}.{config['layer_out_subtype']}"
    return cfg | {"metadata": metadata}, state


def _metadata(config: dict[str, Any]) -> dict[str, Any]:
    layer = config.get("hook_point_layer")
    layer = layer[0] if isinstance(layer, list) and len(layer) == 1 else layer
    metadata: dict[str, Any] = {"imported_from": "vit_prisma", "model_name": config.get("model_name")}
    if layer is not None and "layer_subtype" in config:
        metadata["hook_name"] = f"blocks.{layer}.{config['layer_subtype']}"
    if config.get("cls_token_only"):
        metadata["positions"] = "cls"
    return metadata


FORMAT = Format(
    "vit_prisma",
    weights="weights.pt",
    config="config.json",
    convert=_convert,
    marks=("activation_fn_str", "hook_point_layer", "expansion_factor"),
    read=_read,
    others=("n_images_*.pt",),
)
vit_prisma_disk_loader = FORMAT.disk_loader
vit_prisma_huggingface_loader = FORMAT.huggingface_loader
