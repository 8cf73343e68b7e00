"""Checkpoints into modules: keys converted, every key accounted for."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
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


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Every tensor of a `.safetensors` file or of a pickled state dict, the latter with `weights_only=True`.

    Raises:
        MedSAEError: the file is damaged, holds code, or holds something other than tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise MedSAEError(f"{path} is not a sound safetensors file: {error}") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MedSAEError(f"{path} is not a checkpoint of tensors alone, so it is not loaded: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise MedSAEError(f"{path} is not a state dict: it holds something other than named tensors")
    return state


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
                for old, new in _RENAMED[official_family]:
                    rest = re.sub(old, new, rest)
            towers[tower][rest] = value
        else:
            unknown.append(key)
    if unknown:
        raise MedSAEError(f"this is not a checkpoint in MedCLIP's layout; keys left over: {_listed(unknown)}")
    return towers


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
