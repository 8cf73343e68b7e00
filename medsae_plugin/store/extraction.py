"""One pass of images through an encoder, into an activation store."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from medsae_plugin.encoders.hook_names import select_hooks
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import free_bytes, writing
from medsae_plugin.precision import FP32, Precision
from medsae_plugin.store import layout
from medsae_plugin.store.computing import activations_of, choose, computing_in, manifest_dtype
from medsae_plugin.store.decoding import Decoded, Request, decode, default_workers, worker_deaths_explained
from medsae_plugin.store.layout import DTYPES, EncoderInfo, HookInfo, ImagesInfo, Manifest
from medsae_plugin.store.plan import ExtractionPlan, Stopwatch, peak_bytes
from medsae_plugin.store.positions import PositionPolicy, parse_positions
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.store.writer import StoreWriter

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.encoders import HookedVisionEncoder, HookSpec

# A shard is what a killed run loses, and two of them are in memory: one being filled, one being written.
_SHARD_BYTES = 2**27
_MOST_IMAGES_PER_SHARD = 1024
_LEAST_IMAGES_PER_SHARD = 32
_POLL_SECONDS = 0.2
_TRIED_BATCHES = 5  # for a plan


def extract(
    encoder: HookedVisionEncoder,
    images: ImageTable,
    hooks: str | Sequence[str],
    out: str | Path,
    *,
    positions: str | PositionPolicy = "all",
    batch_size: int = 32,
    images_per_shard: int | None = None,
    workers: int | None = None,
    dtype: torch.dtype = torch.float32,
    precision: str = FP32,
    seed: int = 0,
    strict: bool = False,
    progress: bool = True,
) -> ActivationStore:
    """Store the encoder's activations at `hooks` for every image of the table, from one pass over the images.

    Run again on the same folder, it goes on after the shards that are there; several processes may run it on one folder
    at once and share the work. However it was interrupted and shared, the same call leaves the same files, byte for
    byte. (Another batch size or device may change the last bits of an activation, and is allowed when going on.)

    Args:
        encoder: its `activations`, `preprocessor` and `hook_specs` are used.
        images: their ids, patients and splits go into the store, never labels or absolute paths.
        hooks: names of `encoder.hook_specs`, or patterns: `blocks.{0..5}.hook_resid_post`, `blocks.*.hook_mlp_out`,
            `all` (see `encoders.hook_names.select_hooks`).
        out: the store's folder; made if it is not there.
        positions: `all`, `cls`, `mean` or `sample:N`, see `PositionPolicy`.
        batch_size: images a forward pass; a batch does not reach beyond its shard.
        images_per_shard: by default so many that a shard has about 128 MiB, but 32 to 1024.
        workers: decoding processes; by default one less than the cores, 1 to 8. 0 decodes in this process.
        dtype: what is stored: float32, float16 or bfloat16.
        precision: what the encoder computes in: `fp32`; `bf16`, mixed precision; or `auto`, which is bf16 where the
            chip computes in it and the first images' activations are as near to fp32's as `medsae_plugin.precision`
            says. A store is of one precision, which its manifest says and `auto` goes on in.
        seed: of `sample:N`.
        strict: an unreadable image is an error instead of a row of `failures.csv`.
        progress: a bar on stderr with images per second and time left.

    Raises:
        MedSAEError: an unknown hook or a policy it cannot follow; a disk that cannot hold the store, before anything is
            begun; `out` holds something else, or a store whose manifest disagrees or that is of another precision; an
            unreadable image if `strict`, or nothing but; an activation that is not finite; memory or disk run out; a
            decoding process died. Finished shards are kept.
    """
    out = Path(out)
    job = _job(encoder, images, hooks, out, positions, dtype, precision, seed, strict, batch_size, workers, progress)
    manifest = _manifest(job, images_per_shard)
    plan = _plan(job, manifest, out)
    plan.check_disk(out)
    if progress and plan.images_left:
        sys.stderr.write(f"extraction: {plan}\n")
    with writing(out, "Finished shards are kept"):
        writer = StoreWriter(out, manifest, images.frame)
        try:
            with computing_in(encoder, job.precision.name):
                _fill(job, writer)
        finally:
            writer.release_all()
        writer.finish()
    store = ActivationStore(out)
    if strict and len(store.failures):
        first = store.failures.iloc[0]
        raise MedSAEError(f"{first['path']}: {first['reason']} ({len(store.failures)} unreadable images in {out})")
    return store


def plan_extraction(
    encoder: HookedVisionEncoder,
    images: ImageTable,
    hooks: str | Sequence[str],
    out: str | Path,
    *,
    positions: str | PositionPolicy = "all",
    batch_size: int = 32,
    images_per_shard: int | None = None,
    workers: int | None = None,
    dtype: torch.dtype = torch.float32,
    precision: str = FP32,
    seed: int = 0,
) -> ExtractionPlan:
    """What `extract` with the same arguments would take: disk, memory, and the time, from a few batches that are tried.

    Nothing is written.

    Raises:
        MedSAEError: what `extract` refuses before it starts, but for a disk that cannot hold the store.
    """
    out = Path(out)
    job = _job(encoder, images, hooks, out, positions, dtype, precision, seed, False, batch_size, workers, False)
    plan = _plan(job, _manifest(job, images_per_shard), out)
    if not plan.images_left:
        return plan
    stopwatch, n = Stopwatch(), min(len(images), _TRIED_BATCHES * batch_size)
    requests = (Request(0, range(n)[first : first + batch_size], False) for first in range(0, n, batch_size))
    buffer, paths = _ShardBuffer(job, n), images.frame["path"].tolist()
    with worker_deaths_explained(), computing_in(encoder, job.precision.name):
        for batch in decode(images.root, paths, encoder.preprocessor, requests, job.workers):
            _add(job, buffer, batch)
            stopwatch.batch(len(batch.request.image_ids))
    return replace(plan, seconds=stopwatch.seconds_for(plan.images_left), peak=peak_bytes())


def _plan(job: _Job, manifest: Manifest, out: Path) -> ExtractionPlan:
    """From shapes alone."""
    per_shard, count = manifest.images.per_shard, len(job.images)
    left = count
    if (out / layout.MANIFEST).is_file() and layout.read_manifest(out) == manifest:
        names = enumerate(manifest.shard_names)
        left -= sum(min(per_shard, count - k * per_shard) for k, name in names if (out / name).is_file())
    size = job.encoder.preprocessor.config["size"]
    pixels = size**2 if isinstance(size, int) else math.prod(size)
    waiting, computed = 2 * job.workers + 1, 4  # batches, in bytes and as float32
    return ExtractionPlan(
        job.hooks,
        count,
        left,
        per_shard,
        free_bytes(out),
        sum(w.numel() * w.element_size() for w in job.encoder.vision_model.state_dict().values()),
        job.batch_size * 3 * pixels * (waiting + computed),
        job.precision,
    )


@dataclass(frozen=True)
class _Job:
    encoder: HookedVisionEncoder
    images: ImageTable
    hooks: dict[str, HookInfo]
    policy: PositionPolicy
    dtype: torch.dtype
    precision: Precision
    seed: int
    strict: bool
    batch_size: int
    workers: int
    progress: bool


class _ShardBuffer:
    """The rows of a shard that is being filled."""

    def __init__(self, job: _Job, n_images: int) -> None:
        self._job = job
        self._ends = dict.fromkeys(job.hooks, 0)
        self._rows = {
            name: torch.empty((n_images * info.rows_per_image, info.d), dtype=job.dtype)
            for name, info in job.hooks.items()
        }
        self._positions = {name: np.empty(len(rows), np.int32) for name, rows in self._rows.items()}
        self._images = {name: np.empty(len(rows), np.int32) for name, rows in self._rows.items()}
        self.failures: list[tuple[int, str]] = []

    def add(self, activations: dict[str, torch.Tensor], image_ids: list[int]) -> None:
        """Raises MedSAEError where an activation, as stored, is not finite."""
        job = self._job
        for name, info in job.hooks.items():
            rows, positions = job.policy.select(activations[name], job.encoder.hook_specs[name], image_ids, job.seed)
            first, end = self._ends[name], self._ends[name] + len(rows)
            stored = self._rows[name][first:end]
            stored.copy_(rows)
            if not stored.isfinite().all():
                bad = int((~stored.isfinite().all(1)).nonzero()[0]) // info.rows_per_image
                raise MedSAEError(
                    f"{job.images.frame['path'].iloc[image_ids[bad]]}: activations at {name} are not finite as "
                    f"{info.dtype}; check the encoder's weights"
                    + ("" if info.dtype == "float32" else ", or store float32")
                )
            self._positions[name][first:end] = positions
            self._images[name][first:end] = np.repeat(np.asarray(image_ids, np.int32), info.rows_per_image)
            self._ends[name] = end

    def tensors(self) -> dict[str, torch.Tensor]:
        tensors = {}
        for name, end in self._ends.items():
            tensors[f"{name}/activations"] = self._rows[name][:end]
            tensors[f"{name}/image_index"] = torch.from_numpy(self._images[name][:end])
            tensors[f"{name}/position"] = torch.from_numpy(self._positions[name][:end])
        return tensors


def _fill(job: _Job, writer: StoreWriter) -> None:
    """Write the missing shards, and wait for those that other writers have claimed, taking over if one dies."""
    missing = writer.missing() if not writer.is_complete else []
    if not missing:
        return
    n_images, n_missing = len(job.images), sum(len(writer.shard_images(shard)) for shard in missing)
    with tqdm(
        total=n_images, initial=n_images - n_missing, unit="image", desc="extracting", disable=not job.progress
    ) as bar:
        while missing:
            if any(_is_free(writer, shard) for shard in missing):
                _fill_claimed(job, writer, bar)
            else:
                time.sleep(_POLL_SECONDS)
            missing = writer.missing()
            bar.n = n_images - sum(len(writer.shard_images(shard)) for shard in missing)
            bar.refresh()


def _is_free(writer: StoreWriter, shard: int) -> bool:
    # Let go again: workers forked while a lock is held would hold it too, and outlive a killed parent by seconds.
    free = writer.claim(shard)
    if free:
        writer.release(shard)
    return free


def _fill_claimed(job: _Job, writer: StoreWriter, bar: tqdm) -> None:
    """Claim shards, one after the other, and write them, until none is left to claim."""
    paths = job.images.frame["path"].tolist()
    writing: Future[None] | None = None
    buffer: _ShardBuffer | None = None
    with worker_deaths_explained(), ThreadPoolExecutor(1, "shard-writer") as pool:
        requests = _requests(writer, job.batch_size)
        for batch in decode(job.images.root, paths, job.encoder.preprocessor, requests, job.workers):
            shard = batch.request.shard
            buffer = buffer or _ShardBuffer(job, len(writer.shard_images(shard)))
            _add(job, buffer, batch)
            bar.update(len(batch.request.image_ids))
            if batch.request.is_last:
                if writing is not None:
                    writing.result()
                writing = pool.submit(_write, writer, shard, buffer)
                buffer = None
        if writing is not None:
            writing.result()


def _requests(writer: StoreWriter, batch_size: int) -> Iterator[Request]:
    """The batches of claimed shards. They are cut shard by shard: a resumed run computes the same batches."""
    for shard in writer.claims():
        ids = writer.shard_images(shard)
        for first in range(0, len(ids), batch_size):
            yield Request(shard, ids[first : first + batch_size], first + batch_size >= len(ids))


def _add(job: _Job, buffer: _ShardBuffer, batch: Decoded) -> None:
    buffer.failures += batch.failures
    if job.strict and batch.failures:
        image, reason = batch.failures[0]
        raise MedSAEError(f"{job.images.frame['path'].iloc[image]}: {reason}")
    if batch.arrays is None:
        return
    try:
        buffer.add(activations_of(job.encoder, batch.arrays, list(job.hooks)), batch.image_ids)
    except torch.OutOfMemoryError as error:
        raise MedSAEError(
            f"{job.encoder.device} ran out of memory at batch size {job.batch_size}. Finished shards are kept: run "
            "the same extraction again with a smaller one"
        ) from error


def _write(writer: StoreWriter, shard: int, buffer: _ShardBuffer) -> None:
    writer.write(shard, buffer.tensors(), buffer.failures)
    writer.release(shard)


def _hook_infos(
    encoder: HookedVisionEncoder, hooks: Sequence[str], policy: PositionPolicy, dtype: torch.dtype
) -> dict[str, HookInfo]:
    """In the order of the forward pass, whatever the order asked for."""
    if dtype not in [getattr(torch, name) for name in DTYPES]:
        raise MedSAEError(f"activations cannot be stored as {dtype}; use {', '.join(DTYPES)}")
    if not hooks:
        raise MedSAEError(f"no hook was asked for; {encoder.name} has {', '.join(encoder.hook_specs)}")
    infos = {}
    for name in select_hooks(hooks, [*encoder.hook_specs], encoder.name):
        spec = encoder.hook_specs[name]
        policy.check(spec)
        infos[name] = hook_info(spec, policy, dtype)
    return infos


def hook_info(spec: HookSpec, policy: PositionPolicy, dtype: torch.dtype) -> HookInfo:
    """How a store describes a hook that it keeps by this policy, in this dtype."""
    stored = str(dtype).removeprefix("torch.")
    return HookInfo(spec.d, spec.n_positions, spec.grid, spec.n_prefix, policy.rows_per_image(spec), stored)


def _job(
    encoder: HookedVisionEncoder,
    images: ImageTable,
    hooks: str | Sequence[str],
    out: Path,
    positions: str | PositionPolicy,
    dtype: torch.dtype,
    precision: str,
    seed: int,
    strict: bool,
    batch_size: int,
    workers: int | None,
    progress: bool,
) -> _Job:
    """The arguments of `extract`, checked."""
    policy = parse_positions(positions) if isinstance(positions, str) else positions
    workers = default_workers() if workers is None else workers
    if batch_size < 1 or workers < 0 or seed < 0:
        raise MedSAEError("batch_size must be at least 1, workers and seed at least 0")
    if len(images) == 0:
        raise MedSAEError("the table has no images")
    infos = _hook_infos(encoder, [hooks] if isinstance(hooks, str) else hooks, policy, dtype)
    computed = choose(precision, out, encoder, images, [*infos], policy, seed, batch_size)
    return _Job(encoder, images, infos, policy, dtype, computed, seed, strict, batch_size, workers, progress)


def _manifest(job: _Job, images_per_shard: int | None) -> Manifest:
    if images_per_shard is not None and images_per_shard < 1:
        raise MedSAEError("images_per_shard must be at least 1")
    encoder, images = job.encoder, job.images
    per_shard = images_per_shard or _default_per_shard(job.hooks, job.dtype)
    dtype = manifest_dtype(encoder, job.precision)
    return Manifest(
        encoder=EncoderInfo(name=encoder.name, weights_sha256=encoder.weights_sha256, dtype=dtype),
        preprocessing=encoder.preprocessor.config,
        hooks=job.hooks,
        positions=str(job.policy),
        seed=job.seed,
        images=ImagesInfo(count=len(images), sha256=images.content_hash(), per_shard=per_shard),
    )


def _default_per_shard(hooks: dict[str, HookInfo], dtype: torch.dtype) -> int:
    image_bytes = sum(info.rows_per_image * info.d * dtype.itemsize for info in hooks.values())
    fitting = _SHARD_BYTES // image_bytes // _LEAST_IMAGES_PER_SHARD * _LEAST_IMAGES_PER_SHARD
    return math.floor(min(_MOST_IMAGES_PER_SHARD, max(_LEAST_IMAGES_PER_SHARD, fitting)))
