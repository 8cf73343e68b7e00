"""SAEs trained over a store with SAE-Lens."""

from typing import Any

from medsae_plugin._lazy import look_up

_MODULES = {
    "SAESpec": "medsae_plugin.training.specs",
    "TrainingConfig": "medsae_plugin.training.specs",
    "Recipe": "medsae_plugin.training.recipes",
    "load_recipe": "medsae_plugin.training.recipes",
    "read_training": "medsae_plugin.training.records",
    "train_saes": "medsae_plugin.training.run",
    "split_by_sign": "medsae_plugin.training.normalization",
    "FidelitySums": "medsae_plugin.training.fidelity",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
