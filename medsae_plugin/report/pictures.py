"""Images in a report: small pictures, and where on them a latent fires."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image

from medsae_plugin.data.images import ImageFile, UnreadableImage, read_image
from medsae_plugin.encoders.preprocessing import Preprocessor
from medsae_plugin.report.evidence import digits
from medsae_plugin.report.sources import ScoredSAE
from medsae_plugin.sae_folders import load_sae
from medsae_plugin.scores.heatmaps import has_heatmaps, heatmaps
from medsae_plugin.scores.strongest import Strongest
from medsae_plugin.scores.units import Latents

if TYPE_CHECKING:
    from medsae_plugin.store import ActivationStore

SIDE = 128  # pixels
HEAT_SIDE = 12  # cells
_QUALITY = 55


def thumbnail(path: Path | ImageFile, store: ActivationStore) -> str | None:
    """A small square WebP of the encoder's input, as base64; None where the file cannot be read."""
    try:
        image = read_image(path)
    except UnreadableImage:
        return None
    framed = Preprocessor.from_config(store.preprocessing).to_array(image)
    buffer = io.BytesIO()
    Image.fromarray(framed).resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(
        buffer, format="WEBP", quality=_QUALITY, method=4
    )
    return base64.b64encode(buffer.getvalue()).decode()


def heatmap_digits(store: ActivationStore, sae: ScoredSAE, best: Strongest) -> dict[tuple[int, int], str] | None:
    """Where each latent fires on its strongest images: by latent and row, cells row by row, as shares of the latent's
    maximum over these images. None at a hook without positions, or of which not every position is stored.
    """
    if sae.path is None or not has_heatmaps(store, sae.scores.hook):
        return None
    latents = Latents.of(load_sae(sae.path), sae.name)
    ids = sae.matrix.images["image_id"].to_numpy()
    maps: dict[tuple[int, int], str] = {}
    for row in np.unique(best.images[best.images >= 0]):
        firing = np.flatnonzero((best.images == row).any(1))
        for j, grid in zip(firing, heatmaps(store, latents, firing, ids[[row]])[0], strict=True):
            maps[int(j), int(row)] = digits(shrunk(grid).ravel() / max(best.values[j, 0], 1e-30))
    return maps


def heat_shape(store: ActivationStore, hook: str) -> list[int]:
    """Rows and columns of a heatmap."""
    grid = store.hooks[hook].grid
    return [min(side, HEAT_SIDE) for side in grid] if grid else []


def shrunk(grid: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "_ _"]:
    """A grid of at most `HEAT_SIDE` cells a side: the largest value in each part."""
    for axis in (0, 1):
        if grid.shape[axis] > HEAT_SIDE:
            parts = np.array_split(grid, HEAT_SIDE, axis=axis)
            grid = np.stack([part.max(axis) for part in parts], axis=axis)
    return grid
