"""SAEs that other libraries saved, read as SAE-Lens reads its own."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medsae_plugin.encoders.checkpoints import read_checkpoint
from medsae_plugin.errors import MedSAEError
from medsae_plugin.sae_folders import CONFIG, read_object, refuse_lfs_pointer

State = dict[str, Tensor]
_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


def read_saved(path: Path, stand_ins: Sequence[tuple[Any, str]] = ()) -> dict[str, Any]:
    """What a file of weights holds by name, read with `weights_only=True`, so that none of its code runs.

    Args:
        stand_ins: classes to read values into, each with the name of the class that the file names.

    Raises:
        MedSAEError: it is damaged, holds Python objects, is another library's, or no file of weights.
    """
    refuse_lfs_pointer(path)
    if path.suffix == ".safetensors":
        return dict(read_checkpoint(path))
    try:
        with torch.serialization.safe_globals(list(stand_ins)):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # of the unpickler, which raises many kinds for what is no pickle of weights
        raise MedSAEError(f"{path} {_why_unread(path, str(error))}") from None
    if not isinstance(saved, dict):
        raise MedSAEError(f"{path} holds a {type(saved).__name__}, and no weights by name")
    return saved


def _why_unread(path: Path, error: str) -> str:
    with path.open("rb") as file:
        line = file.readline(1 << 20)
        after = file.read(2)
    try:
        is_json = isinstance(json.loads(line), dict)
    except ValueError:
        is_json = False
    if is_json and after[:1] in (b"P", b"\x80"):
        return "is a checkpoint of saev (a line of JSON, then the weights), which is not read yet"
    if found := re.search(r"(?:GLOBAL|class|function|global) ([\w.]+\.\w+)", error):
        return (
            f"holds a Python object ({found[1]}) and not weights alone: it is not loaded, for that would run code of "
            "the file. Where you trust it, save the weights alone, torch.save(module.state_dict(), PATH)"
        )
    if line[:2] == b"PK" or line[:1] == b"\x80":
        return (
            f"is cut short or damaged, or holds more than weights ({error.splitlines()[0] if error else 'no reason'})"
        )
    return f"is no file of weights that torch or safetensors wrote; it begins with {line[:24]!r}"


def state_of(saved: dict[str, Any]) -> State:
    """A state dict as its module names it: without the prefixes of a compiled or a parallel module.

    Raises:
        MedSAEError: it holds something other than tensors.
    """
    while saved and (prefix := next((p for p in _PREFIXES if all(str(k).startswith(p) for k in saved)), None)):
        saved = {key.removeprefix(prefix): value for key, value in saved.items()}
    if other := [str(key) for key, value in saved.items() if not isinstance(value, Tensor)]:
        raise MedSAEError(
            f"this is no state dict: {', '.join(other[:12])} in it are no tensors; save the weights alone"
        )
    return saved


_PREFIXES = ("_orig_mod.", "module.")


def check_width(config: dict[str, Any], of_weights: dict[str, int]) -> None:
    """Raise a MedSAEError where a config gives another width than the weights have, for it is another SAE's."""
    for key, width in of_weights.items():
        if isinstance(said := config.get(key), int) and said != width:
            raise MedSAEError(f"the config is another SAE's: its {key} is {said}, that of the weights {width}")


