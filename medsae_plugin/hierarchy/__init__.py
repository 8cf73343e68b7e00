"""Latents along a tree of findings: where a parent's go silent for a child's, and how findings split."""

from medsae_plugin.hierarchy.results import Hierarchy
from medsae_plugin.hierarchy.run import score_hierarchy
from medsae_plugin.hierarchy.tree import read_tree

__all__ = ["Hierarchy", "read_tree", "score_hierarchy"]
