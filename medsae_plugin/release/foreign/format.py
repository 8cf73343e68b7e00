"""SAEs that other libraries saved, read as SAE-Lens reads its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medsae_plugin.errors import MedSAEError
from medsae_plugin.release.foreign.weights import State, read_saved, unwrapped
from medsae_plugin.sae_folders import CONFIG, read_object
from medsae_plugin.yaml_files import read_yaml

_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


@dataclass(frozen=True)
class Format:
    """A library's way of saving an SAE: a folder with a file of weights and perhaps a config in JSON.

    name: what `conversion_func` of a release card and `medsae import --format` call it.
    weights, config: the files' names; a path to another file of weights is taken too.
    convert: from the weights and the config (empty where there is none) to SAE-Lens's config, without `dtype` and
        `device`, and state dict. What the weights are wrapped in has been taken off.
    marks: fields of which a config has some, by which one a folder further up is known for this library's.
    read: the file of weights.
    others: patterns of what the file of weights may be called too, where there is one such file.
    unsaid: why the file does not tell what activations the SAE takes, where it does not: an import has to say it.
    """

    name: str
    weights: str
    config: str
    convert: Callable[[dict[str, Any], dict[str, Any]], tuple[dict[str, Any], State]]
    marks: tuple[str, ...]
    read: Callable[[Path], dict[str, Any]] = read_saved
    others: tuple[str, ...] = ()
    unsaid: str = ""

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
        for name in (self.config, *(str(Path(self.config).with_suffix(end)) for end in (".yaml", ".yml"))):
            if (beside := file.parent / name).is_file():
                return _read_config(beside)
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
        found = sorted({found for pattern in self.others for found in path.glob(pattern)}) if path.is_dir() else []
        if len(found) == 1:
            return found[0]
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
            contents = unwrapped(saved, settings)
            cfg, state = self.convert(contents.saved, contents.config)
            if contents.mean is not None or contents.std is not None:
                state = _folded(cfg, state, contents.mean, contents.std)
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
        names = [self.weights, *(name for name in self.others if "*" not in name)]
        there = (hub_file_if_any(repo_id, folder + name, force_download=force_download) for name in names)
        file = next((path for path in there if path), None) or hub_file(repo_id, folder + self.weights)
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


def _read_config(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        return read_object(path)
    settings: dict[str, Any] = read_yaml(path, dict[str, Any], "config")
    return settings


def _folded(cfg: dict[str, Any], state: State, mean: Tensor | None, std: Tensor | None) -> State:
    """The weights of the same SAE for x, of those for (x - mean) / std; notes in the metadata that they are.

    Raises:
        MedSAEError: what cannot take this in, or a vector of another length.
    """
    from sae_lens import SAE

    d_in = cfg["d_in"]
    mean = torch.zeros(d_in, dtype=torch.float64) if mean is None else mean
    std = torch.ones(d_in, dtype=torch.float64) if std is None else std
    if len(mean) != d_in or len(std) != d_in:
        raise MedSAEError(f"act_mean and act_std should be of the SAE's {d_in} dimensions")
    if bool((std <= 0).any()):
        raise MedSAEError("act_std should be above 0 throughout")
    check_folds(cfg["architecture"], cfg.get("normalize_activations", "none"))
    sae: SAE[Any] = SAE.from_dict(cfg | {"dtype": "float64", "device": "cpu"})
    sae.load_state_dict({key: value.double() for key, value in state.items()})
    sae.fold_activation_whitening(mean, torch.diag(1 / std), torch.diag(std))
    cfg["metadata"]["folded"] = {"act_mean": round(float(mean.norm()), 6), "act_std": round(float(std.mean()), 6)}
    return dict(sae.state_dict())


def check_folds(architecture: str, normalize_activations: str) -> None:
    """Raise a MedSAEError if an SAE cannot take in how its inputs are centred and scaled."""
    if normalize_activations not in (None, "none"):
        raise MedSAEError(
            f"this SAE normalises each row ({normalize_activations}), into which no mean and scale before it can be "
            "folded"
        )
    if "transcoder" in architecture:
        raise MedSAEError("a transcoder's input and output are of two hooks; one mean and scale cannot be folded")
