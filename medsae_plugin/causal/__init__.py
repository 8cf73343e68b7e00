"""What latents cause: SAEs spliced into the encoder, latents edited, and what becomes of its findings."""

from typing import Any

from medsae_plugin._lazy import look_up
from medsae_plugin._old_names import old_function

_MODULES = {
    "Attribution": "medsae_plugin.causal.attribution",
    "AttributionReport": "medsae_plugin.causal.attribution_report",
    "Fidelity": "medsae_plugin.causal.results",
    "Linearity": "medsae_plugin.causal.composites",
    "attribute": "medsae_plugin.causal.attribution",
    "contrast_with_random": "medsae_plugin.causal.interventions",
    "effect_of_edits": "medsae_plugin.causal.interventions",
    "fidelity": "medsae_plugin.causal.downstream",
    "linearity": "medsae_plugin.causal.composites",
    "load_saes": "medsae_plugin.causal.passes",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name) if name in _MODULES else old_function(__name__, name)
