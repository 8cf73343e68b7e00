"""Sparse autoencoders on medical vision encoders, with SAE-Lens."""

from medsae_plugin._version import __version__
from medsae_plugin.errors import MedSAEError

__all__ = ["MedSAEError", "__version__"]
