"""What other libraries' files of weights hold, read so that none of their code runs."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medsae_plugin.encoders.checkpoints import read_checkpoint
from medsae_plugin.errors import MedSAEError
from medsae_plugin.sae_folders import refuse_lfs_pointer

State = dict[str, Tensor]


class Bag:
    """Stands for a class of another library's config while its plain values are read; it has no code."""


def read_saved(path: Path, is_config: Callable[[str], bool] = lambda name: False) -> dict[str, Any]:
    """What a file of weights holds by name, read with `weights_only=True`, so that none of its code runs.

    Args:
        is_config: whether a class of this full name, where the file names it, is a config, whose values are read as
            those of a `Bag`.

    Raises:
        MedSAEError: it is damaged, holds Python objects, is another library's, or no file of weights.
    """
    refuse_lfs_pointer(path)
    if path.suffix == ".safetensors":
        return dict(read_checkpoint(path))
    with path.open("rb") as file:
        return unpickled(file, path, is_config)


def unpickled(
    file: BufferedReader | BytesIO, path: Path, is_config: Callable[[str], bool] = lambda name: False
) -> dict[str, Any]:
    """As `read_saved`, of an open file; `path` is for messages."""
    named = _classes_named(file)
    try:
        with torch.serialization.safe_globals([(Bag, name) for name in named if is_config(name)]):
            saved = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # of the unpickler, which raises many kinds for what is no pickle of weights
        raise MedSAEError(f"{path} {_why_unread(path, str(error), named)}") from None
    if not isinstance(saved, dict):
        raise MedSAEError(f"{path} holds a {type(saved).__name__}, and no weights by name")
    return saved


def _classes_named(file: BufferedReader | BytesIO) -> list[str]:
    """Classes and functions that a pickle names and torch does not know, from its opcodes, without running it."""
    start = file.tell()
    try:
        named: list[str] = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # not what torch.save writes, which reading it will say
        named = []
    file.seek(start)
    return sorted(named)


def _why_unread(path: Path, error: str, named: list[str]) -> str:
    with path.open("rb") as file:
        line = file.readline(1 << 20)
        after = file.read(2)
    try:
        is_json = isinstance(json.loads(line), dict)
    except ValueError:
        is_json = False
    if is_json and after[:1] == b"P":
        return "is a checkpoint of saev (a line of JSON, then the weights), or a damaged one: read it as format saev"
    found = re.search(r"(?:GLOBAL|class|function|global) ([\w.]+\.\w+)", error)
    if what := found[1] if found else ", ".join(named[:3]):
        return (
            f"holds a Python object ({what}) and not weights alone: it is not loaded, for that would run code of "
            "the file. Where you trust it, save the weights alone, torch.save(module.state_dict(), PATH)"
        )
    if line[:2] == b"PK" or line[:1] == b"\x80":
        return (
            f"is cut short or damaged, or holds more than weights ({error.splitlines()[0] if error else 'no reason'})"
        )
    return f"is no file of weights that torch or safetensors wrote; it begins with {line[:24]!r}"


@dataclass(frozen=True)
class Contents:
    """A file of weights, without what it was wrapped in: the weights, the config, and what inputs are normalised by.

    mean, std: the SAE takes (x - mean) / std; None where nothing is subtracted, or divided by.
    """

    saved: dict[str, Any]
    config: dict[str, Any]
    mean: Tensor | None = None
    std: Tensor | None = None


_WEIGHTS = ("state_dict", "model_state_dict", "sae_state_dict")
_CONFIGS = ("cfg", "config", "hyper_parameters")
_NORMALISATION = re.compile(r"mean|std|norm|scal|center|centre|whiten")


