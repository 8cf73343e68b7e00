"""Image-level activations of latents on disk: rows images, nonzeros only, made once and read by latent or by shard.

    manifest.json              which latents of which SAE, over which images, and how positions were aggregated
    images.csv                 one row a matrix row: image_id, path (relative to the image root), patient, split
    shard-00000.safetensors    rows i * 8192 to (i + 1) * 8192 in compressed sparse columns: `indptr (n_latents + 1,)`,
                               `image (nonzeros,)`, the row within the shard, ascending in each latent, and `value`

What is not stored is exactly 0. A shard is mapped, so reading some latents touches their bytes alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveInt
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy import sparse
from tqdm import tqdm

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import refuse_other_content, replacing_folder
from medsae_plugin.sae_folders import check_scorable
from medsae_plugin.saved import Saved, WasDict
from medsae_plugin.scores.units import Latents, Units
from medsae_plugin.store.layout import EncoderInfo
from medsae_plugin.store.reader import ActivationStore

Aggregate = Literal["max", "mean"]

MANIFEST, IMAGES = "manifest.json", "images.csv"
ROWS_PER_SHARD = 8192  # a row's number within its shard fits 16 bits
# Activations held dense while encoding, and nonzeros held while reading a block of latents.
_CHUNK_ELEMENTS = 2**23
_BLOCK_NONZEROS = 2**19


class MatrixManifest(Saved, WasDict):
    """Which latents of which SAE, over which images of whose activations, and how positions were aggregated.

    sae_sha256, sae_config: what latents follow from, the weights and what they hang on beside them, such as k and the
        normalisation; None of neurons.
    """

    FILE: ClassVar[str] = MANIFEST
    COMMAND: ClassVar[str] = "medsae evaluate"

    schema_version: Literal[1] = 1
    encoder: EncoderInfo
    images_sha256: str
    positions: str
    hook: str
    aggregate: Aggregate
    sae_sha256: str | None
    sae_config: dict[str, Any] | None
    n_latents: PositiveInt
    n_images: NonNegativeInt

    @classmethod
    def of(cls, store: ActivationStore, units: Units, aggregate: Aggregate) -> MatrixManifest:
        return cls(
            encoder=units.rows_from(store).manifest.encoder,
            images_sha256=store.manifest.images.sha256,
            positions=store.manifest.positions,
            hook=units.hook,
            aggregate=aggregate,
            sae_sha256=units.sae_sha256,
            sae_config=units.config,
            n_latents=units.n,
            n_images=len(store.readable_images),
        )

    def is_of(self, folder: Path) -> bool:
        """Whether the latent matrix in a folder, if there is one, is this."""
        try:
            return self == MatrixManifest.open(folder)
        except MedSAEError:
            return False


class LatentMatrix:
    """Image-level activations of an SAE's latents (or of a hook's raw neurons), rows images, nonzeros only, on disk.

    Attributes:
        path: the folder.
        manifest: what it is of.
        images: one row a matrix row, in the store's order: image_id, path (relative to the image root), patient, split.

    Raises:
        MedSAEError: the folder holds no latent matrix, or a damaged one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.manifest = MatrixManifest.read(json.loads((self.path / MANIFEST).read_text("utf-8")), MANIFEST)
            self.images = pd.read_csv(self.path / IMAGES, dtype=str, keep_default_na=False).astype(
                {"image_id": np.int64}
            )
            self.n_latents, self.n_images = self.manifest.n_latents, self.manifest.n_images
            self._shards = [safe_open(self.path / name, "np") for name in _shard_names(self.n_images)]
        except FileNotFoundError as error:
            raise MedSAEError(f"{self.path} holds no latent matrix: {error.filename or error} is missing") from None
        except Exception as error:  # safetensors, json and pandas each have errors of their own for damage
            raise MedSAEError(
                f"{self.path} holds a damaged latent matrix ({error}); delete it, it is made again"
            ) from None
        self._indptr = [shard.get_tensor("indptr") for shard in self._shards]

    @property
    def counts(self) -> np.ndarray:
        """Images on which each latent is not zero, `(n_latents,)`."""
        return np.diff(np.stack(self._indptr), axis=1).sum(0)

    def columns(self, start: int | np.integer, stop: int | np.integer) -> sparse.csc_array:
        """The activations of latents `start` to `stop` on every image, `(n_images, stop - start)`, float32."""
        parts = [self._slice(k, start, stop) for k in range(len(self._shards))]
        return sparse.csc_array(sparse.vstack(parts, format="csc"))

    def column(self, latent: int | np.integer) -> Float[np.ndarray, " images"]:
        """One latent's activation on every image, dense, float32."""
        return self.columns(latent, latent + 1).toarray()[:, 0]

    def blocks(self) -> Iterator[tuple[int, sparse.csc_array]]:
        """All latents in blocks of bounded memory: the first latent of the block, and its columns."""
        ends = np.cumsum(self.counts)
        start = 0
        while start < self.n_latents:
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK_NONZEROS, side="right")))
            yield start, self.columns(start, stop)
            start = stop

    def shards(self) -> Iterator[tuple[slice, sparse.csc_array]]:
        """All images shard by shard: the rows, and their activations `(rows, n_latents)`."""
        for k in range(len(self._shards)):
            first = k * ROWS_PER_SHARD
            yield slice(first, min(first + ROWS_PER_SHARD, self.n_images)), self._slice(k, 0, self.n_latents)

    def _slice(self, shard: int, start: int | np.integer, stop: int | np.integer) -> sparse.csc_array:
        indptr = self._indptr[shard][start : stop + 1]
        nonzeros = slice(int(indptr[0]), int(indptr[-1]))
        if nonzeros.start == nonzeros.stop:  # safetensors refuses an empty slice at the end
            image, value = np.empty(0, np.int32), np.empty(0, np.float32)
        else:
            image = self._shards[shard].get_slice("image")[nonzeros].astype(np.int32)
            value = self._shards[shard].get_slice("value")[nonzeros]
        rows = min(ROWS_PER_SHARD, self.n_images - shard * ROWS_PER_SHARD)
        # int32 throughout, or scipy copies the indices to int64.
        return sparse.csc_array((value, image, (indptr - indptr[0]).astype(np.int32)), shape=(rows, stop - start))


