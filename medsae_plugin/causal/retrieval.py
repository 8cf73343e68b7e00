"""Image-to-text retrieval: whether an image's own text is among the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.encoders import HookedVisionEncoder, ZeroShot

_CHUNK_IMAGES = 1024


@dataclass(frozen=True)
class Texts:
    """Distinct texts to choose among, and which is each image's own.

    kind: `reports` (the table's report column) or `label sets`.
    embeddings: `(texts, d)`, of unit length.
    own: the text of each image, -1 for none.
    """

    kind: str
    embeddings: Float[Tensor, "texts d"]
    own: Int[np.ndarray, " images"]


def texts_of(encoder: HookedVisionEncoder, zero_shot: ZeroShot, table: ImageTable) -> Texts:
    """The table's reports where it has them; else a text for each set of observations that some image has.

    A label set's text is the sentences that state its observations; its embedding is the mean of their directions.
    An image without a report, or without an observation that is present, has no text of its own.

    Raises:
        MedSAEError: the text tower cannot take a report.
    """
    if "report" in table.frame:
        keys = [report.strip() for report in table.frame["report"]]
        names = list(dict.fromkeys(key for key in keys if key))
        return Texts("reports", _embedded(encoder, names), _positions(keys, names))
    columns = [table.label_names.index(label) for label in zero_shot.labels if label in table.label_names]
    stated = zero_shot.stated[[i for i, label in enumerate(zero_shot.labels) if label in table.label_names]].cpu()
    sets = [tuple(np.flatnonzero(row == 1)) for row in table.labels[:, columns]]
    distinct = sorted({s for s in sets if s})
    means = [stated[list(s)].mean(0) for s in distinct]
    embeddings = F.normalize(torch.stack(means), dim=-1) if means else stated[:0]
    return Texts("label sets", embeddings, _positions(sets, distinct))


def recall_at(images: Float[Tensor, "images d"], texts: Texts, ks: Sequence[int]) -> dict[int, float]:
    """For each k, the share of images whose own text is one of the k texts of highest cosine.

    Over the images that have a text; nan where there is none. Texts that tie with an image's own come after it.
    """
    has = texts.own >= 0
    if not has.any():
        return dict.fromkeys(ks, float("nan"))
    own = torch.from_numpy(texts.own[has])
    nearer = []
    for rows, mine in zip(images[torch.from_numpy(has)].split(_CHUNK_IMAGES), own.split(_CHUNK_IMAGES), strict=True):
        similarity = F.normalize(rows.float(), dim=-1) @ texts.embeddings.T
        nearer.append((similarity > similarity.gather(1, mine[:, None])).sum(1))
    rank = torch.cat(nearer)
    return {k: float((rank < k).double().mean()) for k in ks}


def _embedded(encoder: HookedVisionEncoder, reports: list[str]) -> Float[Tensor, "texts d"]:
    try:
        return F.normalize(encoder.encode_text(reports).float(), dim=-1).cpu()
    except (IndexError, RuntimeError) as error:
        raise MedSAEError(
            f"the text tower of {encoder.name} cannot take a report, perhaps for its length: {error}"
        ) from None


def _positions(keys: Sequence[object], names: Sequence[object]) -> Int[np.ndarray, " images"]:
    position = {name: i for i, name in enumerate(names)}
    return np.array([position.get(key, -1) for key in keys], dtype=np.int64)
