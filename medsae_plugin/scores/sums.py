"""Sums over images from which the scores of latents follow; they merge, so sites can share sums, not images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy import sparse

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import replacing
from medsae_plugin.scores import sketch

# How the arrays of two statistics combine. The moments, which depend on each other, are in `merge` itself.
ADDED = ("known", "patients", "fired", "fired_known", "fired_positive", "histogram", "embedding_sum", "embedding_total")
MOMENTS = ("mean_label", "mean", "scatter", "cross", "overall_mean", "overall_scatter")
EXTREMES = ("minimum", "maximum")
_FULL = 0.25

SCHEMA_VERSION = 1
# One key: safetensors writes several in no fixed order.
_KEY = "latent_statistics"
_ARRAYS = tuple(name for name in (*ADDED, *MOMENTS, *EXTREMES) if name != "histogram")


class LatentStatistics:
    """Sums of latents, labels and embeddings over images, in memory that does not grow with the number of images.

    Attributes, float64 unless said, with L latents, C labels and embeddings of D dimensions:
        n_images: images seen
        known, mean_label: `(C,)`, the images where the label is known, and the share of them that are positive
        patients: `(C,)`, the patients with an image where the label is known; for whoever counts them to set
        mean, scatter: `(L, C)`, a latent's mean over those images, and its sum of squared deviations
        cross: `(L, C)`, sum over those images of (latent - mean)(label - mean_label)
        overall_mean, overall_scatter: `(L,)`, the same moments over all images
        minimum, maximum: `(L,)`, over all images
        fired: `(L,)` images on which the latent is above zero; fired_known, fired_positive: `(L, C)`, those of them
            where the label is known, and where it is positive
        histogram: `(L, bins)` int32, positive activations by size, see `scores.sketch`
        embedding_sum: `(L, D)`, sum of latent times unit embedding; embedding_total: `(D,)`, sum of unit embeddings

    Means and central moments follow Chan, Golub and LeVeque (1983), so merging parts gives what one pass over all
    images gives, up to rounding, and a large offset of an activation does not cancel its variance.
    """

    def __init__(self, n_latents: int, label_names: Sequence[str], d_embedding: int = 0) -> None:
        n_labels = len(label_names)
        self.label_names = tuple(label_names)
        self.n_latents, self.d_embedding = n_latents, d_embedding
        self.n_images = 0
        self.known, self.patients, self.mean_label = np.zeros((3, n_labels))
        self.mean, self.scatter, self.cross = np.zeros((3, n_latents, n_labels))
        self.overall_mean, self.overall_scatter, self.fired = np.zeros((3, n_latents))
        self.fired_known, self.fired_positive = np.zeros((2, n_latents, n_labels))
        self.minimum, self.maximum = np.full(n_latents, np.inf), np.full(n_latents, -np.inf)
        self.histogram = np.zeros((n_latents, sketch.N_BINS), dtype=np.int32)
        self.embedding_sum, self.embedding_total = np.zeros((n_latents, d_embedding)), np.zeros(d_embedding)

    @property
    def positives(self) -> Float[np.ndarray, " labels"]:
        """Images on which each label is present."""
        return np.round(self.known * self.mean_label)

    def update(
        self,
        activations: Float[torch.Tensor, "images latents"] | np.ndarray | sparse.sparray,
        labels: Float[np.ndarray, "images labels"],
        embeddings: Float[np.ndarray, "images d"] | None = None,
    ) -> None:
        """Add images: one activation a latent, labels in {0, 1, nan = unknown}, embeddings of any length but zero.

        Sparse activations cost as much as their nonzeros.

        Raises:
            MedSAEError: shapes that do not fit, activations or embeddings that are not finite, an embedding of length
                zero, labels outside {0, 1, nan}.
        """
        a = _as_csc_or_dense(activations)
        y = np.asarray(labels, dtype=np.float64)
        self._check(a, y)
        if a.shape[0] == 0:
            return
        e = _unit(embeddings, a.shape[0], self.d_embedding)
        part = LatentStatistics(self.n_latents, self.label_names, self.d_embedding)
        part._fill(a, np.nan_to_num(y), (~np.isnan(y)).astype(np.float64), e)
        self.merge(part)

    def merge(self, other: LatentStatistics) -> None:
        """Add the images of `other`, in place.

        Raises:
            MedSAEError: `other` has other latents, labels or embeddings.
        """
        for what in ("n_latents", "label_names", "d_embedding"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise MedSAEError(f"cannot merge statistics: {what} is {mine} here, {theirs} there")
        n = self.known + other.known
        share = other.known / np.maximum(n, 1)
        weight = self.known * share  # n_a n_b / n
        latent_gap, label_gap = other.mean - self.mean, other.mean_label - self.mean_label
        self.scatter = self.scatter + other.scatter + latent_gap**2 * weight
        self.cross = self.cross + other.cross + latent_gap * (label_gap * weight)
        self.mean = self.mean + latent_gap * share
        self.mean_label = self.mean_label + label_gap * share
        overall_share = other.n_images / max(self.n_images + other.n_images, 1)
        overall_gap = other.overall_mean - self.overall_mean
        self.overall_scatter = (
            self.overall_scatter + other.overall_scatter + overall_gap**2 * self.n_images * overall_share
        )
        self.overall_mean = self.overall_mean + overall_gap * overall_share
        for name in ADDED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)
        self.n_images += other.n_images

    def save(self, path: str | Path) -> None:
        """Write them to a safetensors file, described by JSON in its header; the histogram as its nonzeros.

        The file names no image, path or patient; but sums over very few patients say much about each.
        """
        counts = self.histogram.ravel()
        filled = np.flatnonzero(counts)
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        tensors |= {"histogram_index": filled.astype(np.int64), "histogram_count": counts[filled]}
        what = {
            "schema_version": SCHEMA_VERSION,
            "n_latents": self.n_latents,
            "label_names": list(self.label_names),
            "d_embedding": self.d_embedding,
            "n_images": self.n_images,
        }
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={_KEY: json.dumps(what, ensure_ascii=False)})

    @classmethod
    def load(cls, path: str | Path) -> LatentStatistics:
        """Read what `save` wrote.

        Raises:
            MedSAEError: no such file, a damaged one, or one of another version.
        """
        try:
            with safe_open(path, "np") as file:
                return cls._of_file(file, path)
        except FileNotFoundError:
            raise MedSAEError(f"there are no statistics at {path}") from None
        except MedSAEError:
            raise
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, IndexError) as error:
            raise MedSAEError(f"{path} does not hold sound statistics ({error})") from None

    @classmethod
    def _of_file(cls, file: Any, path: str | Path) -> LatentStatistics:
        what = json.loads((file.metadata() or {})[_KEY])
        if what["schema_version"] != SCHEMA_VERSION:
            raise MedSAEError(
                f"{path} has schema version {what['schema_version']}; this version reads {SCHEMA_VERSION}"
            )
        statistics = cls(what["n_latents"], what["label_names"], what["d_embedding"])
        statistics.n_images = what["n_images"]
        for name in _ARRAYS:
            values = file.get_tensor(name)
            if values.shape != getattr(statistics, name).shape:
                raise ValueError(f"{name} has shape {values.shape}")
            setattr(statistics, name, values)
        np.put(statistics.histogram, file.get_tensor("histogram_index"), file.get_tensor("histogram_count"))
        return statistics

    def _check(self, a: np.ndarray | sparse.csc_array, y: np.ndarray) -> None:
        if a.ndim != 2 or a.shape[1] != self.n_latents or y.shape != (a.shape[0], len(self.label_names)):
            raise MedSAEError(
                f"activations {tuple(a.shape)} and labels {tuple(y.shape)} do not fit {self.n_latents} latents and "
                f"{len(self.label_names)} labels"
            )
        if not np.isfinite(a.data if sparse.issparse(a) else a).all():
            raise MedSAEError("activations hold nan or infinity; check the encoder's weights and the SAE")
        if not (np.isnan(y) | (y == 0) | (y == 1)).all():
            raise MedSAEError("labels must be 0, 1 or nan (unknown); choose a policy for uncertain ones when reading")

    def _fill(self, a: np.ndarray | sparse.csc_array, y: np.ndarray, known: np.ndarray, e: np.ndarray) -> None:
        """The sums of one batch. Sparse activations are summed as they are, dense ones about the batch's mean."""
        n, counts = a.shape[0], known.sum(0)
        self.n_images, self.known = n, counts
        self.mean_label = y.sum(0) / np.maximum(counts, 1)
        centre = np.zeros(self.n_latents) if sparse.issparse(a) else a.mean(0)
        shifted = a if sparse.issparse(a) else a - centre
        total, squares = shifted.T @ known, (shifted**2).T @ known
        self.mean = np.where(counts > 0, centre[:, None] + total / np.maximum(counts, 1), 0.0)
        self.scatter = np.maximum(squares - total**2 / np.maximum(counts, 1), 0)
        self.cross = shifted.T @ y - total * self.mean_label
        overall = _flat(shifted.sum(0))
        self.overall_mean = centre + overall / n
        self.overall_scatter = np.maximum(_flat((shifted**2).sum(0)) - overall**2 / n, 0)
        self.minimum, self.maximum = _extremes(a)
        fired = (a > 0).astype(np.float64)
        self.fired, self.fired_known, self.fired_positive = _flat(fired.sum(0)), fired.T @ known, fired.T @ y
        latent, value = _entries(a)
        self.histogram = sketch.count(latent, value, self.n_latents)
        self.embedding_sum, self.embedding_total = np.asarray(a.T @ e), e.sum(0)