def unwrapped(saved: dict[str, Any], config: dict[str, Any]) -> Contents:
    """What a dict such as `{"state_dict": ..., "cfg": ..., "act_mean": ...}` wraps; a state dict as it is.

    Args:
        config: of a file of its own, which goes before that in the dict.

    Raises:
        MedSAEError: the dict holds something of the inputs' normalisation that is not known by its name.
    """
    key = next((k for k in _WEIGHTS if isinstance(saved.get(k), dict)), None)
    if key is None:
        return Contents(saved, config)
    within: Any = next((saved[k] for k in _CONFIGS if k in saved), {})
    within = vars(within) if isinstance(within, Bag) else within
    if unknown := [k for k in map(str, saved) if _NORMALISATION.search(k) and k not in ("act_mean", "act_std")]:
        raise MedSAEError(
            f"beside its weights the file holds {', '.join(unknown)}, by which its inputs may be normalised; how is "
            "not known: save the weights alone, and give --mean and --scale"
        )
    return Contents(
        saved[key], config or dict(within or {}), _vector(saved, "act_mean", 0.0), _vector(saved, "act_std", 1.0)
    )


def _vector(saved: dict[str, Any], key: str, neutral: float) -> Tensor | None:
    if saved.get(key) is None:
        return None
    value = torch.as_tensor(saved[key], dtype=torch.float64).squeeze()
    if value.ndim != 1 or not torch.isfinite(value).all():
        raise MedSAEError(f"{key} in the file should be a vector of finite numbers")
    return None if bool((value == neutral).all()) else value


def state_of(saved: dict[str, Any], prefixes: tuple[str, ...] = ("_orig_mod.", "module.")) -> State:
    """A state dict as its module names it: without the prefixes of a compiled, parallel or enclosing module.

    Raises:
        MedSAEError: it holds something other than tensors.
    """
    while saved and (prefix := next((p for p in prefixes if all(str(k).startswith(p) for k in saved)), None)):
        saved = {key.removeprefix(prefix): value for key, value in saved.items()}
    if other := [str(key) for key, value in saved.items() if not isinstance(value, Tensor)]:
        raise MedSAEError(
            f"this is no state dict: {', '.join(other[:12])} in it are no tensors; save the weights alone"
        )
    return saved


def oriented(state: State) -> tuple[int, int, State]:
    """d_in, d_sae, and W_enc as d_in x d_sae and W_dec as d_sae x d_out, turned round where the biases tell so.

    A square matrix is taken as the library writes it.

    Args:
        state: with SAE-Lens's names, and `b_enc` or `b_gate`, whose length is d_sae.

    Raises:
        MedSAEError: a matrix that fits the biases neither way.
    """
    d_sae = len(state["b_enc"] if "b_enc" in state else state["b_gate"])
    w_enc = state["W_enc"]
    if w_enc.ndim != 2 or d_sae not in w_enc.shape:
        raise MedSAEError(f"W_enc is {_times(w_enc)}, and there are {d_sae} latents by the bias")
    d_in = w_enc.shape[0] if w_enc.shape[1] == d_sae else w_enc.shape[1]
    state = {
        **state,
        "W_enc": _turned("W_enc", w_enc, d_in, d_sae),
        "W_dec": _turned("W_dec", state["W_dec"], d_sae, len(state["b_dec"])),
    }
    return d_in, d_sae, state


def _turned(name: str, matrix: Tensor, rows: int, columns: int) -> Tensor:
    if matrix.shape == (rows, columns):
        return matrix
    if matrix.shape != (columns, rows):
        raise MedSAEError(f"{name} is {_times(matrix)}, and by the biases should be {rows} x {columns}")
    warnings.warn(f"{name} lies transposed in the file, as its shape tells: it is turned round", stacklevel=2)
    return matrix.T


def _times(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def check_width(config: dict[str, Any], of_weights: dict[str, int]) -> None:
    """Raise a MedSAEError where a config gives another width than the weights have, for it is another SAE's."""
    for key, width in of_weights.items():
        if isinstance(said := config.get(key), int) and said != width:
            raise MedSAEError(f"the config is another SAE's: its {key} is {said}, that of the weights {width}")


def check_k(k: Any, d_sae: int, where: str) -> int:
    """k, the number of active latents, where it is one.

    Raises:
        MedSAEError: it is none; `where` names the place that should say it.
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 0 < k <= d_sae:
        raise MedSAEError(f"{where} should say k, 1 to {d_sae}, the number of active latents; it is {k}")
    return k
