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
    "evaluate_saes": "medsae_plugin.evaluation.scores",
    "format_table": "medsae_plugin.evaluation.table",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
