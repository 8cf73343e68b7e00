"""SAEs trained over a store with SAE-Lens."""

from importlib import import_module
from typing import Any

_MODULES = {
    "SAESpec": "specs",
    "TrainingConfig": "specs",
    "Recipe": "recipes",
    "load_recipe": "recipes",
    "train_saes": "run",
    "FidelitySums": "fidelity",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
