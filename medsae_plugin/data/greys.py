"""Numbers of any depth to 8-bit grey: luma, and the scaling from a picture's own range."""

from __future__ import annotations

import numpy as np
from PIL import Image

# PIL's own bound on what a small file may claim; radiographs stay under 5,000 x 5,000.
MOST_PIXELS = 178_956_970


class Refused(Exception):
    """A picture that is not read; its words say why."""


def check_size(width: int, height: int) -> None:
    """Raises `Refused` where a picture is too large, before anything is unpacked."""
    if width * height > MOST_PIXELS:
        raise Refused(f"too large: more than {MOST_PIXELS:,} pixels")


def luma(colour: np.ndarray) -> np.ndarray:
    """[..., 3 or more] red, green, blue to [...] luma, by ITU-R 601-2 (as PIL's `L`, but unrounded)."""
    return colour[..., 0] * 0.299 + colour[..., 1] * 0.587 + colour[..., 2] * 0.114


def scaled(values: np.ndarray, opacity: np.ndarray | None = None) -> Image.Image:
    """[rows, columns] values to 0..255, from their own minimum and maximum; a constant picture is black.

    What has no opacity (0..1, or a mask) takes no part in the range and is black; between, black shows through.

    Raises:
        Refused: values that are not finite, or nothing that is not transparent.
    """
    if opacity is None and values.dtype.kind in "iu" and values.dtype.itemsize <= 2 and values.size:
        # Each number is scaled once: there are thousands of them, and millions of pixels.
        least, most = int(values.min()), int(values.max())
        greys = _to_8_bits(np.arange(least, most + 1, dtype=np.float64), float(least), float(most))
        return Image.fromarray(greys[values.astype(np.int32) - least])
    values = values.astype(np.float64)
    seen = values if opacity is None else values[opacity > 0]
    if not seen.size:
        raise Refused("nothing but padding or transparency")
    if strays := seen.size - np.count_nonzero(np.isfinite(seen)):
        raise Refused(f"{strays:,} pixel values that are not finite (NaN or infinite)")
    low, high = float(seen.min()), float(seen.max())
    if not np.isfinite(high - low):
        raise Refused("pixel values too far apart to be scaled")
    if opacity is None:
        return Image.fromarray(_to_8_bits(values, low, high))
    return Image.fromarray(_to_8_bits(np.where(opacity > 0, values, low), low, high, opacity))


def _to_8_bits(values: np.ndarray, low: float, high: float, opacity: np.ndarray | float = 1.0) -> np.ndarray:
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.round((values - low) * scale * opacity).astype(np.uint8)
