"""The formats that SAEs are read in: SAE-Lens's own, and those of other libraries, one entry each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from medsae_plugin.errors import MedSAEError
from medsae_plugin.release.foreign import dictionary_learning, overcomplete, saev, sail, vit_prisma
from medsae_plugin.release.foreign.format import Format
from medsae_plugin.release.foreign.weights import State
from medsae_plugin.sae_folders import CONFIG, WEIGHTS

SAE_LENS = "sae_lens"
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        dictionary_learning.FORMAT,
        vit_prisma.FORMAT,
        saev.FORMAT,
        overcomplete.FORMAT,
        overcomplete.VISAEBENCH,
        sail.FORMAT,
    )
}
"""Those of other libraries, by the name that a release card's `conversion_func` gives."""


def register_format(format: Format) -> None:
    """Let cards, `import_checkpoint` and SAE-Lens's named loaders read another library's SAEs.

    Raises:
        MedSAEError: the name is taken.
    """
    if format.name in names() and FORMATS.get(format.name) != format:
        raise MedSAEError(f"there is a format {format.name!r} already; choose another name")
    FORMATS[format.name] = format
    if loaders := sys.modules.get("sae_lens.loading.pretrained_sae_loaders"):  # else told when it is imported
        tell_sae_lens(loaders)


def names() -> list[str]:
    """What a release card's `conversion_func` may be."""
    return [SAE_LENS, *FORMATS]


def files_of(name: str) -> set[str]:
    """The files that an SAE of this format has at least."""
    return {CONFIG, WEIGHTS} if name == SAE_LENS else {FORMATS[name].weights}


def disk_loader(name: str) -> Callable[..., tuple[dict[str, Any], State]]:
    """SAE-Lens's `PretrainedSaeDiskLoader` of this format."""
    if name != SAE_LENS:
        return FORMATS[name].disk_loader
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    loader: Callable[..., tuple[dict[str, Any], State]] = sae_lens_disk_loader
    return loader


def tell_sae_lens(loaders: ModuleType) -> None:
    """Add the foreign formats to SAE-Lens's named loaders; a name that it has keeps its meaning."""
    for name, format in FORMATS.items():
        loaders.NAMED_PRETRAINED_SAE_LOADERS.setdefault(name, format.huggingface_loader)
        loaders.NAMED_PRETRAINED_SAE_CONFIG_GETTERS.setdefault(name, format.config_getter)
