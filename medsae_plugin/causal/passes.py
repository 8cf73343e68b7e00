"""What evaluations that run the encoder share: its images as pixel values, and SAEs that fit it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.opening import open_latents
from medsae_plugin.store.decoding import Request, decode, default_workers, worker_deaths_explained

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.encoders import HookedVisionEncoder
    from medsae_plugin.store import ActivationStore


class PixelBatches:
    """The images of a table as pixel values, batch by batch, as often as they are asked for.

    Attributes:
        failures: the reason by row of the images that could not be read, once a pass is over.
    """

    def __init__(
        self,
        encoder: HookedVisionEncoder,
        table: ImageTable,
        *,
        batch_size: int = 32,
        workers: int | None = 0,
        progress: bool = True,
    ) -> None:
        """`workers` decode; None is one less than the cores, 0 decodes in this process."""
        workers = default_workers() if workers is None else workers
        if batch_size < 1 or workers < 0:
            raise MedSAEError("batch_size must be at least 1 and workers at least 0")
        self.encoder, self.table = encoder, table
        self.batch_size, self.workers, self.progress = batch_size, workers, progress
        self.failures: dict[int, str] = {}

    def run(self, what: str) -> Iterator[tuple[list[int], Float[Tensor, "batch 3 size size"]]]:
        """The rows and pixel values of each batch; `what` names the progress bar.

        Raises:
            MedSAEError: not one image can be read, or a decoding process died.
        """
        paths, n, read = self.table.frame["path"].tolist(), len(self.table), 0
        starts = range(0, n, self.batch_size)
        requests = [Request(0, range(i, min(i + self.batch_size, n)), i + self.batch_size >= n) for i in starts]
        with worker_deaths_explained(), tqdm(total=n, desc=what, unit="image", disable=not self.progress) as bar:
            for batch in decode(self.table.root, paths, self.encoder.preprocessor, requests, self.workers):
                self.failures |= dict(batch.failures)
                if batch.arrays is not None:
                    read += len(batch.image_ids)
                    yield batch.image_ids, self.encoder.preprocessor.normalize(batch.arrays).to(self.encoder.device)
                bar.update(len(batch.request.image_ids))
        if not read:
            row, reason = next(iter(self.failures.items()), (0, "the table is empty"))
            raise MedSAEError(f"no image of the table can be read; the first, {paths[row] if n else ''}: {reason}")

    @property
    def read_rows(self) -> np.ndarray:
        """The rows of the images that could be read, once a pass is over."""
        return np.array([row for row in range(len(self.table)) if row not in self.failures])


def load_saes(encoder: HookedVisionEncoder, saes: Any) -> dict[str, SAE[Any]]:
    """SAEs, given as to `open_latents`, by name and on the encoder's device.

    Raises:
        MedSAEError: what `open_latents` refuses.
    """
    opened = open_latents(saes, encoder, str(encoder.device), to_score=False)
    return {name: latents.sae for name, (latents, _) in opened.items()}


def images_of_split(table: ImageTable, store: ActivationStore, split: str) -> ImageTable:
    """The table's images that are in a split of the store, such as those that no SAE was trained on.

    Raises:
        MedSAEError: there is none.
    """
    wanted = set(store.images.loc[store.images["split"] == split, "path"])
    rows = np.flatnonzero(table.frame["path"].isin(wanted))
    if not len(rows):
        has = ", ".join(sorted(set(store.images["split"]) - {""})) or "none"
        raise MedSAEError(f"no image of the table is in the store's split {split!r} (the store has: {has})")
    return table.take(rows)
