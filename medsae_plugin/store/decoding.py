"""Images to arrays in worker processes, in order and with a bounded number in flight."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from medsae_plugin.data.images import ImageFolder, UnreadableImage, read_image
from medsae_plugin.errors import MedSAEError, reason_of
from medsae_plugin.machine import cores


@runtime_checkable
class ToArray(Protocol):
    """What makes arrays of images, such as a `Preprocessor`; small and picklable, so that workers can hold it."""

    def to_array(self, image: Image.Image) -> np.ndarray: ...


@dataclass(frozen=True)
class Request:
    """A batch to decode, which ends its shard or does not."""

    shard: int
    image_ids: range
    is_last: bool


@dataclass
class Decoded:
    """A decoded batch: the ids and arrays of the images that could be read, and the (id, reason) of the others."""

    request: Request
    image_ids: list[int] = field(default_factory=list)
    arrays: np.ndarray | None = None
    failures: list[tuple[int, str]] = field(default_factory=list)


class _Decoder(Dataset[Decoded]):
    def __init__(self, root: Path | ImageFolder, paths: list[str], preprocessor: ToArray) -> None:
        self.root, self.paths, self.preprocessor = root, paths, preprocessor

    def __getitem__(self, request: Request) -> Decoded:
        batch = Decoded(request)
        arrays = []
        for image in request.image_ids:
            try:
                arrays.append(self.preprocessor.to_array(read_image(self.root / self.paths[image])))
                batch.image_ids.append(image)
            except UnreadableImage as error:
                batch.failures.append((image, error.reason))
        batch.arrays = np.stack(arrays) if arrays else None
        return batch


def default_workers() -> int:
    """Decoding processes where none are asked for: one less than the cores, 1 to 8."""
    return min(8, max(1, cores() - 1))


def decode(
    root: Path | ImageFolder, paths: list[str], preprocessor: ToArray, requests: Iterable[Request], workers: int
) -> Iterator[Decoded]:
    """Decode batches in the order of `requests`, which is asked for no more than two batches a worker ahead.

    Use it within `worker_deaths_explained`. In a daemonic process (of a `multiprocessing.Pool`, of Celery or Airflow),
    which may have no children, this process decodes, whatever `workers`.

    Raises:
        MedSAEError: the system starts no more processes.
    """
    workers = 0 if multiprocessing.current_process().daemon else workers
    options: dict[str, Any] = {}
    if workers > 0:
        options["prefetch_factor"] = 2
        if sys.platform == "linux":
            # Forked workers need no `if __name__ == "__main__"` in the caller's script, and touch neither torch's
            # threads nor the accelerator.
            options["multiprocessing_context"] = "fork"
    loader = DataLoader(
        _Decoder(root, paths, preprocessor),
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        collate_fn=_as_it_is,  # arrays travel through a pipe; as tensors they would need /dev/shm, small in containers
        worker_init_fn=_leave_interrupts_to_the_parent,
        generator=torch.Generator(),  # else every pass would draw from the caller's random numbers
        **options,
    )
    try:
        batches = iter(loader)
    except OSError as error:  # of processes, of memory, of files that may be open
        raise MedSAEError(
            f"decoding processes cannot be started ({reason_of(error)}); give fewer workers, or workers=0 (--workers 0)"
        ) from error
    yield from batches


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches the whole group; the parent ends its workers, and none ends before it and looks like a death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch


@contextmanager
def worker_deaths_explained() -> Iterator[None]:
    """Around all that runs while workers do: torch raises a worker's death wherever the main thread happens to be.

    Raises:
        MedSAEError: a worker died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        guard = "" if sys.platform == "linux" else ", or for want of `if __name__ == '__main__':` around the script"
        raise MedSAEError(
            f"a decoding process died, of too little memory perhaps{guard} ({reason_of(error)}). Finished shards are "
            "kept: run the same extraction again, with fewer workers, or none (workers=0)"
        ) from error
