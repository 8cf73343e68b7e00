"""Nearest patients: images whose latents fire alike, never of the same patient, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from scipy import sparse

from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.matrix import LatentMatrix

Weighting = Literal["idf", "none"]
_SHARED = 5
_BLOCK = 256


@dataclass(frozen=True)
class Neighbour:
    """An image of another patient. row: in the index. cosine: of weighed activations.

    shared: the latents that the cosine is made of, the largest first, each with its part of it.
    """

    row: int
    path: str
    patient: str
    cosine: float
    shared: list[tuple[int, float]]


class LatentIndex:
    """Images by their latents, searched exactly: inverted by latent, so that a search reads the latents that fire alone.

    Activations are weighed by how few images a latent fires on, log(images / images that it fires on), as words are in
    a search of texts (idf, Spärck Jones 1972), and scaled to unit length; `none` leaves them as they are.

    Attributes:
        images: one row an image, with `path` and `patient`. weights: `(latents,)`.
    """

    def __init__(self, activations: sparse.sparray, images: pd.DataFrame, weighting: Weighting = "idf") -> None:
        """`activations`: `(images, latents)`."""
        rows = sparse.csr_array(activations, dtype=np.float64)
        if rows.shape[0] != len(images):
            raise MedSAEError(f"{rows.shape[0]} rows of activations are not of {len(images)} images")
        fires = np.bincount(rows.indices[rows.data != 0], minlength=rows.shape[1])
        idf = np.log(rows.shape[0] / np.maximum(fires, 1))
        self.images = images.reset_index(drop=True)
        self.weights: Float[np.ndarray, " latents"] = idf if weighting == "idf" else np.ones_like(idf)
        weighed = rows @ sparse.diags_array(self.weights)
        norms = np.sqrt(np.asarray(weighed.power(2).sum(1)).ravel())
        self._rows = sparse.csr_array(sparse.diags_array(1 / np.where(norms > 0, norms, 1)) @ weighed)
        self._by_latent = sparse.csc_array(self._rows)

    @classmethod
    def of(cls, matrix: LatentMatrix, weighting: Weighting = "idf") -> LatentIndex:
        """The images of a latent matrix."""
        parts = sparse.vstack([sparse.csr_array(part) for _, part in matrix.shards()])
        return cls(parts, matrix.images, weighting)

    def nearest(
        self, activations: Float[np.ndarray, " latents"], k: int = 5, *, not_of: str | None = None
    ) -> list[Neighbour]:
        """The k nearest patients, each by the nearest of his images; fewer where fewer share a latent.

        Args:
            activations: an image's, of all latents. not_of: the patient whose images are left out.
        """
        query = self.weights * activations
        norm = np.linalg.norm(query)
        fires = np.flatnonzero(query)
        if norm == 0:
            return []
        query = query / norm
        cosine = self._by_latent[:, fires] @ query[fires]
        cosine = np.where(self.images["patient"].to_numpy() == not_of, 0.0, cosine)
        found = []
        for row in _first_of_each(np.argsort(-cosine, kind="stable"), self._patient_codes)[:k].tolist():
            if cosine[row] <= 0:
                break
            part = self._rows[[row]].toarray()[0] * query
            most = np.argsort(-part, kind="stable")[:_SHARED]
            shared = [(int(j), float(part[j])) for j in most if part[j] > 0]
            told = self.images.iloc[row]
            found.append(Neighbour(row, told["path"], told["patient"], float(cosine[row]), shared))
        return found

    def cosines(self, rows: Int[np.ndarray, " queries"]) -> Float[np.ndarray, "queries images"]:
        """Of some images with all."""
        return np.asarray((self._rows[rows] @ self._rows.T).toarray())

    @cached_property
    def _patient_codes(self) -> Int[np.ndarray, " images"]:
        return pd.factorize(self.images["patient"])[0]


def precision_at(
    cosines: Sequence[tuple[Int[np.ndarray, " queries"], Float[np.ndarray, "queries images"]]],
    labels: Float[np.ndarray, "images labels"],
    patients: Shaped[np.ndarray, " images"],
    k: int,
) -> tuple[Float[np.ndarray, "all labels"], Float[np.ndarray, "all labels"]]:
    """How often the k nearest patients have a finding that the image has, and how often any other patient has.

    Args:
        cosines: by block the images asked for and their cosines with all.
        labels: 1, 0, or nan where unknown.

    Returns:
        Two of `(queries, labels)`: the share of the k nearest whose label is known that have it; chance, the same over
        the images of all other patients, each patient counting once. nan where the image asked for has not the finding.
    """
    codes = pd.factorize(patients)[0]
    found, chance = [], []
    for queries, block in cosines:
        for query, cosine in zip(queries.tolist(), block, strict=True):
            others = np.flatnonzero(codes != codes[query])
            near = _first_of_each(others[np.argsort(-cosine[others], kind="stable")], codes)[:k]
            has = labels[query] == 1
            for told, rows, weights in (
                (found, near, None),
                (chance, others, 1 / np.bincount(codes)[codes[others]]),
            ):
                told.append(np.where(has, _share(labels[rows], weights), np.nan))
    return np.array(found), np.array(chance)


def blocks(rows: Int[np.ndarray, " rows"]) -> list[Int[np.ndarray, " some"]]:
    """Rows in blocks whose cosines fit in memory."""
    return np.array_split(rows, max(1, -(-len(rows) // _BLOCK)))


def _share(labels: Float[np.ndarray, "rows labels"], weights: np.ndarray | None) -> Float[np.ndarray, " labels"]:
    known = ~np.isnan(labels)
    weight = known * (1.0 if weights is None else weights[:, None])
    with np.errstate(invalid="ignore"):
        return (np.nan_to_num(labels) * weight).sum(0) / weight.sum(0)


def _first_of_each(order: Int[np.ndarray, " some"], codes: Int[np.ndarray, " images"]) -> Int[np.ndarray, " firsts"]:
    """Of rows in an order the first of each patient, in that order."""
    _, first = np.unique(codes[order], return_index=True)
    return order[np.sort(first)]
