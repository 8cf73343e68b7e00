"""Encoders of random weights, and the older word for `save_pretrained`."""

from __future__ import annotations

from pathlib import Path

import torch

from medsae_plugin.encoders.card import EncoderCard
from medsae_plugin.encoders.hooked import HookedVisionEncoder
from medsae_plugin.encoders.layouts import layout_of


def build_encoder(
    card: EncoderCard, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> HookedVisionEncoder:
    """An encoder of a card's shapes with random weights (of torch's generator), for training one.

    Raises:
        MedSAEError: the card's `vision` does not tell the shapes.
    """
    return HookedVisionEncoder(**vars(layout_of(card).build(card))).to(device=torch.device(device), dtype=dtype)


def save_encoder(encoder: HookedVisionEncoder, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
    """`encoder.save_pretrained(folder, dtype)`."""
    return encoder.save_pretrained(folder, dtype)
