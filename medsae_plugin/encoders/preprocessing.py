"""Images to pixel values, as an encoder's card describes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Fit = Literal["pad", "crop", "stretch"]
Shape = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class Preprocessor:
    """From a PIL image to what the encoder takes; small and picklable, so decoding workers can hold it.

    mode: `L` (one channel, repeated three times) or `RGB`.
    size: side of the square result in pixels, or its (rows, columns).
    fit: `pad` to a black image of the result's aspect first (an image smaller than `size` is padded up to it, not
        enlarged, as MedCLIP's extractor does), `crop` the centre after resizing the shorter edge, or `stretch`.
    resample: a name of `PIL.Image.Resampling`, in lower case.
    mean, std: of pixel values in [0, 1]; one number, or one a channel.
    resize: for `crop`, what the shorter edge is resized to before, where that is not `size`.
    truncate: for `stretch`, resize in float and cut fractions of grey levels off, as torchvision's `ToPILImage` does;
        otherwise they are rounded.
    """

    mode: Literal["L", "RGB"]
    size: int | Shape
    fit: Fit
    resample: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    truncate: bool = False

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Preprocessor:
        """From a card's `preprocessing` (already checked by the card)."""
        size = config["size"]
        size = size if isinstance(size, int) else tuple(size)
        return cls(**{**config, "size": size, "mean": tuple(config["mean"]), "std": tuple(config["std"])})

    @property
    def config(self) -> dict[str, Any]:
        """As a dict that JSON takes; what a store's manifest records."""
        config = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        unset = [key for key in ("resize", "truncate") if not config[key]]
        return {key: value for key, value in config.items() if key not in unset}

    @property
    def shape(self) -> Shape:
        """(rows, columns) of the result."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def to_array(self, image: Image.Image) -> UInt8[np.ndarray, "rows columns *channels"]:
        """The image at the encoder's size: `(rows, columns)` in mode L, `(rows, columns, 3)` in RGB, uint8."""
        resample = Image.Resampling[self.resample.upper()]
        # Grey becomes three channels when it is small: each would be fitted alike, for three times the work.
        image = image if image.mode == "L" else image.convert(self.mode)
        if self.resize is not None:
            fitted = _centre(_cover(image, (self.resize, self.resize), resample), self.shape)
        elif self.truncate:
            channels = [np.asarray(_stretch(c.convert("F"), self.shape, resample)) for c in image.split()]
            cut = [Image.fromarray(c.clip(0, 255).astype(np.uint8)) for c in channels]
            fitted = Image.merge(image.mode, cut)
        else:
            fitted = _FIT[self.fit](image, self.shape, resample)
        return np.asarray(fitted.convert(self.mode))

    def normalize(
        self, arrays: UInt8[np.ndarray, "batch rows columns *channels"]
    ) -> Float[Tensor, "batch 3 rows columns"]:
        """Pixel values of a batch of `to_array`'s results, float32."""
        x = torch.tensor(arrays, dtype=torch.float32).div_(255)
        x = x.unsqueeze(1) if x.ndim == 3 else rearrange(x, "batch rows columns rgb -> batch rgb rows columns")
        x = x.sub_(torch.tensor(self.mean).view(-1, 1, 1)).div_(torch.tensor(self.std).view(-1, 1, 1))
        return x.expand(-1, 3, -1, -1).contiguous()


def _pad(image: Image.Image, shape: Shape, resample: Image.Resampling) -> Image.Image:
    rows, columns = shape
    scale = max(1, image.height / rows, image.width / columns)
    height, width = round(rows * scale), round(columns * scale)
    padded = Image.new(image.mode, (width, height), 0)
    padded.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return padded if (height, width) == shape else padded.resize((columns, rows), resample)


def _crop(image: Image.Image, shape: Shape, resample: Image.Resampling) -> Image.Image:
    return _centre(_cover(image, shape, resample), shape)


def _cover(image: Image.Image, shape: Shape, resample: Image.Resampling) -> Image.Image:
    """The image resized, its aspect kept, to the smallest that covers `shape`."""
    rows, columns = shape
    if image.width * rows >= image.height * columns:
        return image.resize((rows * image.width // image.height, rows), resample)
    return image.resize((columns, columns * image.height // image.width), resample)


def _centre(image: Image.Image, shape: Shape) -> Image.Image:
    rows, columns = shape
    left, top = (image.width - columns) // 2, (image.height - rows) // 2
    return image.crop((left, top, left + columns, top + rows))


def _stretch(image: Image.Image, shape: Shape, resample: Image.Resampling) -> Image.Image:
    return image.resize((shape[1], shape[0]), resample)


_FIT: dict[Fit, Callable[[Image.Image, Shape, Image.Resampling], Image.Image]] = {
    "pad": _pad,
    "crop": _crop,
    "stretch": _stretch,
}
