"""Images to pixel values, as an encoder's card describes it."""

from __future__ import annotations

from collections.abc import Mapping
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
class Framing:
    """How an image becomes an encoder's input: laid on a black canvas, which is resized, of which a part is cut out.

    Pixels go this way, and so does what lies on them: masks, boxes, and heatmaps on their way back. Coordinates are
    continuous, (column, row): 0 is the outer edge of the first pixel, 1 that between it and the second.

    canvas, resized, shape: (rows, columns) of the canvas, of the canvas resized, and of the input.
    at: (top, left), in pixels, of the image on the canvas.
    cut: (top, left) of the input in the resized canvas; negative where the input is larger, and black there.
    """

    canvas: Shape
    at: Shape
    resized: Shape
    cut: Shape
    shape: Shape

    def pixels(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        """The image as the input has it."""
        (height, width), (top, left) = self.canvas, self.at
        if image.size != (width, height):
            padded = Image.new(image.mode, (width, height), 0)
            padded.paste(image, (left, top))
            image = padded
        if self.resized != self.canvas:
            image = image.resize((self.resized[1], self.resized[0]), resample)
        if self.resized != self.shape:
            (rows, columns), (top, left) = self.shape, self.cut
            image = image.crop((left, top, left + columns, top + rows))
        return image

    def to_input(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Points (column, row) of the image, as points of the input; outside its pixels where they are cut off."""
        return (points + self._at) * self._scale - self._cut

    def to_image(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Points (column, row) of the input, as points of the image; outside its pixels where the input is padding."""
        return (points + self._cut) / self._scale - self._at

    def boxes_to_input(self, boxes: Float[np.ndarray, "boxes 4"]) -> Float[np.ndarray, "boxes 4"]:
        """Boxes (left, top, right, bottom) as the input has them: cut at its edges, empty where they are beyond."""
        corners = self.to_input(boxes.reshape(-1, 2, 2)).clip(0, [self.shape[1], self.shape[0]])
        return corners.reshape(-1, 4)

    def edges(self, cells: Shape | None = None) -> tuple[Float[np.ndarray, " rows_1"], Float[np.ndarray, " columns_1"]]:
        """Where, in the image's pixels, the edges of the input's cells are: of its rows, and of its columns.

        Args:
            cells: rows and columns that the input is divided in, such as a hook's grid; default its pixels.
        """
        rows, columns = cells or self.shape
        down, across = np.linspace(0, self.shape[0], rows + 1), np.linspace(0, self.shape[1], columns + 1)
        on_rows = self.to_image(np.stack([np.zeros_like(down), down], axis=1))
        on_columns = self.to_image(np.stack([across, np.zeros_like(across)], axis=1))
        return on_rows[:, 1], on_columns[:, 0]

    @property
    def _at(self) -> Float[np.ndarray, "2"]:
        return np.array(self.at[::-1], dtype=np.float64)

    @property
    def _cut(self) -> Float[np.ndarray, "2"]:
        return np.array(self.cut[::-1], dtype=np.float64)

    @property
    def _scale(self) -> Float[np.ndarray, "2"]:
        return np.array(self.resized[::-1], dtype=np.float64) / self.canvas[::-1]


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
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessor:
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
        framing = self.framing((image.height, image.width))
        if self.truncate:
            channels = [np.asarray(framing.pixels(c.convert("F"), resample)) for c in image.split()]
            cut = [Image.fromarray(c.clip(0, 255).astype(np.uint8)) for c in channels]
            fitted = Image.merge(image.mode, cut)
        else:
            fitted = framing.pixels(image, resample)
        return np.asarray(fitted.convert(self.mode))

    def framing(self, image: Shape) -> Framing:
        """Where an image of these rows and columns lies in the result."""
        if self.resize is not None:
            return _crop(image, (self.resize, self.resize), self.shape)
        if self.fit == "crop":
            return _crop(image, self.shape, self.shape)
        if self.fit == "pad":
            return _pad(image, self.shape)
        return Framing(image, (0, 0), self.shape, (0, 0), self.shape)

    def normalize(
        self, arrays: UInt8[np.ndarray, "batch rows columns *channels"]
    ) -> Float[Tensor, "batch 3 rows columns"]:
        """Pixel values of a batch of `to_array`'s results, float32."""
        x = torch.tensor(arrays, dtype=torch.float32).div_(255)
        x = x.unsqueeze(1) if x.ndim == 3 else rearrange(x, "batch rows columns rgb -> batch rgb rows columns")
        x = x.sub_(torch.tensor(self.mean).view(-1, 1, 1)).div_(torch.tensor(self.std).view(-1, 1, 1))
        return x.expand(-1, 3, -1, -1).contiguous()


def _pad(image: Shape, shape: Shape) -> Framing:
    scale = max(1, image[0] / shape[0], image[1] / shape[1])
    canvas = round(shape[0] * scale), round(shape[1] * scale)
    at = (canvas[0] - image[0]) // 2, (canvas[1] - image[1]) // 2
    return Framing(canvas, at, shape, (0, 0), shape)


def _crop(image: Shape, covered: Shape, shape: Shape) -> Framing:
    """The image resized, its aspect kept, to the smallest that covers `covered`, and its centre cut out."""
    (height, width), (rows, columns) = image, covered
    if width * rows >= height * columns:
        resized = rows, rows * width // height
    else:
        resized = columns * height // width, columns
    cut = (resized[0] - shape[0]) // 2, (resized[1] - shape[1]) // 2
    return Framing(image, (0, 0), resized, cut, shape)
