"""What becomes of every finding when the latents of one are silent."""

from medsae_plugin.selectivity.results import Selectivity
from medsae_plugin.selectivity.run import score_selectivity

__all__ = ["Selectivity", "score_selectivity"]