@dataclass(frozen=True)
class Format:
    """A library's way of saving an SAE: a folder with a file of weights and perhaps a config in JSON.

    name: what `conversion_func` of a release card and `medsae import --format` call it.
    weights, config: the files' names; a path to another file of weights is taken too.
    convert: from the weights and the config (empty where there is none) to SAE-Lens's config, without `dtype` and
        `device`, and state dict.
    marks: fields of which a config has some, by which one a folder further up is known for this library's.
    read: the file of weights.
    """

    name: str
    weights: str
    config: str
    convert: Callable[[dict[str, Any], dict[str, Any]], tuple[dict[str, Any], State]]
    marks: tuple[str, ...]
    read: Callable[[Path], dict[str, Any]] = read_saved

    def disk_loader(
        self, path: str | Path, device: str | None = "cpu", cfg_overrides: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], State]:
        """SAE-Lens's `PretrainedSaeDiskLoader`, for `SAE.load_from_disk(path, converter=...)`.

        Args:
            path: the folder, or the file of weights. Its config is looked for beside it, then, with a warning, one
                folder up, where checkpoints of an unfinished training have theirs.

        Raises:
            MedSAEError: no such file, not a checkpoint of tensors alone, or none of this library's.
        """
        file = self._file(Path(path))
        return self._load(file, self._settings(file), device, cfg_overrides)

    def _settings(self, file: Path) -> dict[str, Any]:
        """The config of a file of weights, empty where there is none."""
        if (beside := file.parent / self.config).is_file():
            return read_object(beside)
        above = file.resolve().parent.parent / self.config
        settings = read_object(above) if above.is_file() else {}
        if not any(mark in settings for mark in self.marks):
            return {}
        warnings.warn(f"{above} is taken for the config of {file}", stacklevel=2)
        return settings

    def _file(self, path: Path) -> Path:
        """The file of weights; an error says what else is there."""
        file = path / self.weights if path.is_dir() else path
        if file.is_file():
            return file
        message = f"there is no {self.name} checkpoint at {file}"
        if (path / CONFIG).is_file():
            message = f"{path} has a {CONFIG}: it is in SAE-Lens's format already, and needs no import"
        elif path.is_dir() and (others := sorted(p.name for p in path.glob("*.*") if p.suffix in _SUFFIXES)):
            message += f"; name one of {', '.join(others[:12])}"
        raise MedSAEError(message)

    def _load(
        self, file: Path, settings: dict[str, Any], device: str | None, cfg_overrides: dict[str, Any] | None
    ) -> tuple[dict[str, Any], State]:
        from sae_lens import __version__ as sae_lens_version

        saved = self.read(file)
        try:
            cfg, state = self.convert(saved, settings)
        except MedSAEError as error:
            raise MedSAEError(f"{file}: {error}") from None
        except KeyError as error:
            raise MedSAEError(f"{file} or its {self.config} lacks {error}: no {self.name} checkpoint") from None
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise MedSAEError(f"{file} or its {self.config} makes no {self.name} SAE: {error}") from None
        if whole := [name for name, tensor in state.items() if not tensor.is_floating_point()]:
            raise MedSAEError(f"{file} holds weights that are no floating-point numbers: {', '.join(whole)}")
        # Without a version SAE-Lens takes a config for one of before its version 6, and drops what it does not know.
        cfg["metadata"]["sae_lens_version"] = sae_lens_version
        cfg |= {"dtype": "float32", "device": device or "cpu", **(cfg_overrides or {})}
        return cfg, {k: v.to(device=cfg["device"], dtype=torch.float32).contiguous() for k, v in state.items()}

    def huggingface_loader(
        self,
        repo_id: str,
        folder_name: str,
        device: str = "cpu",
        force_download: bool = False,
        cfg_overrides: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], State, None]:
        """SAE-Lens's `PretrainedSaeHuggingfaceLoader`, for `SAE.from_pretrained(repo_id, folder, converter=...)`.

        Args:
            folder_name: where the files lie in the repository; `.` is its root.
        """
        from medsae_plugin.fetch import hub_file, hub_file_if_any

        folder = "" if folder_name in ("", ".") else f"{folder_name}/"
        file = hub_file(repo_id, folder + self.weights, force_download=force_download)
        config = hub_file_if_any(repo_id, folder + self.config, force_download=force_download)
        settings = {} if config is None else read_object(config)
        return *self._load(file, settings, device, cfg_overrides), None

    def config_getter(
        self,
        repo_id: str,
        folder_name: str,
        device: str = "cpu",
        force_download: bool = False,
        cfg_overrides: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """SAE-Lens's `PretrainedSaeConfigHuggingfaceLoader`."""
        return self.huggingface_loader(repo_id, folder_name, device, force_download, cfg_overrides)[0]
