"""Pictures of where on an image a unit fires."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from medsae_plugin.data.images import ImageFile, read_image
from medsae_plugin.encoders.preprocessing import Preprocessor
from medsae_plugin.naming.chat import Picture
from medsae_plugin.scores import heatmaps as scores

if TYPE_CHECKING:
    from medsae_plugin.naming.firing import Firing

Style = Literal["overlay", "crop", "none"]

PICTURE_SIZE = 512
"""Pixels on the longer side of a picture that a model is shown, at most."""

_COLOUR = np.array([255.0, 60.0, 0.0])
_OPACITY = 0.55
_CROP_LEVEL, _CROP_MARGIN, _CROP_LEAST = 0.5, 0.08, 0.3


def heatmaps(firing: Firing, unit: int, rows: Sequence[int | np.integer]) -> Float[np.ndarray, "images rows columns"]:
    """A unit's activations over the grid of positions of these rows' images; see `scores.heatmaps`."""
    ids = firing.images.frame["image_id"].to_numpy()[np.asarray(rows, dtype=np.int64)]
    return scores.heatmaps(firing.store, firing.units, [unit], ids)[:, 0]


def picture(path: Path | ImageFile, preprocessing: Mapping[str, Any]) -> Picture:
    """An image as it is, framed as the encoder sees it (padded, cropped or stretched to a square).

    Raises:
        UnreadableImage: the file has gone or has changed since its activations were stored.
    """
    return _png(_framed(path, preprocessing))


def heatmap_picture(
    path: Path | ImageFile,
    preprocessing: Mapping[str, Any],
    heatmap: Float[np.ndarray, "rows columns"],
    style: Style,
    peak: float,
) -> Picture:
    """An image with a heatmap laid over it, or cropped to where the heatmap is above half of its maximum.

    peak: the activation that is drawn at full strength, one for all pictures of a latent.

    Raises:
        UnreadableImage: as `picture`.
    """
    image = _framed(path, preprocessing)
    strength = np.clip(heatmap / peak, 0, 1) if peak > 0 else np.zeros_like(heatmap)
    if style == "crop":
        return _png(_cropped(image, strength))
    return _png(_overlaid(image, strength)) if style == "overlay" else _png(image)


def _framed(path: Path | ImageFile, preprocessing: Mapping[str, Any]) -> Image.Image:
    """The part of the image that the encoder sees, in more pixels where the file has them."""
    image = read_image(path)
    preprocessor = Preprocessor.from_config(preprocessing)
    longest = max(preprocessor.shape)
    finer = max(longest, min(PICTURE_SIZE, max(image.size))) / longest
    rows, columns = (round(side * finer) for side in preprocessor.shape)
    resize = preprocessor.resize and round(preprocessor.resize * finer)
    seen = Image.fromarray(replace(preprocessor, size=(rows, columns), resize=resize).to_array(image))
    if max(seen.size) > PICTURE_SIZE:
        seen.thumbnail((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.BICUBIC)
    return seen


def _overlaid(image: Image.Image, strength: np.ndarray) -> Image.Image:
    mask = Image.fromarray(np.round(strength * 255).astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
    alpha = np.asarray(mask, dtype=np.float64)[..., None] / 255 * _OPACITY
    grey = np.asarray(image.convert("RGB"), dtype=np.float64)
    return Image.fromarray(np.round(grey * (1 - alpha) + _COLOUR * alpha).astype(np.uint8))


def _cropped(image: Image.Image, strength: np.ndarray) -> Image.Image:
    """The part of the image round the positions above half of the maximum; all of it where nothing fires."""
    if strength.max() <= 0:
        return image
    hot = np.argwhere(strength >= _CROP_LEVEL * strength.max())
    shape = np.array(strength.shape)
    low, high = hot.min(0) / shape, (hot.max(0) + 1) / shape
    middle = (low + high) / 2
    half = np.maximum((high - low) / 2 + _CROP_MARGIN, _CROP_LEAST / 2)
    low, high = np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
    (top, left), (bottom, right) = low, high
    width, height = image.size
    box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
    part = image.crop(box)
    scale = PICTURE_SIZE / 2 / max(part.size)
    return part.resize((round(part.width * scale), round(part.height * scale)), Image.Resampling.BICUBIC)


def _png(image: Image.Image) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return Picture(buffer.getvalue())
