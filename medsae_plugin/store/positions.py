"""Which of a hook's positions are stored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float

from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.encoders import HookSpec


_ROWS = "image position d -> (image position) d"


@dataclass(frozen=True)
class PositionPolicy:
    """Which positions of each image a store keeps. An image-level hook keeps its one row under any policy.

    - `all`: every position, prefix tokens included.
    - `cls`: the first prefix token.
    - `mean`: the mean over the positions that are not prefix tokens.
    - `sample`: `n` positions drawn without replacement, in ascending order. The draw depends on the seed and the
      image's id alone: neither on batches and shards nor on the hook, so hooks with as many positions keep the same
      ones. A hook with `n` positions or fewer keeps all.
    """

    kind: Literal["all", "cls", "mean", "sample"]
    n: int = 0

    def __str__(self) -> str:
        return f"sample:{self.n}" if self.kind == "sample" else self.kind

    def check(self, spec: HookSpec) -> None:
        """Raises MedSAEError where the hook has no such position."""
        if self.kind == "cls" and not spec.is_image_level and spec.n_prefix == 0:
            raise MedSAEError(f"positions 'cls': {spec.name} has no prefix token; use 'mean' or 'all'")

    def rows_per_image(self, spec: HookSpec) -> int:
        """How many rows the hook stores of each image."""
        if spec.is_image_level or self.kind in ("cls", "mean"):
            return 1
        return min(self.n, spec.n_positions) if self.kind == "sample" else spec.n_positions

    def select(
        self, activations: Float[torch.Tensor, "batch *position d"], spec: HookSpec, image_ids: Sequence[int], seed: int
    ) -> tuple[Float[torch.Tensor, "rows d"], np.ndarray]:
        """The rows to store, image after image, and the position of each.

        The position is 0 at an image-level hook, and -1 for a mean, which has none.
        """
        if spec.is_image_level:
            return activations, np.zeros(len(image_ids), np.int32)
        if self.kind == "mean":
            return activations[:, spec.n_prefix :].mean(1), np.full(len(image_ids), -1, np.int32)
        if self.kind == "cls":
            return activations[:, 0], np.zeros(len(image_ids), np.int32)
        if self.rows_per_image(spec) == spec.n_positions:
            return rearrange(activations, _ROWS), np.tile(np.arange(spec.n_positions, dtype=np.int32), len(image_ids))
        chosen = np.stack([self._draw(spec.n_positions, seed, image) for image in image_ids])
        picked = torch.from_numpy(chosen).to(activations.device)
        batch = torch.arange(len(image_ids), device=activations.device)[:, None]
        return rearrange(activations[batch, picked], _ROWS), chosen.reshape(-1).astype(np.int32)

    def _draw(self, n_positions: int, seed: int, image: int) -> np.ndarray:
        return np.sort(np.random.default_rng([seed, image]).choice(n_positions, self.n, replace=False))


def parse_positions(text: str) -> PositionPolicy:
    """`all`, `cls`, `mean` or `sample:N`. Raises MedSAEError for anything else."""
    if text in ("all", "cls", "mean"):
        return PositionPolicy(text)  # type: ignore[arg-type]
    sample = re.fullmatch(r"sample:([1-9][0-9]*)", text)
    if sample is None:
        raise MedSAEError(f"positions {text!r}: use all, cls, mean or sample:N with N of at least 1")
    return PositionPolicy("sample", int(sample[1]))
