"""Releases: registered with SAE-Lens, loaded, published; SAEs of other libraries imported."""

from typing import Any

from medsae_plugin._lazy import look_up

_MODULES = {
    "ReleaseCard": "medsae_plugin.release.cards",
    "register_releases": "medsae_plugin.release.registry",
    "load_medsae": "medsae_plugin.release.loading",
    "MedSAE": "medsae_plugin.release.loading",
    "publish": "medsae_plugin.release.publishing",
    "import_checkpoint": "medsae_plugin.release.importing",
    "Format": "medsae_plugin.release.foreign.format",
    "register_format": "medsae_plugin.release.formats",
    "dictionary_learning_disk_loader": "medsae_plugin.release.foreign.dictionary_learning",
    "dictionary_learning_huggingface_loader": "medsae_plugin.release.foreign.dictionary_learning",
    "vit_prisma_disk_loader": "medsae_plugin.release.foreign.vit_prisma",
    "vit_prisma_huggingface_loader": "medsae_plugin.release.foreign.vit_prisma",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
