"""Raw activations as one vector an image, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from medsae_plugin.store import ActivationStore

_CHUNK_ELEMENTS = 2**22


def image_means(
    store: ActivationStore, hook: str, chunk: int | None = None
) -> Iterator[tuple[slice, Float[np.ndarray, "images d"]]]:
    """The mean over positions of each readable image at a hook, float64, in the order of `readable_images`.

    Args:
        chunk: images at a time; default as many as fit 32 MiB.
    """
    info = store.hooks[hook]
    chunk = chunk or chunk_images(store, [hook])
    for first in range(0, len(store.readable_images), chunk):
        rows = slice(first, min(first + chunk, len(store.readable_images)))
        x = store.image_rows(hook, rows).double().numpy()
        yield rows, x.reshape(-1, info.rows_per_image, info.d).mean(1)


def chunk_images(store: ActivationStore, hooks: list[str]) -> int:
    """How many images at a time fit in memory at the widest of these hooks."""
    return max(1, _CHUNK_ELEMENTS // max(store.hooks[hook].d * store.hooks[hook].rows_per_image for hook in hooks))
