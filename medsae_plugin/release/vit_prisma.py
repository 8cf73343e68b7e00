"""SAEs of ViT-Prisma (Joseph et al., arXiv 2504.19475), as its `SparseAutoencoder.save_model` writes them.

A folder holds `weights.pt`, either `{"cfg": ..., "state_dict": ...}` or a state dict alone, and `config.json`, the
fields of its `VisionModelSAERunnerConfig`. The pickled cfg is read as a bag of plain values: none of its code runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medsae_plugin.errors import MedSAEError
from medsae_plugin.release.converters import Format, State, check_width, read_saved, state_of


class _Bag:
    """Stands for ViT-Prisma's config classes while their values are read."""


_CLASSES = ("vit_prisma.sae.config.VisionModelSAERunnerConfig", "vit_prisma.configs.HookedViTConfig.HookedViTConfig")


def _read(path: Path) -> dict[str, Any]:
    return read_saved(path, [(_Bag, name) for name in _CLASSES])


def _convert(saved: dict[str, Any], config: dict[str, Any]) -> tuple[dict[str, Any], State]:
    if "state_dict" in saved:
        within = saved.get("cfg") or {}
        config = config or (within if isinstance(within, dict) else vars(within))
        saved = saved["state_dict"]
    saved = state_of(saved)
    if not config:
        raise MedSAEError("a ViT-Prisma SAE needs its config.json beside the weights, or its cfg in their file")
    if config.get("is_transcoder"):
        raise MedSAEError("this is a ViT-Prisma transcoder, not an SAE")
    state = {key: saved[key] for key in ("W_enc", "W_dec", "b_dec")}
    d_in, d_sae = state["W_enc"].shape
    check_width(config, {"d_in": d_in})
    architecture, activation = config.get("architecture", "standard"), config.get("activation_fn_str", "relu")
    cfg: dict[str, Any] = {
        "d_in": d_in,
        "d_sae": d_sae,
        "apply_b_dec_to_input": True,
        # The default of VisionModelSAERunnerConfig; null is no normalisation.
        "normalize_activations": config.get("normalize_activations", "layer_norm") or "none",
    }
    if architecture == "gated" and activation == "relu":
        cfg["architecture"] = "gated"
        state |= {key: saved[key] for key in ("r_mag", "b_gate", "b_mag")}
    elif architecture == "standard" and activation == "relu":
        cfg["architecture"] = "standard"
        state["b_enc"] = saved["b_enc"]
    elif architecture == "standard" and activation == "topk":
        kwargs = config.get("activation_fn_kwargs") or {}
        if not 0 < (k := int(kwargs.get("k", 0))) <= d_sae:
            raise MedSAEError(
                f"its config should say activation_fn_kwargs.k, 1 to {d_sae}, the number of active latents"
            )
        cfg |= {"architecture": "topk", "k": k}
        state["b_enc"] = saved["b_enc"]
    else:
        raise MedSAEError(f"SAE-Lens has nothing like ViT-Prisma's {architecture} SAE with activation {activation!r}")
    return cfg | {"metadata": _metadata(config)}, state


def _metadata(config: dict[str, Any]) -> dict[str, Any]:
    layer = config.get("hook_point_layer")
    layer = layer[0] if isinstance(layer, list) and len(layer) == 1 else layer
    metadata: dict[str, Any] = {"imported_from": "vit_prisma", "model_name": config.get("model_name")}
    if layer is not None and "layer_subtype" in config:
        metadata["hook_name"] = f"blocks.{layer}.{config['layer_subtype']}"
    if config.get("cls_token_only"):
        metadata["positions"] = "cls"
    return metadata


_MARKS = ("activation_fn_str", "hook_point_layer", "expansion_factor")
FORMAT = Format("vit_prisma", weights="weights.pt", config="config.json", convert=_convert, marks=_MARKS, read=_read)
vit_prisma_disk_loader = FORMAT.disk_loader
vit_prisma_huggingface_loader = FORMAT.huggingface_loader
