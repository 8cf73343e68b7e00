"""What each hook point of an encoder carries, found by one forward pass that computes no number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call

from medsae_plugin.encoders.root import HookedRoot
from medsae_plugin.errors import MedSAEError

Grid = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class HookSpec:
    """What a hook point carries: `(batch, n_positions, d)`, or `(batch, d)` where `grid` is None.

    The positions are `n_prefix` prefix tokens (CLS, registers) and then the `grid` of (rows, columns), row by row.
    """

    name: str
    d: int
    grid: Grid | None
    n_prefix: int = 0

    @property
    def is_image_level(self) -> bool:
        return self.grid is None

    @property
    def n_positions(self) -> int:
        return 1 if self.grid is None else self.n_prefix + math.prod(self.grid)


class CannotRun(MedSAEError):
    """The model's forward pass fails on an image of the card's size."""


@torch.no_grad()
def measure(encoder: HookedRoot, shape: Grid, n_prefix: int) -> dict[str, HookSpec]:
    """Every hook point's shape, for an image of `shape` (rows, columns), in the order of the forward pass.

    The pass runs on the meta device, where tensors have shapes and no values, so its cost does not grow with the
    model; a model that cannot run there sees one black image.

    Raises:
        CannotRun: the model cannot take the card's images.
        MedSAEError: positions that are no grid, or activations of another layout than their row says.
    """
    pixels = torch.zeros(1, 3, *shape)
    try:
        return _shapes(encoder, shape, n_prefix, lambda: _on_meta(encoder, pixels))
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, MedSAEError):
            raise
    try:
        return _shapes(encoder, shape, n_prefix, lambda: encoder(pixels))
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError, KeyError) as error:
        if isinstance(error, MedSAEError):
            raise
        raise CannotRun(f"{encoder.name} cannot take an image of {shape[0]} x {shape[1]} pixels: {error}") from None


def _on_meta(encoder: HookedRoot, pixels: Tensor) -> None:
    tensors = chain(encoder.named_parameters(), encoder.named_buffers())
    functional_call(encoder, {name: t.to("meta") for name, t in tensors}, (pixels.to("meta"),))


def _shapes(encoder: HookedRoot, shape: Grid, n_prefix: int, run: Callable[[], object]) -> dict[str, HookSpec]:
    rows, columns = shape
    specs: dict[str, HookSpec] = {}
    grids: dict[int, Grid] = {}  # by their count of positions, of the convolutions that have run: of the patches too

    def note_grid(module: nn.Module, args: object, output: Tensor) -> None:
        grid = (int(output.shape[-2]), int(output.shape[-1]))
        grids.setdefault(math.prod(grid), grid)

    def note(activation: Tensor, hook: object) -> None:
        name, n, d = str(getattr(hook, "name", "")), activation.shape[1], activation.shape[-1]
        if activation.numel() == 0:  # an older torch convolves an image that is smaller than the kernel, on meta
            raise ValueError(f"{name} carries nothing")
        if activation.ndim == 2:
            specs[name] = HookSpec(name, d, None)
            return
        if activation.ndim != 3:
            raise MedSAEError(f"{name} carries {activation.ndim} axes, not (batch, position, d); is its layout map?")
        if grid := encoder.map_grids.get(name):
            specs[name] = HookSpec(name, d, grid)
            return
        # A hidden state whose tokens lost their prefix, or a pooled one, has none.
        for prefix in dict.fromkeys((n_prefix, 0)):
            if grid := grids.get(n - prefix) or _grid_of_aspect(n - prefix, rows / columns):
                specs[name] = HookSpec(name, d, grid, prefix)
                return
        raise MedSAEError(
            f"{name} has {n} positions, which are {n_prefix} prefix tokens and no grid of the aspect {rows} x {columns}"
        )

    convolutions = [m for m in encoder.vision_model.modules() if isinstance(m, nn.Conv2d)]
    handles = [m.register_forward_hook(note_grid) for m in convolutions]
    try:
        with encoder.hooks(fwd_hooks=[(name, note) for name in encoder.hook_dict]):
            run()
    finally:
        for handle in handles:
            handle.remove()
    return specs


def _grid_of_aspect(n: int, aspect: float) -> Grid | None:
    """The grid of `n` positions whose rows are `aspect` times its columns, if there is one."""
    rows = round(math.sqrt(n * aspect)) if n > 0 else 0
    return (rows, n // rows) if rows and n % rows == 0 and round(n // rows * aspect) == rows else None
