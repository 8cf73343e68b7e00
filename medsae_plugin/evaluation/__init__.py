"""Latents scored against clinical labels."""

from typing import Any

from medsae_plugin._lazy import look_up

_MODULES = {
    "LatentStatistics": "medsae_plugin.evaluation.statistics",
    "LatentMatrix": "medsae_plugin.evaluation.latents",
    "latent_matrix": "medsae_plugin.evaluation.latents",
    "Resampling": "medsae_plugin.evaluation.scoring",
    "SiteStatistics": "medsae_plugin.evaluation.sites",
    "site_statistics": "medsae_plugin.evaluation.sites",
    "Evaluation": "medsae_plugin.evaluation.results",
    "LabelledImages": "medsae_plugin.evaluation.labelled",
    "Units": "medsae_plugin.evaluation.units",
    "evaluate": "medsae_plugin.evaluation.protocols",
    "metric": "medsae_plugin.evaluation.registry",
    "open_units": "medsae_plugin.evaluation.opening",
    "Attribution": "medsae_plugin.evaluation.attribution",
    "attribute": "medsae_plugin.evaluation.attribution",
    "summarise_attribution": "medsae_plugin.evaluation.attribution_report",
    "contrast_with_random": "medsae_plugin.evaluation.interventions",
    "downstream_fidelity": "medsae_plugin.evaluation.downstream",
    "effect_of_edits": "medsae_plugin.evaluation.interventions",
    "format_attribution": "medsae_plugin.evaluation.attribution_report",
    "format_fidelity": "medsae_plugin.evaluation.downstream",
    "load_saes": "medsae_plugin.evaluation.passes",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
