"""Do latents hold when images are masked, noised, turned, mirrored, cropped, or shown at another window?"""

from typing import Any

from medsae_plugin._lazy import look_up

_MODULES = {
    "PERTURBATIONS": "medsae_plugin.robustness.perturbations",
    "Robustness": "medsae_plugin.robustness.results",
    "score_robustness": "medsae_plugin.robustness.run",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