def _as_csc_or_dense(activations: torch.Tensor | np.ndarray | sparse.sparray) -> np.ndarray | sparse.csc_array:
    if sparse.issparse(activations):
        columns = sparse.csc_array(activations).astype(np.float64)
        # Full columns, as raw neurons have, may lie far from zero: those are summed about their mean.
        return columns if columns.nnz < _FULL * np.prod(columns.shape) else columns.toarray()
    if isinstance(activations, torch.Tensor):
        activations = activations.detach().cpu().double().numpy()
    return np.asarray(activations, dtype=np.float64)


def _unit(embeddings: np.ndarray | None, n: int, d: int) -> Float[np.ndarray, "images d"]:
    """The embeddings at unit length, float64."""
    e = np.zeros((n, 0)) if embeddings is None else np.asarray(embeddings, dtype=np.float64)
    if e.shape != (n, d):
        raise MedSAEError(f"embeddings {tuple(e.shape)} do not fit {n} images of {d} dimensions")
    if d == 0:
        return e
    length = np.linalg.norm(e, axis=1, keepdims=True)
    if not np.isfinite(length).all() or (length == 0).any():
        raise MedSAEError("an embedding is not finite or has length zero, so it has no direction")
    return e / length


def _entries(a: np.ndarray | sparse.csc_array) -> tuple[np.ndarray, np.ndarray]:
    """Latent and value of every activation that is not zero."""
    if isinstance(a, np.ndarray):
        row, latent = a.nonzero()
        return latent, a[row, latent]
    return np.repeat(np.arange(a.shape[1]), np.diff(a.indptr)), np.asarray(a.data)


def _extremes(a: np.ndarray | sparse.csc_array) -> tuple[np.ndarray, np.ndarray]:
    if sparse.issparse(a):
        return a.min(axis=0).toarray().ravel(), a.max(axis=0).toarray().ravel()
    return a.min(0), a.max(0)


def _flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, dtype=np.float64).reshape(-1)
