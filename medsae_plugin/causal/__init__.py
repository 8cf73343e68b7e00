"""What latents cause: SAEs spliced into the encoder, latents edited, and what becomes of its findings."""

from typing import Any

from medsae_plugin._lazy import look_up

_MODULES = {
    "Attribution": "medsae_plugin.causal.attribution",
    "attribute": "medsae_plugin.causal.attribution",
    "summarise_attribution": "medsae_plugin.causal.attribution_report",
    "contrast_with_random": "medsae_plugin.causal.interventions",
    "downstream_fidelity": "medsae_plugin.causal.fidelity",
    "effect_of_edits": "medsae_plugin.causal.interventions",
    "format_attribution": "medsae_plugin.causal.attribution_report",
    "format_fidelity": "medsae_plugin.causal.fidelity",
    "load_saes": "medsae_plugin.causal.passes",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
