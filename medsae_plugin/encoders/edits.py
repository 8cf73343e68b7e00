"""Edits of single latents during a forward pass: ablate, clamp, scale, steer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medsae_plugin.errors import MedSAEError


@dataclass(frozen=True, eq=False)
class LatentEdit:
    """What a latent's activations become. Make one with `ablate`, `clamp`, `scale` or `steer`.

    `value` and `where` are one for all, or tensors: `(batch,)` tells images apart, `(batch, position)` positions too,
    `(1, position)` positions alone. Where `where` is False nothing changes.
    """

    kind: Literal["clamp", "scale", "steer"]
    value: int | float | Float[Tensor, "..."]
    where: Bool[Tensor, "..."] | None = None

    def __call__(self, activations: Float[Tensor, "batch *position"]) -> Float[Tensor, "batch *position"]:
        """The activations of one latent after the edit.

        Raises:
            MedSAEError: a value or mask whose shape does not fit.
        """
        value = _fitted(self.value, activations)
        edited = {
            "clamp": lambda: value.expand_as(activations),
            "scale": lambda: activations * value,
            "steer": lambda: activations + value,
        }[self.kind]()
        if self.where is None:
            return edited
        return torch.where(_fitted(self.where, activations).bool(), edited, activations)


def ablate(where: Bool[Tensor, "..."] | None = None) -> LatentEdit:
    """The latent is silent."""
    return clamp(0.0, where)


def clamp(value: int | float | Float[Tensor, "..."], where: Bool[Tensor, "..."] | None = None) -> LatentEdit:
    """The latent has this activation, whether it would have fired or not (Templeton et al. 2024)."""
    return LatentEdit("clamp", value, where)


def scale(factor: int | float | Float[Tensor, "..."], where: Bool[Tensor, "..."] | None = None) -> LatentEdit:
    """The latent's activation times a factor."""
    return LatentEdit("scale", factor, where)


def steer(amount: int | float | Float[Tensor, "..."], where: Bool[Tensor, "..."] | None = None) -> LatentEdit:
    """The latent's activation plus an amount: the hook's activation moves along the latent's decoder direction."""
    return LatentEdit("steer", amount, where)


def editing_hook(edits: Mapping[int, LatentEdit]) -> Callable[..., Float[Tensor, "batch *position d_sae"]]:
    """A forward hook for `hook_sae_acts_post` that edits these latents."""

    def edit(latents: Tensor, hook: Any) -> Tensor:
        edited = latents.clone()
        for index, change in edits.items():
            edited[..., index] = change(latents[..., index])
        return edited

    return edit


def _fitted(value: int | float | Tensor, activations: Tensor) -> Tensor:
    value = torch.as_tensor(value, device=activations.device)
    if value.dtype != torch.bool:
        value = value.to(activations.dtype)
    given = tuple(value.shape)
    if value.ndim == 1 and activations.ndim == 2:
        value = value[:, None]
    try:
        fits = torch.broadcast_shapes(value.shape, activations.shape) == activations.shape
    except RuntimeError:
        fits = False
    if not fits or (value.ndim and value.ndim != activations.ndim):
        axes = ("batch", "position")[: activations.ndim]
        raise MedSAEError(
            f"an edit of shape {given} does not fit latents of ({', '.join(axes)}) = {tuple(activations.shape)}"
        )
    return value
