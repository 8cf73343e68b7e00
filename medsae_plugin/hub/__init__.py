"""Releases: registered with SAE-Lens, loaded, published; SAEs of other libraries imported."""

from typing import Any

from medsae_plugin._lazy import look_up

_MODULES = {
    "ReleaseCard": "medsae_plugin.hub.cards",
    "register_releases": "medsae_plugin.hub.registry",
    "load_medsae": "medsae_plugin.hub.loading",
    "MedSAE": "medsae_plugin.hub.loading",
    "publish": "medsae_plugin.hub.publishing",
    "import_checkpoint": "medsae_plugin.hub.importing",
    "dictionary_learning_disk_loader": "medsae_plugin.hub.dictionary_learning",
    "dictionary_learning_huggingface_loader": "medsae_plugin.hub.dictionary_learning",
    "vit_prisma_disk_loader": "medsae_plugin.hub.vit_prisma",
    "vit_prisma_huggingface_loader": "medsae_plugin.hub.vit_prisma",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
