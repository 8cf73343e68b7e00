"""Another encoder's embeddings of the same images, to judge how alike the images are that a latent fires on.

An encoder's own embeddings hold whatever it mistakes: images that it cannot tell apart are alike to it, and a latent of
that mistake is monosemantic by them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.images import EMBEDDINGS, LabelledImages
from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.models import Judge
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.store.reader import ActivationStore


@dataclass(frozen=True)
class JudgeStore:
    """A store of another encoder, at one of its hooks; the mean over positions where there are several.

    Raises:
        MedSAEError: the store has no such hook.
    """

    store: ActivationStore
    hook: str = EMBEDDINGS[0]

    def __post_init__(self) -> None:
        if self.store.width_at(self.hook) is None:
            raise MedSAEError(
                f"{self.store.title} has no hook {self.hook!r} to judge by; it has {', '.join(self.store.hooks)} "
                "(--judge-hook)"
            )

    @property
    def told(self) -> Judge:
        return Judge(encoder=self.store.encoder_name, weights_sha256=self.store.weights_sha256, hook=self.hook)

    def ids(self, images: LabelledImages) -> Int[np.ndarray, " reported"]:
        """The judge's image ids of the images of `report`, matched by their paths.

        Raises:
            MedSAEError: some are not in the store.
        """
        there = self.store.readable_images
        id_of = dict(zip(there["path"], there["image_id"], strict=True))
        paths = images.frame["path"].to_numpy()[images.rows("report")]
        if absent := [path for path in paths if path not in id_of]:
            raise MedSAEError(
                f"{self.store.title} has not {len(absent)} of the {len(paths)} images to report on, such as "
                f"{absent[0]!r}; extract the same table with the judge's encoder"
            )
        return np.array([id_of[path] for path in paths], dtype=np.int64)

    def sums(self, matrix: LatentMatrix, images: LabelledImages) -> LatentStatistics:
        """Sums over the images of `report` with the judge's embeddings, and without labels."""
        d, ids, report = self.store.hooks[self.hook].d, self.ids(images), images.rows("report")
        statistics = LatentStatistics(matrix.n_latents, (), d)
        for rows, activations in matrix.shards():
            here = np.flatnonzero((report >= rows.start) & (report < rows.stop))
            mine = sparse.csr_array(activations)[report[here] - rows.start]
            statistics.update(mine, np.zeros((len(here), 0)), self._embeddings(ids[here]))
        return statistics

    def _embeddings(self, ids: np.ndarray) -> Float[np.ndarray, "images d"]:
        if len(ids) == 0:
            return np.zeros((0, self.store.hooks[self.hook].d))
        return self.store.rows_of(self.hook, ids).double().mean(1).numpy()
