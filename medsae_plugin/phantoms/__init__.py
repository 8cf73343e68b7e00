"""Chest phantoms: radiographs drawn from a seed, with known findings, masks and boxes."""

from medsae_plugin.phantoms.cases import FINDINGS, Case, sample_case
from medsae_plugin.phantoms.draw import Phantom, draw_case, draw_phantom
from medsae_plugin.phantoms.generate import SHORTCUT, generate, read_truth

__all__ = [
    "FINDINGS",
    "SHORTCUT",
    "Case",
    "Phantom",
    "draw_case",
    "draw_phantom",
    "generate",
    "read_truth",
    "sample_case",
]
