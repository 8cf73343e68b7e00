"""Maps of units over pixels, through the encoder: gradient times activation, and occlusion with a stride.

They are for hooks that carry one activation an image, and do at others for the unit's activation on the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from medsae_plugin.data.images import UnreadableImage, read_image
from medsae_plugin.encoders import HookedVisionEncoder
from medsae_plugin.encoders.preprocessing import Shape
from medsae_plugin.errors import MedSAEError
from medsae_plugin.localisation.places import Batch, Wanted, check_finite
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import Aggregate
from medsae_plugin.scores.units import Latents, Units
from medsae_plugin.store.reader import ActivationStore

Attribution = Literal["gradient", "occlusion"]

LEAST_STRIDE = 16


def default_stride(shape: Shape) -> int:
    """The least number of pixels from `LEAST_STRIDE` that divides an input's rows and columns."""
    both = math.gcd(*shape)
    return next(n for n in range(min(LEAST_STRIDE, both), both + 1) if both % n == 0)


@dataclass(frozen=True)
class AttributedMaps:
    """Of each cell of `stride` pixels a side what it adds to a unit's activation on the image.

    method: `gradient`, the sum over the cell of pixel value times gradient (of pixel values as the encoder takes them,
        so that what is as grey as the card's mean adds nothing). `occlusion`, by how much the activation falls where a
        window of two cells a side is made that grey: the mean over the four windows that have the cell.
    aggregate: the activation at a hook with positions: `max` or `mean` over them.
    """

    encoder: HookedVisionEncoder
    store: ActivationStore
    images: LabelledImages
    method: Attribution
    stride: int
    aggregate: Aggregate = "max"
    batch_size: int = 16
    progress: bool = True

    @classmethod
    def of(
        cls,
        encoder: HookedVisionEncoder,
        store: ActivationStore,
        images: LabelledImages,
        method: Attribution,
        stride: int | None = None,
        aggregate: Aggregate = "max",
        progress: bool = True,
    ) -> AttributedMaps:
        """Of the encoder that a store is of.

        Raises:
            MedSAEError: it is of another, or of images that were prepared otherwise; a stride that does not divide the
                encoder's input.
        """
        shape = encoder.preprocessor.shape
        stride = default_stride(shape) if stride is None else stride
        if stride < 1 or any(side % stride for side in shape):
            raise MedSAEError(f"a stride of {stride} pixels does not divide an input of {shape[0]} x {shape[1]} pixels")
        if store.weights_sha256 != encoder.weights_sha256:
            raise MedSAEError(f"{store.path} is of {store.encoder_name} with other weights than {encoder.title} has")
        if dict(store.preprocessing) != encoder.preprocessing:
            raise MedSAEError(f"{store.path} has images that were prepared otherwise than {encoder.title} does")
        return cls(encoder, store, images, method, stride, aggregate, progress=progress)

    def check(self, hook: str) -> None:
        """Raises MedSAEError at a hook that the encoder has not, or of which the store keeps some positions."""
        if hook not in self.encoder.hook_specs:
            raise MedSAEError(f"{self.encoder.title} has no hook {hook!r}")
        spec = self.encoder.hook_specs[hook]
        if self.store.hooks[hook].rows_per_image != spec.n_positions:
            raise MedSAEError(
                f"{self.store.path} keeps {self.store.manifest.positions!r} of the positions of {hook}, so units "
                "were chosen on another activation than attribution has; extract with --positions all"
            )

    def cells(self, hook: str) -> Shape:
        rows, columns = self.encoder.preprocessor.shape
        return rows // self.stride, columns // self.stride

    def _pixels(self, images: list[int]) -> Float[Tensor, "batch 3 rows columns"]:
        """The pixel values of these images, on the encoder's device.

        Raises:
            MedSAEError: one that cannot be read any more.
        """
        arrays = []
        for row in images:
            try:
                arrays.append(self.encoder.preprocessor.to_array(read_image(self.images.path(row))))
            except UnreadableImage as error:
                path = self.images.frame["path"].iloc[row]
                raise MedSAEError(
                    f"{path} was read when its activations were stored, and cannot be now: {error}"
                ) from None
        return self.encoder.preprocessor.normalize(np.stack(arrays)).to(self.encoder.device, self.encoder.dtype)

    def batches(self, hook: str, wanted: Wanted, rows: Int[np.ndarray, " images"]) -> Iterator[Batch]:
        made = self._gradients if self.method == "gradient" else self._occlusions
        with tqdm(total=len(rows), desc=f"{self.method} at {hook}", unit="image", disable=not self.progress) as bar:
            for first in range(0, len(rows), self.batch_size):
                mine = slice(first, min(first + self.batch_size, len(rows)))
                pixels = self._pixels(rows[mine].tolist())
                yield mine, [check_finite(maps.float().cpu().numpy()) for maps in made(hook, wanted, pixels)]
                bar.update(len(pixels))

    def _gradients(
        self, hook: str, wanted: Wanted, pixels: Float[Tensor, "batch 3 _ _"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        pixels.requires_grad_()
        with torch.enable_grad():
            activations = self.encoder(pixels, stop_at_hook=hook)
            fired = [self._on_image(activations, one, which) for one, which in wanted]
            made = []
            for values in fired:
                grids = []
                for unit in values.unbind(1):
                    # An image's activation hangs on its own pixels alone, so that the sum over images has each's own.
                    (gradient,) = torch.autograd.grad(unit.sum(), pixels, retain_graph=True)
                    grids.append(self._summed((gradient * pixels).detach().float()))
                made.append(torch.stack(grids, dim=1) if grids else torch.zeros(len(pixels), 0, *self.cells(hook)))
        return made

    @torch.no_grad()
    def _occlusions(
        self, hook: str, wanted: Wanted, pixels: Float[Tensor, "batch 3 _ _"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        (rows, columns), s = self.cells(hook), self.stride
        whole = [self._on_image(self.encoder(pixels, stop_at_hook=hook), *each) for each in wanted]
        falls = [torch.zeros(*values.shape, rows + 2, columns + 2, device=values.device) for values in whole]
        # Of two cells a side, from one that has the outermost cell as its last to one that has it as its first.
        for r in range(-1, rows):
            for c in range(-1, columns):
                hidden = pixels.clone()
                hidden[..., max(r, 0) * s : (r + 2) * s, max(c, 0) * s : (c + 2) * s] = 0
                activations = self.encoder(hidden, stop_at_hook=hook)
                for fall, values, each in zip(falls, whole, wanted, strict=True):
                    change = (values - self._on_image(activations, *each)).float()
                    fall[..., r + 1 : r + 3, c + 1 : c + 3] += change[..., None, None] / 4
        return [fall[..., 1:-1, 1:-1] for fall in falls]

    def _summed(self, pixels: Float[Tensor, "batch 3 _ _"]) -> Float[Tensor, "batch _ _"]:
        side = {"h": self.stride, "w": self.stride}
        return reduce(pixels, "batch colour (rows h) (columns w) -> batch rows columns", "sum", **side)

    def _on_image(
        self, activations: Float[Tensor, "batch *position d"], units: Units, which: Sequence[int]
    ) -> Float[Tensor, "batch units"]:
        """Some units' activations on each image, with their graph."""
        by_position = activations[:, None] if activations.ndim == 2 else activations
        rows = rearrange(by_position, "image position d -> (image position) d").float()
        # `Latents.encode` keeps no gradients.
        fired = units.sae.encode(rows.to(units.sae.device)) if isinstance(units, Latents) else units.encode(rows)
        fired = rearrange(fired[:, list(which)], "(image position) unit -> image position unit", image=len(activations))
        return fired.amax(1) if self.aggregate == "max" else fired.mean(1)
