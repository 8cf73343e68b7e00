"""Sparse autoencoders on medical vision encoders, with SAE-Lens.

The names below are looked up in their modules when first used, so importing the package costs nothing.
"""

from typing import Any

from medsae_plugin._lazy import look_up
from medsae_plugin._old_names import find_old_modules, old_function
from medsae_plugin._sae_lens import register_with_sae_lens
from medsae_plugin._version import __version__
from medsae_plugin.errors import MedSAEError

_MODULES = {
    "HookedVisionEncoder": "medsae_plugin.encoders",
    "ImageTable": "medsae_plugin.data.tables",
    "read_table": "medsae_plugin.data.tables",
    "read_dataset": "medsae_plugin.data.hub_tables",
    "read_regions": "medsae_plugin.data.regions",
    "scan_folder": "medsae_plugin.data.tables",
    "split_by_patient": "medsae_plugin.data.splits",
    "ActivationStore": "medsae_plugin.store",
    "extract": "medsae_plugin.store",
    "SAESpec": "medsae_plugin.training",
    "TrainingConfig": "medsae_plugin.training",
    "load_recipe": "medsae_plugin.training",
    "train_saes": "medsae_plugin.training",
    "Evaluation": "medsae_plugin.scores",
    "LabelledImages": "medsae_plugin.scores",
    "Units": "medsae_plugin.scores",
    "evaluate": "medsae_plugin.scores",
    "metric": "medsae_plugin.scores",
    "AttributionReport": "medsae_plugin.causal",
    "Fidelity": "medsae_plugin.causal",
    "attribute": "medsae_plugin.causal",
    "fidelity": "medsae_plugin.causal",
    "load_medsae": "medsae_plugin.release",
    "publish": "medsae_plugin.release",
    "register_releases": "medsae_plugin.release",
    "name_latents": "medsae_plugin.naming",
    "score_names": "medsae_plugin.naming",
    "Comparison": "medsae_plugin.comparison",
    "compare": "medsae_plugin.comparison",
    "load_grid": "medsae_plugin.comparison",
    "sweep": "medsae_plugin.comparison",
    "Confounders": "medsae_plugin.confounding",
    "score_confounders": "medsae_plugin.confounding",
    "score_hierarchy": "medsae_plugin.hierarchy",
    "score_selectivity": "medsae_plugin.selectivity",
    "score_robustness": "medsae_plugin.robustness",
    "fit_head": "medsae_plugin.patients",
    "ConceptHead": "medsae_plugin.patients",
    "write_report": "medsae_plugin.report",
    "write_figures": "medsae_plugin.report",
}

__all__ = ["MedSAEError", "__version__", *_MODULES]

register_with_sae_lens()
find_old_modules()


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name) if name in _MODULES else old_function(__name__, name)


def __dir__() -> list[str]:
    return __all__
