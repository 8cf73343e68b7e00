"""Where on an image units fire: their activations over the grid of positions of a hook."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from einops import rearrange
from jaxtyping import Float, Int

from medsae_plugin.scores.units import Units
from medsae_plugin.store.reader import ActivationStore


def has_heatmaps(store: ActivationStore, hook: str) -> bool:
    """Whether the store keeps every position of a hook that has positions."""
    info = store.hooks[hook]
    return info.grid is not None and info.rows_per_image == info.n_positions


def heatmaps(
    store: ActivationStore,
    units: Units,
    which: Sequence[int] | Int[np.ndarray, " units"],
    image_ids: Sequence[int] | Int[np.ndarray, " images"],
) -> Float[np.ndarray, "images units rows columns"]:
    """The activations of some units over the grid of each image; prefix tokens have no place and are left out.

    Raises:
        MedSAEError: an image that the store does not hold.
    """
    info = store.hooks[units.hook]
    assert info.grid is not None
    activations = store.rows_of(units.hook, image_ids)
    fired = units.encode(rearrange(activations, "image position d -> (image position) d"))[:, list(which)]
    fired = rearrange(fired, "(image position) unit -> image unit position", image=len(activations))
    fired = fired[..., info.n_prefix :].float().cpu()
    return rearrange(fired, "image unit (rows columns) -> image unit rows columns", rows=info.grid[0]).numpy()
