"""What an extraction will take, before it starts: disk and memory from shapes alone, time from its first batches."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medsae_plugin.errors import MedSAEError
from medsae_plugin.precision import FP32, Precision
from medsae_plugin.store.layout import HookInfo
from medsae_plugin.text import byte_size, clock

_PLACE_BYTES = 8  # of each row's image and position
_FP32 = Precision(FP32)
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class ExtractionPlan:
    """What an extraction will take.

    hooks: as the store will describe them.
    images, images_left: of the table, and those whose shards are not there yet.
    per_shard: images a shard.
    free: bytes on the disk of the store's folder; None where the system does not tell.
    weights: bytes of the encoder; decoded: bytes of the decoded images that wait for it.
    precision: what the encoder computes in.
    seconds: for the images left, as the first batches went; None where none was tried. peak: bytes that this process
        had at most until then; None where that is not known.
    """

    hooks: Mapping[str, HookInfo]
    images: int
    images_left: int
    per_shard: int
    free: int | None
    weights: int = 0
    decoded: int = 0
    precision: Precision = _FP32
    seconds: float | None = None
    peak: int | None = None

    @property
    def image_bytes(self) -> int:
        """What an image takes on disk: its rows, and where each is from."""
        return sum(
            info.rows_per_image * (info.d * _DTYPE_BYTES[info.dtype] + _PLACE_BYTES) for info in self.hooks.values()
        )

    @property
    def bytes(self) -> int:
        """What the whole store takes on disk."""
        return self.images * self.image_bytes

    @property
    def bytes_left(self) -> int:
        """What is still to be written."""
        return self.images_left * self.image_bytes

    @property
    def memory(self) -> int:
        """Bytes, without what the forward pass itself takes: the encoder, two shards, the images that are decoded."""
        return self.weights + 2 * min(self.per_shard, self.images) * self.image_bytes + self.decoded

    def __str__(self) -> str:
        (dtype,) = {info.dtype for info in self.hooks.values()}
        hooks, rows = len(self.hooks), sum(info.rows_per_image for info in self.hooks.values())
        what = f"{self.images:,} images, {_several(hooks, 'hook')}, {_several(rows, 'row')} an image"
        done = "" if self.images_left == self.images else f", of which {byte_size(self.bytes_left)} are to be written"
        parts = [
            f"{what}: {byte_size(self.bytes)} on disk as {dtype}{done}",
            str(self.precision),
            "free space unknown" if self.free is None else f"{byte_size(self.free)} free",
            f"memory {byte_size(self.memory)} and the forward pass",
        ]
        if self.seconds is not None:
            peak = "" if self.peak is None else f" (this process had up to {byte_size(self.peak)} in the first batches)"
            rate = self.images_left / self.seconds if self.seconds else 0
            parts[-1] += peak
            parts.append(f"{clock(self.seconds)} at {rate:,.1f} images/s")
        return "; ".join(parts)

    def check_disk(self, out: Path) -> None:
        """Raise if the disk cannot hold what is still to be written.

        Raises:
            MedSAEError: it cannot; with what each way out would take.
        """
        if self.free is None or self.bytes_left <= self.free:
            return
        ways = ["another disk"]
        if "float32" in {info.dtype for info in self.hooks.values()}:
            half = sum(info.rows_per_image * (info.d * 2 + _PLACE_BYTES) for info in self.hooks.values())
            ways.append(f"--dtype bfloat16 ({byte_size(self.images_left * half)})")
        if any(info.rows_per_image > 1 for info in self.hooks.values()):
            ways.append("fewer positions (--positions sample:8, or mean)")
        raise MedSAEError(
            f"{out} has room for {byte_size(self.free)}, and the activations would take {byte_size(self.bytes_left)} "
            f"more ({self.images_left:,} images); nothing was begun. Choose {', or '.join(ways)}, or fewer hooks"
        )


def _several(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def peak_bytes() -> int | None:
    """The most memory that this process had so far; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class Stopwatch:
    """Seconds an image, without the first batch, in which libraries and workers start."""

    def __init__(self) -> None:
        self._images, self._start = 0, 0.0

    def batch(self, images: int) -> None:
        """A batch is done."""
        if not self._start:
            self._start = time.monotonic()
        else:
            self._images += images

    def seconds_for(self, images: int) -> float | None:
        """None where fewer than two batches were done."""
        return images * (time.monotonic() - self._start) / self._images if self._images else None
