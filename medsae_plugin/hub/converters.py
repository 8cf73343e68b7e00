"""SAEs that other libraries saved, read as SAE-Lens reads its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from medsae_plugin.encoders.checkpoints import read_checkpoint
from medsae_plugin.errors import MedSAEError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Format:
    """A library's way of saving an SAE: a folder with a file of weights and perhaps a config in JSON.

    convert: from the weights and the config (empty where there is none) to SAE-Lens's config, without `dtype` and
        `device`, and state dict.
    read: the file of weights.
    """

    name: str
    weights: str
    config: str
    convert: Callable[[dict[str, Any], dict[str, Any]], tuple[dict[str, Any], State]]
    read: Callable[[Path], dict[str, Any]] = read_checkpoint

    def disk_loader(
        self, path: str | Path, device: str | None = "cpu", cfg_overrides: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], State]:
        """SAE-Lens's `PretrainedSaeDiskLoader`, for `SAE.load_from_disk(path, converter=...)`.

        Args:
            path: the folder, or the file of weights.

        Raises:
            MedSAEError: no such file, not a checkpoint of tensors alone, or none of this library's.
        """
        from sae_lens import __version__ as sae_lens_version

        path = Path(path)
        file = path / self.weights if path.is_dir() else path
        if not file.is_file():
            raise MedSAEError(f"there is no {self.name} checkpoint at {file}")
        config = file.parent / self.config
        try:
            settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        except ValueError as error:
            raise MedSAEError(f"{config} is not JSON: {error}") from None
        try:
            cfg, state = self.convert(self.read(file), settings)
        except KeyError as error:
            raise MedSAEError(f"{file} or its {self.config} lacks {error}: no {self.name} checkpoint") from None
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
        from medsae_plugin.fetch import has_file, hub_file

        folder = "" if folder_name in ("", ".") else f"{folder_name}/"
        file = hub_file(repo_id, folder + self.weights, force_download=force_download)
        if has_file(repo_id, folder + self.config):
            hub_file(repo_id, folder + self.config, force_download=force_download)
        return *self.disk_loader(file.parent, device, cfg_overrides), None

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


def formats() -> dict[str, Format]:
    """The foreign formats, by the name that a release card's `conversion_func` gives."""
    from medsae_plugin.hub import dictionary_learning, vit_prisma

    return {format.name: format for format in (dictionary_learning.FORMAT, vit_prisma.FORMAT)}


def disk_loader(name: str) -> Callable[..., tuple[dict[str, Any], State]]:
    """The disk loader of SAE-Lens's own format, or of a foreign one."""
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    if name == "sae_lens":
        loader: Callable[..., tuple[dict[str, Any], State]] = sae_lens_disk_loader
        return loader
    return formats()[name].disk_loader


def register(loaders: ModuleType) -> None:
    """Add the foreign formats to SAE-Lens's named loaders; a name that it has keeps its meaning."""
    for name, format in formats().items():
        loaders.NAMED_PRETRAINED_SAE_LOADERS.setdefault(name, format.huggingface_loader)
        loaders.NAMED_PRETRAINED_SAE_CONFIG_GETTERS.setdefault(name, format.config_getter)
