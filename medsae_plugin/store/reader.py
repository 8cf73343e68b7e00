"""Reading an activation store."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from medsae_plugin.data.splits import split_hash
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import sha256_of
from medsae_plugin.store import layout
from medsae_plugin.store.layout import HookInfo
from medsae_plugin.store.shuffle import ShuffledRows

# numpy has no bfloat16: rows are gathered as unsigned integers of that size and viewed by torch.
_BITS = {"float32": "uint32", "float16": "uint16", "bfloat16": "uint16"}
# Mapped shards at a time: macOS allows a process 256 open files.
_MAX_MAPPED = 128
_CHUNK_ELEMENTS = 2**20


class ActivationStore:
    """The activations of images at an encoder's hooks, on disk. Files are mapped, never read whole.

    Attributes:
        path: the folder.
        manifest: `manifest.json`: what was extracted, from what, and how.
        hooks: a `HookInfo` of each hook, in the order of the forward pass.
        images: `images.csv`, one row an image of the table, readable or not.
        failures: `failures.csv`, the images that could not be read, with reasons.

    Raises:
        MedSAEError: the folder is not a store, is damaged, or its extraction is unfinished.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = layout.read_manifest(self.path)
        if not (self.path / layout.CHECKSUMS).exists():
            names = self.manifest.shard_names
            done = sum((self.path / name).exists() for name in names)
            raise MedSAEError(
                f"{self.path} is unfinished: {done} of {len(names)} shards are there; run the same extraction again"
            )
        self.hooks = dict(self.manifest.hooks)
        try:
            self.images = _read_csv(self.path / layout.IMAGES)
            self.failures = _read_csv(self.path / layout.FAILURES)
            self._locate()
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise MedSAEError(f"{self.path} is damaged: {error}") from None
        self._mapped = lru_cache(_MAX_MAPPED)(self._map_shard)

    def __repr__(self) -> str:
        return f"ActivationStore({str(self.path)!r})"

    @property
    def title(self) -> str:
        """What messages call it."""
        return str(self.path)

    @property
    def encoder_name(self) -> str:
        """Of the encoder whose activations these are."""
        return self.manifest.encoder.name

    @property
    def weights_sha256(self) -> str:
        """Of the encoder whose activations these are."""
        return self.manifest.encoder.weights_sha256

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """How the images were prepared for it; empty where that is not known."""
        return self.manifest.preprocessing

    def width_at(self, hook: str) -> int | None:
        """d of a hook; None where the store does not have it."""
        return self.hooks[hook].d if hook in self.hooks else None

    @cached_property
    def split_sha256(self) -> str:
        """Of which patient is in which split; see `split_hash`."""
        return split_hash(list(self.images["patient"]), list(self.images["split"]))

    @cached_property
    def training_patients(self) -> dict[str, set[str]]:
        """By the hash of a split, the patients of its training split: what an SAE of that split was trained on."""
        return {self.split_sha256: set(self.images.loc[self.images["split"] == "train", "patient"])}

    @property
    def readable_images(self) -> pd.DataFrame:
        """The rows of `images` that could be read, in the order of `image_batches`."""
        return self.images.iloc[self._readable].reset_index(drop=True)

    def with_splits(self, splits: Sequence[str]) -> ActivationStore:
        """The same store with other splits, one an image of `images`; what SAEs were trained on stays known.

        Raises:
            MedSAEError: not as many.
        """
        if len(splits) != len(self.images):
            raise MedSAEError(f"{self.path} has {len(self.images)} images, and there are splits of {len(splits)}")
        made = copy.copy(self)
        made.__dict__ |= {"split_sha256": self.split_sha256, "training_patients": self.training_patients}
        made.images = self.images.assign(split=list(splits))
        made._split = made.images["split"].to_numpy()[self._readable]
        told = split_hash(list(made.images["path"]), list(splits)) + self.manifest.images.sha256
        made.manifest = self.manifest.of_images(hashlib.sha256(told.encode()).hexdigest())
        return made

    def summary(self) -> str:
        """One line: how many images and rows of what."""
        unreadable = f" ({len(self.failures)} unreadable, see {layout.FAILURES})" if len(self.failures) else ""
        hooks = ", ".join(f"{name} ({self.n_rows(name)} x {hook.d})" for name, hook in self.hooks.items())
        return f"{len(self._shard_of)} images of {self.encoder_name}{unreadable}: {hooks}"

    def n_rows(self, hook: str, split: str | None = None) -> int:
        """How many rows the hook has, of one split or of all; 0 for a split that the store does not have."""
        return len(self._members(split)) * self._info(hook).rows_per_image

    def batches(
        self,
        hooks: str | Sequence[str],
        batch_size: int,
        *,
        split: str | None = "train",
        seed: int = 0,
        start_step: int = 0,
    ) -> Iterator[dict[str, Float[torch.Tensor, "batch d"]]]:
        """An endless stream of batches of float32 rows, shuffled across shards anew in each epoch.

        Every hook's rows are visited once an epoch, in an order that depends on the seed and the number of rows alone,
        so hooks with as many rows an image come in pairs: row i of both is the same image and place. Every batch is
        full; one may end an epoch and begin the next. `start_step` starts at that batch of the same stream, reading
        nothing of the earlier ones. See `ShuffledRows` for how thoroughly large stores are shuffled.

        Raises:
            MedSAEError: an unknown hook, a split without readable images, a damaged shard.
        """
        names = [hooks] if isinstance(hooks, str) else list(hooks)
        if batch_size < 1 or seed < 0 or start_step < 0:
            raise MedSAEError("batch_size must be at least 1, seed and start_step at least 0")
        members = self._some_members(split)
        streams = {name: ShuffledRows(self.n_rows(name, split), seed) for name in names}

        def stream() -> Iterator[dict[str, torch.Tensor]]:
            step = start_step
            while True:
                place = step * batch_size
                yield {name: self._rows(name, members, rows.take(place, batch_size)) for name, rows in streams.items()}
                step += 1

        return stream()

    def image_batches(
        self, hook: str, split: str | None = None, batch_images: int = 64
    ) -> Iterator[tuple[np.ndarray, Float[torch.Tensor, "rows d"]]]:
        """Each readable image once, in ascending order of id, `batch_images` at a time.

        Returns:
            An iterator of (image ids (images,), float32 activations (rows, d)): `rows_per_image` rows an image, in the
            order of the ids and, within an image, of their positions.

        Raises:
            MedSAEError: an unknown hook, a split without readable images, a damaged shard.
        """
        per_image = self._info(hook).rows_per_image
        members = self._some_members(split)

        def stream() -> Iterator[tuple[np.ndarray, torch.Tensor]]:
            for first in range(0, len(members), batch_images):
                count = min(batch_images, len(members) - first)
                rows = np.arange(first * per_image, (first + count) * per_image)
                yield self._readable[members[first : first + count]], self._rows(hook, members, rows)

        return stream()

    def by_image(
        self, hook: str, split: str | None = None, batch_images: int = 64
    ) -> Iterator[tuple[np.ndarray, Float[torch.Tensor, "rows d"], torch.Tensor]]:
        """`image_batches` as version 0.1 had it: with, third, the place of each row's image in the ids."""
        warnings.warn(
            "ActivationStore.by_image is now image_batches, without the third value; the old name goes with 0.3",
            DeprecationWarning,
            stacklevel=2,
        )
        per_image = self._info(hook).rows_per_image
        for ids, rows in self.image_batches(hook, split, batch_images):
            yield ids, rows, torch.arange(len(ids)).repeat_interleave(per_image)

    def rows_of(
        self, hook: str, image_ids: Sequence[int] | Int[np.ndarray, " images"]
    ) -> Float[torch.Tensor, "images rows d"]:
        """The float32 activations of these images, in the order given, each image's rows in that of their positions.

        Raises:
            MedSAEError: an unknown hook, an image that the store does not hold, a damaged shard.
        """
        per_image = self._info(hook).rows_per_image
        ids = np.asarray(image_ids, dtype=np.int64)
        members = np.searchsorted(self._readable, ids)
        held = members < len(self._readable)
        held[held] = self._readable[members[held]] == ids[held]
        if not held.all():
            raise MedSAEError(f"{self.path} holds no activations of image {ids[~held][0]}")
        return self._rows(hook, members, np.arange(len(ids) * per_image)).unflatten(0, (len(ids), per_image))

    def image_rows(self, hook: str, images: slice) -> Float[torch.Tensor, "rows d"]:
        """The rows of a slice of `readable_images`, float32.

        Raises:
            MedSAEError: an unknown hook, a damaged shard.
        """
        per_image = self._info(hook).rows_per_image
        members = np.arange(len(self._readable))[images]
        return self._rows(hook, members, np.arange(len(members) * per_image))

    def mean_and_scale(self, hook: str, split: str | None = "train") -> tuple[Float[torch.Tensor, "d"], float]:
        """The mean mu (d,) of the rows and the scale s for which E||s (x - mu)||^2 = d, in float64, in one pass.

        Raises:
            MedSAEError: as `image_batches`; or all rows are equal, so that no scale exists.
        """
        info = self._info(hook)
        total = torch.zeros(info.d, dtype=torch.float64)
        squares = 0.0
        shift: torch.Tensor | None = None
        for _, rows in self.image_batches(hook, split, max(1, _CHUNK_ELEMENTS // (info.d * info.rows_per_image))):
            x = rows.double()
            if shift is None:
                shift = x.mean(0)  # near mu, so that the difference of squares below keeps its digits
            x = x - shift
            total += x.sum(0)
            squares += float(x.square().sum())
        assert shift is not None
        n = self.n_rows(hook, split)
        offset = total / n
        variance = squares / n - float(offset.square().sum())
        if variance <= 0:
            raise MedSAEError(f"{self.path}: all rows of {hook} are equal, so they cannot be scaled")
        return shift + offset, (info.d / variance) ** 0.5

    def verify(self) -> list[str]:
        """Check every file against its checksum.

        Returns:
            One line a problem (a file missing, truncated, changed, not of the store); empty when all is sound.
        """
        sums = layout.read_checksums(self.path)
        problems = []
        expected = [layout.MANIFEST, layout.IMAGES, layout.FAILURES, *self.manifest.shard_names]
        for name in expected:
            path = self.path / name
            if name not in sums:
                problems.append(f"{name}: no checksum in {layout.CHECKSUMS}")
            elif not path.is_file():
                problems.append(f"{name}: missing")
            elif sha256_of(path) != sums[name]:
                problems.append(f"{name}: {_what_changed(path)}")
        known = {*expected, layout.CHECKSUMS, layout.PARTIAL}
        extra = {entry.name for entry in self.path.iterdir()} | set(sums)
        return problems + [f"{name}: not a file of the store" for name in sorted(extra - known)]

    def _locate(self) -> None:
        """The place of each readable image: its shard, and its slot within."""
        count, per_shard = self.manifest.images.count, self.manifest.images.per_shard
        ids = self.images["image_id"].to_numpy()
        if not np.array_equal(ids, np.arange(count)):
            raise ValueError(f"{layout.IMAGES} does not hold the {count} images of the manifest")
        self._readable = np.setdiff1d(ids, self.failures["image_id"].to_numpy())
        self._shard_of = self._readable // per_shard
        self._slot = np.arange(len(self._readable)) - np.searchsorted(self._shard_of, self._shard_of)
        self._split = self.images["split"].to_numpy()[self._readable]

    def _members(self, split: str | None) -> np.ndarray:
        """The places among the readable images of those in the split."""
        return np.arange(len(self._readable)) if split is None else np.flatnonzero(self._split == split)

    def _some_members(self, split: str | None) -> np.ndarray:
        members = self._members(split)
        if len(members) == 0:
            has = ", ".join(sorted(set(self._split) - {""})) or "none"
            raise MedSAEError(f"{self.path} has no readable images in split {split!r} (splits it has: {has})")
        return members

    def _info(self, hook: str) -> HookInfo:
        if hook not in self.hooks:
            raise MedSAEError(f"{self.path} has no hook {hook!r}; it has {', '.join(self.hooks)}")
        return self.hooks[hook]

    def _rows(self, hook: str, members: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """Rows counted over the images `members`, as float32."""
        info = self.hooks[hook]
        image, within = np.divmod(rows, info.rows_per_image)
        place = members[image]
        shard, row = self._shard_of[place], self._slot[place] * info.rows_per_image + within
        bits = np.empty((len(rows), info.d), _BITS[info.dtype])
        order = np.argsort(shard, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1):
            bits[group] = self._mapped(int(shard[group[0]]))[hook][row[group]]
        return torch.from_numpy(bits).view(getattr(torch, info.dtype)).float()

    def _map_shard(self, shard: int) -> dict[str, np.ndarray]:
        """The bits of each hook's activations, mapped."""
        path = self.path / layout.shard_name(shard)
        n_images = int((self._shard_of == shard).sum())
        mapped = {}
        with layout.open_shard(path) as tensors:
            there = {*tensors.keys()}
            for name, info in self.hooks.items():
                shape, key = (n_images * info.rows_per_image, info.d), f"{name}/activations"
                held = tensors.get_tensor(key) if key in there else None
                if held is None or held.shape != shape or held.dtype != getattr(torch, info.dtype):
                    raise MedSAEError(
                        f"{path} does not hold {name} as {list(shape)} {info.dtype}, as the manifest says"
                    )
                mapped[name] = held.view(getattr(torch, _BITS[info.dtype])).numpy()
        return mapped


def _read_csv(path: Path) -> pd.DataFrame:
    # Nothing but text: a patient called "NA" or "007" stays one.
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return frame.astype({"image_id": np.int64})


def _what_changed(path: Path) -> str:
    if path.suffix == ".safetensors":
        try:
            with layout.open_shard(path):
                pass
        except MedSAEError as error:
            return str(error).removeprefix(str(path)).removeprefix(" is ")
    return "changed: its checksum is not that of the extraction"
