"""Work on many files, in several processes."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from medsae_plugin.errors import MedSAEError

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_CHUNK = 16  # that a process is given at once


def spread(
    work: Callable[[_Item], _Made], items: Sequence[_Item], workers: int, desc: str, progress: bool
) -> Iterator[_Made]:
    """What `work` makes of each, in order; `workers` processes do it, or with 0 this one.

    Raises:
        MedSAEError: a process died.
    """
    with tqdm(total=len(items), unit="file", desc=desc, disable=not progress) as bar:
        for made in _made(work, items, workers):
            bar.update()
            yield made


def _made(work: Callable[[_Item], _Made], items: Sequence[_Item], workers: int) -> Iterator[_Made]:
    if not workers:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    try:
        with ProcessPoolExecutor(workers, context) as pool:
            yield from pool.map(work, items, chunksize=_CHUNK)
    except BrokenProcessPool as error:
        raise MedSAEError(
            "a process that reads files died, of too little memory perhaps; give fewer workers, or none (--workers 0)"
        ) from error
