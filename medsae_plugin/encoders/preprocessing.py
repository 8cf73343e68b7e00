"""Images to pixel values, as an encoder's card describes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Fit = Literal["pad", "crop", "stretch"]


@dataclass(frozen=True)
class Preprocessor:
    """From a PIL image to what the encoder takes; small and picklable, so decoding workers can hold it.

    mode: `L` (one channel, repeated three times) or `RGB`.
    size: side of the square result, in pixels.
    fit: `pad` to a black square first (an image smaller than `size` is padded up to it, not enlarged, as MedCLIP's
        extractor does), `crop` the centre after resizing the shorter edge, or `stretch`.
    resample: a name of `PIL.Image.Resampling`, in lower case.
    mean, std: of pixel values in [0, 1]; one number, or one a channel.
    """

    mode: Literal["L", "RGB"]
    size: int
    fit: Fit
    resample: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Preprocessor:
        """From a card's `preprocessing` (already checked by the card)."""
        return cls(**{**config, "mean": tuple(config["mean"]), "std": tuple(config["std"])})

    @property
    def config(self) -> dict[str, Any]:
        """As a dict that JSON takes; what a store's manifest records."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def to_array(self, image: Image.Image) -> UInt8[np.ndarray, "size size *channels"]:
        """The image at the encoder's size: `(size, size)` in mode L, `(size, size, 3)` in RGB, uint8."""
        image = _FIT[self.fit](image.convert(self.mode), self.size, Image.Resampling[self.resample.upper()])
        return np.asarray(image)

    def normalize(self, arrays: UInt8[np.ndarray, "batch size size *channels"]) -> Float[Tensor, "batch 3 size size"]:
        """Pixel values of a batch of `to_array`'s results, float32."""
        x = torch.tensor(arrays, dtype=torch.float32).div_(255)
        x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)
        x = x.sub_(torch.tensor(self.mean).view(-1, 1, 1)).div_(torch.tensor(self.std).view(-1, 1, 1))
        return x.expand(-1, 3, -1, -1).contiguous()


def _pad(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    side = max(size, *image.size)
    square = Image.new(image.mode, (side, side), 0)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square if side == size else square.resize((size, size), resample)


def _crop(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    short = min(image.size)
    width, height = (size * side // short for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), resample).crop((left, top, left + size, top + size))


def _stretch(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    return image.resize((size, size), resample)


_FIT: dict[Fit, Callable[[Image.Image, int, Image.Resampling], Image.Image]] = {
    "pad": _pad,
    "crop": _crop,
    "stretch": _stretch,
}
