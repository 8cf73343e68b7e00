"""An encoder's activations on disk: one pass over the images, many hooks, read in shuffled batches or by image."""

from typing import Any

from medsae_plugin._lazy import look_up

_MODULES = {
    "ActivationStore": "medsae_plugin.activations.store",
    "HookInfo": "medsae_plugin.activations.layout",
    "PositionPolicy": "medsae_plugin.activations.positions",
    "extract": "medsae_plugin.activations.extraction",
    "parse_positions": "medsae_plugin.activations.positions",
}

__all__ = ["ActivationStore", "HookInfo", "PositionPolicy", "extract", "parse_positions"]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
