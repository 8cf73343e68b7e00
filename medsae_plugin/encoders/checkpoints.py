"""Checkpoints into modules: keys converted, every key accounted for."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from medsae_plugin.errors import MedSAEError

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


def read_checkpoint(path: Path, wanted: Callable[[str], object] = lambda key: True) -> dict[str, Tensor]:
    """The `wanted` tensors of a `.safetensors` file or of a pickled state dict, the latter with `weights_only=True`.

    Raises:
        MedSAEError: the file is damaged, holds code, or holds something other than tensors.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as tensors:
                return {key: tensors.get_tensor(key) for key in tensors.keys() if wanted(key)}  # noqa: SIM118
        except SafetensorError as error:
            raise MedSAEError(f"{path} is not a sound safetensors file: {error}") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MedSAEError(f"{path} is not a checkpoint of tensors alone, so it is not loaded: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise MedSAEError(f"{path} is not a state dict: it holds something other than named tensors")
    return {key: value for key, value in state.items() if wanted(key)}


def read_shapes(path: Path, wanted: Callable[[str], object] = lambda key: True) -> dict[str, Tensor]:
    """As `read_checkpoint`, on the meta device: of a `.safetensors` file its header alone is read.

    Raises:
        MedSAEError: as `read_checkpoint`.
    """
    if path.suffix != ".safetensors":
        return {key: value.to("meta") for key, value in read_checkpoint(path, wanted).items()}
    try:
        with safe_open(path, framework="pt") as tensors:
            shapes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys() if wanted(key)}  # noqa: SIM118
    except SafetensorError as error:
        raise MedSAEError(f"{path} is not a sound safetensors file: {error}") from None
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def towers_of(state: Mapping[str, Tensor], official_family: str | None = None) -> dict[str, dict[str, Tensor]]:
    """A checkpoint in MedCLIP's layout as state dicts of its parts: `vision`, `text` and `logit_scale`.

    With `official_family` its vision keys are those of an official MedCLIP checkpoint of that family, and are renamed.

    Raises:
        MedSAEError: keys that are neither `vision_model.*`, `text_model.*` nor `logit_scale`.
    """
    towers: dict[str, dict[str, Tensor]] = {"vision": {}, "text": {}, "logit_scale": {}}
    unknown = []
    for key, value in state.items():
        tower, _, rest = key.partition("_model.")
        if key == "logit_scale":
            towers[key][key] = value
        elif tower in ("vision", "text") and rest:
            if _DROPPED.search(rest):
                continue
            if tower == "vision" and official_family:
                rest = _renamed(rest, _RENAMED[official_family])
            towers[tower][rest] = value
        else:
            unknown.append(key)
    if unknown:
        raise MedSAEError(f"this is not a checkpoint in MedCLIP's layout; keys left over: {_listed(unknown)}")
    return towers


def open_clip_towers(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """An open_clip checkpoint of a timm ViT and a BERT (BiomedCLIP) as `towers_of` gives it, under today's names.

    Raises:
        MedSAEError: keys that are neither `visual.trunk.*`, `visual.head.*`, `text.*` nor `logit_scale`.
    """
    towers: dict[str, dict[str, Tensor]] = {"vision": {}, "text": {}, "logit_scale": {}}
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
        raise MedSAEError(
            f"this is not an open_clip checkpoint of a ViT and a BERT; keys left over: {_listed(unknown)}"
        )
    return towers


def torchxrayvision_tower(state: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """A state dict of TorchXRayVision's DenseNet or ResNet under the tower's names, without its classifier."""
    tower = {}
    for key, value in state.items():
        key = key.removeprefix("model.")
        if key.startswith(("classifier.", "fc.")) or key == "op_threshs":
            continue
        if family == "densenet":
            key = _renamed(key, ((r"(denselayer\d+)\.", r"\1.layers."),))
        else:
            key = _renamed(f"model.{key}", _RENAMED[family]).removeprefix("model.")
        tower[key] = value
    return tower


def gemma3_tower(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision tower and the projector in a Gemma 3 checkpoint, of this or of earlier versions of transformers."""
    found = ((GEMMA3_KEYS.match(key), value) for key, value in state.items())
    return {f"{match[1]}.{match[2]}": value for match, value in found if match}


def _renamed(key: str, rules: Sequence[tuple[str, str]]) -> str:
    for old, new in rules:
        key = re.sub(old, new, key)
    return key


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load `state` into `module`; both must have the same keys and shapes.

    Raises:
        MedSAEError: keys that are missing, left over or of another shape, by name.
    """
    check_keys(module, state, what)
    module.load_state_dict(state)


def check_keys(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Raise if `state` is not exactly a state dict of `module`, which may be on the meta device.

    Raises:
        MedSAEError: as `load_exactly`.
    """
    expected = module.state_dict()
    problems = []
    if missing := [k for k in expected if k not in state]:
        problems.append(f"missing: {_listed(missing)}")
    if left_over := [k for k in state if k not in expected]:
        problems.append(f"left over: {_listed(left_over)}")
    if shapes := [
        f"{k} is {tuple(state[k].shape)}, should be {tuple(v.shape)}"
        for k, v in expected.items()
        if k in state and state[k].shape != v.shape
    ]:
        problems.append(f"of the wrong shape: {_listed(shapes)}")
    if problems:
        raise MedSAEError(f"the checkpoint does not fit {what}; keys {'; '.join(problems)}")


def _listed(keys: Sequence[str], most: int = 20) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
