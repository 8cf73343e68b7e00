"""Images changed in ways that leave the findings in them: what an encoder sees of each."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from medsae_plugin.encoders.preprocessing import Preprocessor

DEGREES, CROPPED, WINDOW, NOISE, MASKED, CELL = 5.0, 0.05, 0.8, 0.05, 0.5, 16
Pixels = UInt8[np.ndarray, "rows columns *channels"]

PERTURBATIONS = {
    "masked": f"{MASKED:.0%} of the input's cells of about {CELL} x {CELL} pixels made as grey as its mean",
    "noise": f"Gaussian noise of {NOISE:.0%} of the grey range added to the input",
    "rotated": f"the image turned by {DEGREES:g} degrees against the clock, black where nothing is",
    "mirrored": "left and right of the image exchanged",
    "cropped": f"{CROPPED:.0%} of the image cut off at each of its four edges",
    "window": f"the middle {WINDOW:.0%} of the grey range stretched over the whole, what is beyond black or white",
}
"""Each perturbation by name, in words. The first two are of the encoder's input, the others of the image before it."""


@dataclass(frozen=True)
class Variants:
    """In the place of a preprocessor: an image as the encoder takes it, and each of its perturbations.

    What is drawn follows from the seed and the image's own pixels, so neither batches nor workers change it.
    """

    preprocessor: Preprocessor
    names: tuple[str, ...]
    seed: int = 0

    def to_array(self, image: Image.Image) -> UInt8[np.ndarray, "variants rows columns *channels"]:
        """The image unchanged, then each perturbation of `names`."""
        plain = self.preprocessor.to_array(image)
        own = zlib.crc32(plain.tobytes())
        made = [plain]
        for name in self.names:
            rng = np.random.default_rng([self.seed, own, list(PERTURBATIONS).index(name)])
            if name == "masked":
                made.append(masked(plain, rng))
            elif name == "noise":
                made.append(noised(plain, rng))
            else:
                made.append(self.preprocessor.to_array(_ON_IMAGE[name](image)))
        return np.stack(made)


def masked(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Half of the cells, rounded down, drawn without replacement, made as grey as the mean of the whole."""
    edges = [np.linspace(0, side, max(round(side / CELL), 1) + 1).round().astype(int) for side in pixels.shape[:2]]
    rows, columns = (len(e) - 1 for e in edges)
    hidden = np.zeros(rows * columns, dtype=bool)
    hidden[rng.choice(rows * columns, math.floor(MASKED * rows * columns), replace=False)] = True
    mask = hidden.reshape(rows, columns).repeat(np.diff(edges[0]), 0).repeat(np.diff(edges[1]), 1)
    made = pixels.copy()
    made[mask] = pixels.mean((0, 1)).round().astype(np.uint8)
    return made


def noised(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """The same noise in every channel, for radiographs are grey."""
    drawn = rng.normal(scale=255 * NOISE, size=pixels.shape[:2])
    drawn = drawn[..., None] if pixels.ndim == 3 else drawn
    return (pixels + drawn).round().clip(0, 255).astype(np.uint8)


def rotated(image: Image.Image) -> Image.Image:
    return image.rotate(DEGREES, resample=Image.Resampling.BILINEAR)


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def cropped(image: Image.Image) -> Image.Image:
    across, down = round(CROPPED * image.width), round(CROPPED * image.height)
    return image.crop((across, down, image.width - across, image.height - down))


def windowed(image: Image.Image) -> Image.Image:
    """As a window that is narrower about the same middle."""
    grey = (np.arange(256) - 127.5) / WINDOW + 127.5
    table = grey.round().clip(0, 255).astype(int).tolist()
    return image.point(table * len(image.getbands()))


_ON_IMAGE = {"rotated": rotated, "mirrored": mirrored, "cropped": cropped, "window": windowed}


def checked(names: Sequence[str]) -> tuple[str, ...]:
    """Names of perturbations, in the order of `PERTURBATIONS`.

    Raises:
        MedSAEError: there is none of such a name, or none is asked for.
    """
    from medsae_plugin.errors import MedSAEError

    if unknown := [name for name in names if name not in PERTURBATIONS]:
        raise MedSAEError(f"there is no perturbation {unknown[0]!r}; there are {', '.join(PERTURBATIONS)}")
    if not names:
        raise MedSAEError(f"say which perturbations: {', '.join(PERTURBATIONS)}")
    return tuple(name for name in PERTURBATIONS if name in names)
