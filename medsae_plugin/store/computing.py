"""The precision of an extraction's forward passes: chosen once for a store, and kept to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from medsae_plugin.errors import MedSAEError
from medsae_plugin.machine import to_device
from medsae_plugin.precision import AUTO, BF16, FP32, Agreement, Precision
from medsae_plugin.store import layout
from medsae_plugin.store.decoding import Request, decode

if TYPE_CHECKING:
    import numpy as np

    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.encoders import HookedVisionEncoder
    from medsae_plugin.store.positions import PositionPolicy

CHECKED_IMAGES = 32
_BF16_DTYPE = "bfloat16 autocast"  # in a manifest, where fp32 is the encoder's own dtype


def manifest_dtype(encoder: HookedVisionEncoder, precision: Precision) -> str:
    """What a manifest says that the encoder computed in: `float32`, or `bfloat16 autocast`."""
    return _BF16_DTYPE if precision.name == BF16 else str(encoder.dtype).removeprefix("torch.")


def precision_of_store(store: Path) -> str | None:
    """The precision of the store that a folder holds, finished or not; None where it holds none."""
    if not (store / layout.MANIFEST).is_file():
        return None
    return BF16 if layout.read_manifest(store).encoder.dtype == _BF16_DTYPE else FP32


def choose(
    asked: str,
    store: Path,
    encoder: HookedVisionEncoder,
    images: ImageTable,
    hooks: Sequence[str],
    policy: PositionPolicy,
    seed: int,
    batch_size: int,
) -> Precision:
    """The precision that `asked` (auto, fp32 or bf16) comes to for a store that is begun or gone on with.

    `auto` goes on in the store's. Else it takes bfloat16 if the chip computes in it and what would be stored of the
    first images is as near to float32 as `precision.LEAST_COSINE` and `precision.MOST_NOISE` say.

    Raises:
        MedSAEError: no such precision; the store is of another; an encoder that is not in float32 itself, and more is
            asked for than that.
    """
    chosen = Precision.asked(asked, encoder.device)
    if encoder.dtype != torch.float32 and asked != FP32:
        raise MedSAEError(f"precision {asked} is of encoders in float32; {encoder.name} is in {encoder.dtype} itself")
    if (there := precision_of_store(store)) is not None:
        if asked not in (AUTO, there):
            raise MedSAEError(
                f"{store} was begun in {there}, and a store is of one precision throughout; choose another folder, or "
                f"--precision {there} (or auto, which goes on in the store's)"
            )
        return Precision(there, "auto: as the store was begun" if asked == AUTO else "")
    return chosen or _checked(encoder, images, list(hooks), policy, seed, batch_size)


def _checked(
    encoder: HookedVisionEncoder,
    images: ImageTable,
    hooks: list[str],
    policy: PositionPolicy,
    seed: int,
    batch_size: int,
) -> Precision:
    """What `auto` takes, by the first images that can be read."""
    agreements, left = {hook: Agreement() for hook in hooks}, CHECKED_IMAGES
    size = min(batch_size, CHECKED_IMAGES)
    requests = (Request(0, range(len(images))[first : first + size], False) for first in range(0, len(images), size))
    for batch in decode(images.root, images.frame["path"].tolist(), encoder.preprocessor, requests, 0):
        if batch.arrays is None:
            continue
        rows: dict[str, list[torch.Tensor]] = {hook: [] for hook in hooks}
        for name in (FP32, BF16):
            with computing_in(encoder, name):
                found = activations_of(encoder, batch.arrays, hooks)
            for hook in hooks:
                rows[hook].append(policy.select(found[hook], encoder.hook_specs[hook], batch.image_ids, seed)[0])
        for hook, (exact, coarse) in rows.items():
            agreements[hook].add(exact, coarse)
        left -= len(batch.image_ids)
        if left <= 0:
            break
    return Precision.checked(agreements.values())


def activations_of(encoder: HookedVisionEncoder, arrays: np.ndarray, hooks: Sequence[str]) -> dict[str, torch.Tensor]:
    """The activations at `hooks` of decoded images, never in less than float32 unless the encoder itself is."""
    pixels = to_device(encoder.preprocessor.normalize(arrays), encoder.device)
    found = encoder.activations(pixels, list(hooks))
    return {name: x.float() if encoder.dtype == torch.float32 else x for name, x in found.items()}


@contextmanager
def computing_in(encoder: HookedVisionEncoder, name: str) -> Iterator[None]:
    """Around an encoder's forward passes: `bf16` by autocast, its convolutions channels last; `fp32` without TF32.

    torch lets a GPU's convolutions round float32 to TF32 unless told otherwise.
    """
    tf32 = torch.backends.cudnn.allow_tf32
    try:
        if name == BF16:
            encoder.vision_model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            with torch.autocast(encoder.device.type, torch.bfloat16):
                yield
        else:
            torch.backends.cudnn.allow_tf32 = False
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        if name == BF16:
            encoder.vision_model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
