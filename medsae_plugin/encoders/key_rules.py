"""How the keys of each layout's checkpoints become those of the package's modules.

A rule takes a checkpoint's state dict and the family's name, and gives state dicts: `vision`, and where the layout has
them `text` and `logit_scale`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from medsae_plugin.encoders.checkpoints import listed
from medsae_plugin.errors import MedSAEError

Tensors = Mapping[str, Tensor]
Towers = dict[str, dict[str, Tensor]]

# Keys of the official MedCLIP checkpoints (transformers 4.24, torchvision's ResNet) under today's names.
_RENAMED: dict[str, tuple[tuple[str, str], ...]] = {
    "swin": (
        (r"\.attention\.self\.(query|key|value)\.", r".attention.\1."),
        (r"\.attention\.query\.", ".attention.q_proj."),
        (r"\.attention\.key\.", ".attention.k_proj."),
        (r"\.attention\.value\.", ".attention.v_proj."),
        (
            r"\.attention\.self\.relative_position_bias_table$",
            ".attention.relative_position_bias.relative_position_bias_table",
        ),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
    ),
    "resnet": (
        (r"^model\.fc\.", "projection_head."),
        (r"^model\.conv1\.", "model.embedder.embedder.convolution."),
        (r"^model\.bn1\.", "model.embedder.embedder.normalization."),
        (r"\.downsample\.0\.", ".shortcut.convolution."),
        (r"\.downsample\.1\.", ".shortcut.normalization."),
        *((rf"(layer\d\.\d+)\.conv{k}\.", rf"\1.layer.{k - 1}.convolution.") for k in (1, 2, 3)),
        *((rf"(layer\d\.\d+)\.bn{k}\.", rf"\1.layer.{k - 1}.normalization.") for k in (1, 2, 3)),
        *((rf"^model\.layer{k}\.", f"model.encoder.stages.{k - 1}.layers.") for k in (1, 2, 3, 4)),
    ),
}

# Buffers that transformers counts up itself and keeps out of checkpoints today.
_DROPPED = re.compile(r"(attention\.self\.relative_position_index|embeddings\.position_ids)$")

# Keys of open_clip checkpoints of a timm ViT and a transformers BERT.
_OPEN_CLIP_VISION = (
    (r"^visual\.head\.proj\.", "projection_head."),
    (r"^visual\.trunk\.(cls_token)$", r"model.embeddings.\1"),
    (r"^visual\.trunk\.pos_embed$", "model.embeddings.position_embeddings"),
    (r"^visual\.trunk\.patch_embed\.proj\.", "model.embeddings.patch_embeddings.projection."),
    (r"^visual\.trunk\.norm\.", "model.layernorm."),
    (r"^visual\.trunk\.blocks\.", "model.layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
)
_OPEN_CLIP_TEXT = ((r"^text\.transformer\.", "model."), (r"^text\.proj\.", "projection_head."))
# A buffer that transformers counts up itself and keeps out of checkpoints today.
_OPEN_CLIP_DROPPED = re.compile(r"\.embeddings\.position_ids$")

# `model.` and `vision_model.` come and go with the version of transformers that saved the checkpoint.
GEMMA3_KEYS = re.compile(r"(?:model\.)?(vision_tower|multi_modal_projector)\.(?:vision_model\.)?(.+)")


def medclip_towers(state: Tensors, family: str) -> Towers:
    """An official MedCLIP checkpoint of this family as `saved_towers` gives it, under today's names.

    Raises:
        MedSAEError: as `saved_towers`.
    """
    towers = saved_towers(state)
    vision = {_renamed(key, _RENAMED[family]): value for key, value in towers["vision"].items()}
    return {"logit_scale": {}, **towers, "vision": vision}


def saved_towers(state: Tensors, family: str = "") -> Towers:
    """A checkpoint in MedCLIP's layout as state dicts of its parts: `vision`, `text` and, if it has one, `logit_scale`.

    Raises:
        MedSAEError: keys that are neither `vision_model.*`, `text_model.*` nor `logit_scale`.
    """
    towers: Towers = {"vision": {}, "text": {}}
    unknown = []
    for key, value in state.items():
        tower, _, rest = key.partition("_model.")
        if key == "logit_scale":
            towers[key] = {key: value}
        elif tower in ("vision", "text") and rest:
            if _DROPPED.search(rest):
                continue
            towers[tower][rest] = value
        else:
            unknown.append(key)
    if unknown:
        raise MedSAEError(f"this is not a checkpoint in MedCLIP's layout; keys left over: {listed(unknown)}")
    return towers


def open_clip_towers(state: Tensors, family: str = "") -> Towers:
    """An open_clip checkpoint of a timm ViT and a BERT (BiomedCLIP) as `saved_towers` gives it, under today's names.

    Raises:
        MedSAEError: keys that are neither `visual.trunk.*`, `visual.head.*`, `text.*` nor `logit_scale`.
    """
    towers: Towers = {"vision": {}, "text": {}, "logit_scale": {}}
    unknown = []
    for key, value in state.items():
        if key == "logit_scale":
            towers[key][key] = value
        elif key.startswith("text."):
            if not _OPEN_CLIP_DROPPED.search(key):
                towers["text"][_renamed(key, _OPEN_CLIP_TEXT)] = value
        elif key.startswith(("visual.trunk.", "visual.head.")):
            new = _renamed(key, _OPEN_CLIP_VISION)
            if ".attention.qkv." in new:
                for part, third in zip("qkv", value.chunk(3), strict=True):
                    towers["vision"][new.replace(".qkv.", f".{part}_proj.")] = third
            else:
                towers["vision"][new] = value
        else:
            unknown.append(key)
    if unknown:
        raise MedSAEError(f"this is not an open_clip checkpoint of a ViT and a BERT; keys left over: {listed(unknown)}")
    return towers


def torchxrayvision_towers(state: Tensors, family: str) -> Towers:
    """A state dict of TorchXRayVision's DenseNet or ResNet under the tower's names, without its classifier."""
    tower: dict[str, Tensor] = {}
    for key, value in state.items():
        key = key.removeprefix("model.")
        if key.startswith(("classifier.", "fc.")) or key == "op_threshs":
            continue
        if family == "densenet":
            key = _renamed(key, ((r"(denselayer\d+)\.", r"\1.layers."),))
        else:
            key = _renamed(f"model.{key}", _RENAMED[family]).removeprefix("model.")
        tower[key] = value
    return {"vision": tower}


def gemma3_towers(state: Tensors, family: str = "") -> Towers:
    """The vision tower and the projector in a Gemma 3 checkpoint, of this or of earlier versions of transformers."""
    found = ((GEMMA3_KEYS.match(key), value) for key, value in state.items())
    return {"vision": {f"{match[1]}.{match[2]}": value for match, value in found if match}}


def own_towers(state: Tensors, family: str = "") -> Towers:
    """A checkpoint of the family's vision model alone, under its own names."""
    return {"vision": dict(state)}


def _renamed(key: str, rules: Sequence[tuple[str, str]]) -> str:
    for old, new in rules:
        key = re.sub(old, new, key)
    return key
