"""The order in which an endless, shuffled stream visits rows."""

from __future__ import annotations

import numpy as np

BLOCK = 64
BLOCKS_PER_WINDOW = 1024


class ShuffledRows:
    """Rows 0..n-1 in a new random order each epoch, without end; every place in the stream is found on its own.

    Blocks of 64 consecutive rows are shuffled, then the rows within each window of 1024 shuffled blocks. Up to 65,536
    rows this is a full shuffle. Beyond, a batch draws from 1024 blocks all over the store, and a disk reads each block
    about once an epoch instead of once a row. Memory is 16 bytes a block, and 8 bytes a row of one window.
    """

    def __init__(self, n_rows: int, seed: int) -> None:
        self.n_rows = n_rows
        self.seed = seed
        self._epoch = -1
        self._window = (-1, -1)

    def take(self, start: int, count: int) -> np.ndarray:
        """The rows at places `start` to `start + count` of the stream."""
        parts = []
        while count > 0:
            epoch, place = divmod(start, self.n_rows)
            part = self._within_window(epoch, place)[:count]
            parts.append(part)
            start += len(part)
            count -= len(part)
        return np.concatenate(parts)

    def _within_window(self, epoch: int, place: int) -> np.ndarray:
        """The epoch's rows from `place` to the end of its window."""
        if epoch != self._epoch:
            n_blocks = -(-self.n_rows // BLOCK)
            self._blocks = np.random.default_rng([self.seed, epoch, 0]).permutation(n_blocks)
            sizes = np.minimum(BLOCK, self.n_rows - self._blocks * BLOCK)
            ends = np.cumsum(sizes)[BLOCKS_PER_WINDOW - 1 :: BLOCKS_PER_WINDOW]
            self._ends = ends if len(ends) and ends[-1] == self.n_rows else np.append(ends, self.n_rows)
            self._epoch = epoch
        window = int(np.searchsorted(self._ends, place, side="right"))
        if (epoch, window) != self._window:
            blocks = self._blocks[window * BLOCKS_PER_WINDOW : (window + 1) * BLOCKS_PER_WINDOW]
            rows = (blocks[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
            rows = rows[rows < self.n_rows]
            self._rows = np.random.default_rng([self.seed, epoch, 1 + window]).permutation(rows)
            self._window = (epoch, window)
        first = int(self._ends[window - 1]) if window else 0
        return self._rows[place - first :]