class LatentWriter:
    """Writes a latent matrix from batches of images in the store's order; one shard is in memory at a time."""

    def __init__(self, folder: Path, n_latents: int) -> None:
        self._folder, self._n_latents = folder, n_latents
        self._rows: list[sparse.csr_array] = []
        self._n_rows = self._n_shards = 0

    def add(self, activations: Float[np.ndarray, "images latents"] | sparse.sparray) -> None:
        """Add images, one row each."""
        rows = _nonzeros(activations)
        while rows.shape[0]:
            taken = rows[: ROWS_PER_SHARD - self._n_rows]
            rows = rows[taken.shape[0] :]
            self._rows.append(taken)
            self._n_rows += taken.shape[0]
            if self._n_rows == ROWS_PER_SHARD:
                self._flush()

    def finish(self, manifest: MatrixManifest, images: pd.DataFrame) -> None:
        """Write the last shard, the images and the manifest."""
        if self._n_rows:
            self._flush()
        columns = images[["image_id", "path", "patient", "split"]]
        columns.to_csv(self._folder / IMAGES, index=False, lineterminator="\n")
        manifest.save(self._folder)

    def _flush(self) -> None:
        shard = sparse.csc_array(sparse.vstack(self._rows, format="csc"))
        shard.sort_indices()
        tensors = {
            "indptr": shard.indptr.astype(np.int64),
            "image": shard.indices.astype(np.uint16),
            "value": np.ascontiguousarray(shard.data),
        }
        save_file(tensors, self._folder / _shard_name(self._n_shards))
        self._rows, self._n_rows = [], 0
        self._n_shards += 1


def _nonzeros(activations: Float[np.ndarray, "images latents"] | sparse.sparray) -> sparse.csr_array:
    if sparse.issparse(activations):
        rows = sparse.csr_array(activations, dtype=np.float32)
        rows.eliminate_zeros()
        return rows
    n_rows, n_latents = activations.shape
    place = np.flatnonzero(activations != 0)  # of a bool array, several times as fast as scipy's search
    row, latent = np.divmod(place, n_latents)
    values = activations[row, latent].astype(np.float32)
    indptr = np.searchsorted(row, np.arange(n_rows + 1))
    return sparse.csr_array((values, latent, indptr), shape=(n_rows, n_latents))


