"""Latents scored against clinical labels."""

from typing import Any

from medsae_plugin._lazy import look_up
from medsae_plugin._old_names import old_function

_MODULES = {
    "LatentStatistics": "medsae_plugin.scores.sums",
    "LatentMatrix": "medsae_plugin.scores.matrix",
    "latent_matrix": "medsae_plugin.scores.matrix",
    "Resampling": "medsae_plugin.scores.scoring",
    "SiteStatistics": "medsae_plugin.scores.sites",
    "site_statistics": "medsae_plugin.scores.sites",
    "Evaluation": "medsae_plugin.scores.results",
    "JudgeStore": "medsae_plugin.scores.judge",
    "LabelledImages": "medsae_plugin.scores.images",
    "MeanTopR": "medsae_plugin.scores.while_training",
    "Units": "medsae_plugin.scores.units",
    "evaluate": "medsae_plugin.scores.protocols",
    "Probes": "medsae_plugin.scores.probe_results",
    "probe_units": "medsae_plugin.scores.probes",
    "metric": "medsae_plugin.scores.registry",
    "open_units": "medsae_plugin.scores.opening",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name) if name in _MODULES else old_function(__name__, name)
