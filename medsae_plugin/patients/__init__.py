"""From latents to a patient: concept heads, whose predictions are sums of latents' parts."""

from medsae_plugin.patients.head import ConceptHead
from medsae_plugin.patients.head_results import HeadReport
from medsae_plugin.patients.heads import fit_head

__all__ = ["ConceptHead", "HeadReport", "fit_head"]
