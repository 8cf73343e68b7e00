"""Many SAEs side by side, on the same images."""

from typing import Any

from medsae_plugin._lazy import look_up
from medsae_plugin._old_names import old_function

_MODULES = {
    "Comparison": "medsae_plugin.comparison.results",
    "Halving": "medsae_plugin.comparison.halving",
    "Sweep": "medsae_plugin.comparison.halving",
    "compare": "medsae_plugin.comparison.run",
    "load_grid": "medsae_plugin.comparison.grid",
    "sweep": "medsae_plugin.comparison.sweeps",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name) if name in _MODULES else old_function(__name__, name)
