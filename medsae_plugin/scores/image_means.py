"""Activations as one vector an image, streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float

from medsae_plugin.store.reader import ActivationStore

_CHUNK_ELEMENTS = 2**22


def image_means(
    store: ActivationStore,
    hook: str,
    chunk: int | None = None,
    through: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Iterator[tuple[slice, Float[np.ndarray, "images d"]]]:
    """The mean over positions of each readable image at a hook, float64, in the order of `readable_images`.

    Args:
        chunk: images at a time; default as many as fit 32 MiB.
        through: what stands in for the rows, such as an SAE's reconstruction of them.
    """
    per_image, n = store.hooks[hook].rows_per_image, len(store.readable_images)
    chunk = chunk or chunk_images(store, [hook])
    for first in range(0, n, chunk):
        rows = slice(first, min(first + chunk, n))
        given = store.image_rows(hook, rows)
        x = (given if through is None else through(given)).double().numpy()
        yield rows, x.reshape(-1, per_image, x.shape[-1]).mean(1)


def chunk_images(store: ActivationStore, hooks: list[str]) -> int:
    """How many images at a time fit in memory at the widest of these hooks."""
    return max(1, _CHUNK_ELEMENTS // max(store.hooks[hook].d * store.hooks[hook].rows_per_image for hook in hooks))