def latent_matrix(
    store: ActivationStore, units: Units, out: str | Path, *, aggregate: Aggregate = "max", progress: bool = True
) -> LatentMatrix:
    """The latent matrix of units over every readable image of a store, made once in the folder `out` and then reused.

    One that was made from another SAE, store or aggregate is made again.

    Args:
        aggregate: over an image's positions: `max` or `mean`.

    Raises:
        MedSAEError: the store lacks the hook; activations that are not finite; `out` holds something else.
    """
    (matrix,) = latent_matrices(store, [units], [out], aggregate=aggregate, progress=progress)
    return matrix


@torch.no_grad()
def latent_matrices(
    store: ActivationStore,
    units: Sequence[Units],
    outs: Sequence[str | Path],
    *,
    aggregate: Aggregate = "max",
    progress: bool = True,
) -> list[LatentMatrix]:
    """`latent_matrix` of several units, each hook's from one pass over the store."""
    for one in units:
        one.check_fits(store)
        if isinstance(one, Latents):
            check_scorable(one.sae, one.name)
    folders = [Path(out) for out in outs]
    manifests = [MatrixManifest.of(store, one, aggregate) for one in units]
    stale = [k for k, folder in enumerate(folders) if not manifests[k].is_of(folder)]
    for k in stale:
        refuse_other_content(folders[k], "latent matrix", _is_matrix)
    sources = {k: (str(units[k].rows_from(store).path), units[k].hook) for k in stale}
    for source in dict.fromkeys(sources.values()):
        here = [k for k in stale if sources[k] == source]
        with ExitStack() as stack:
            temporary = [stack.enter_context(replacing_folder(folders[k])) for k in here]
            writers = [LatentWriter(t, units[k].n) for k, t in zip(here, temporary, strict=True)]
            _encode(store, [units[k] for k in here], writers, aggregate, progress)
            for k, writer in zip(here, writers, strict=True):
                writer.finish(manifests[k], store.readable_images)
    return [LatentMatrix(folder) for folder in folders]


def _encode(
    store: ActivationStore,
    units: Sequence[Units],
    writers: Sequence[LatentWriter],
    aggregate: Aggregate,
    progress: bool,
) -> None:
    """Units of one hook, whose rows are in one store."""
    store, hook = units[0].rows_from(store), units[0].hook
    info = store.hooks[hook]
    widest = max(one.n for one in units)
    batch_images = max(1, _CHUNK_ELEMENTS // (widest * info.rows_per_image))
    batches = store.image_batches(hook, split=None, batch_images=batch_images)
    with tqdm(total=len(store.readable_images), desc=f"latents of {hook}", unit="image", disable=not progress) as bar:
        for image_ids, rows in batches:
            for one, writer in zip(units, writers, strict=True):
                writer.add(image_activations(rows, one, len(image_ids), aggregate).cpu().numpy())
            bar.update(len(image_ids))


def image_activations(
    rows: Float[torch.Tensor, "rows d"], units: Units, n_images: int, aggregate: Aggregate
) -> Float[torch.Tensor, "images latents"]:
    """Units' activations on images that have as many rows each, aggregated over an image's rows.

    Raises:
        MedSAEError: an activation that is not finite.
    """
    by_row = rearrange(units.encode(rows), "(image position) unit -> image position unit", image=n_images)
    by_image = by_row.amax(1) if aggregate == "max" else by_row.mean(1)
    if not torch.isfinite(by_image).all():
        raise MedSAEError("activations hold nan or infinity; check the encoder's weights and the SAE")
    return by_image


def _is_matrix(folder: Path) -> bool:
    """Whether a folder is a latent matrix, which can be made again, so that it may be replaced."""
    is_ours = (folder / IMAGES).is_file() and (folder / MANIFEST).is_file()
    return is_ours and "sae_sha256" in (folder / MANIFEST).read_text("utf-8")


def _shard_name(shard: int) -> str:
    return f"shard-{shard:05d}.safetensors"


def _shard_names(n_images: int) -> list[str]:
    return [_shard_name(k) for k in range(-(-n_images // ROWS_PER_SHARD))]
