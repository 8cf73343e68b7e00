"""Checkpoints into modules: read without running code, every key accounted for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from medsae_plugin.errors import MedSAEError


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
    except OSError:
        raise
    except Exception as error:  # of the unpickler, which raises many kinds for bytes that are not what they were
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
        problems.append(f"missing: {listed(missing)}")
    if left_over := [k for k in state if k not in expected]:
        problems.append(f"left over: {listed(left_over)}")
    if shapes := [
        f"{k} is {tuple(state[k].shape)}, should be {tuple(v.shape)}"
        for k, v in expected.items()
        if k in state and state[k].shape != v.shape
    ]:
        problems.append(f"of the wrong shape: {listed(shapes)}")
    if problems:
        raise MedSAEError(f"the checkpoint does not fit {what}; keys {'; '.join(problems)}")


def listed(keys: Sequence[str], most: int = 20) -> str:
    """The first `most` keys, and how many more there are."""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
