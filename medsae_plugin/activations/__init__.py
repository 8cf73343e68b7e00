"""An encoder's activations on disk: one pass over the images, many hooks, read in shuffled batches or by image."""

from importlib import import_module
from typing import Any

_MODULES = {
    "ActivationStore": "medsae_plugin.activations.store",
    "HookInfo": "medsae_plugin.activations.layout",
    "PositionPolicy": "medsae_plugin.activations.positions",
    "extract": "medsae_plugin.activations.extraction",
    "parse_positions": "medsae_plugin.activations.positions",
}

__all__ = ["ActivationStore", "HookInfo", "PositionPolicy", "extract", "parse_positions"]


def __getattr__(name: str) -> Any:
    # Looked up when asked for: torch is slow to import.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
