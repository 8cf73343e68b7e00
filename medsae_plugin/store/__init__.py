"""An encoder's activations on disk: one pass over the images, many hooks, read in shuffled batches or by image."""

from typing import Any

from medsae_plugin._lazy import look_up

_MODULES = {
    "ActivationStore": "medsae_plugin.store.reader",
    "HookInfo": "medsae_plugin.store.layout",
    "PositionPolicy": "medsae_plugin.store.positions",
    "extract": "medsae_plugin.store.extraction",
    "plan_extraction": "medsae_plugin.store.extraction",
    "parse_positions": "medsae_plugin.store.positions",
}

__all__ = ["ActivationStore", "HookInfo", "PositionPolicy", "extract", "parse_positions", "plan_extraction"]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
