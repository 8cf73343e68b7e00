"""What latents lean on: sex, age, projection and other covariates beside the findings that latents follow."""

from medsae_plugin.confounding.results import Confounders
from medsae_plugin.confounding.run import score_confounders

__all__ = ["Confounders", "score_confounders"]
