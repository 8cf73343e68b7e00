"""The files of an activation store.

    manifest.json              what was extracted, from what, and how
    images.csv                 every image of the table: image_id, path (relative to the image root), patient, split
    failures.csv               the images that could not be read: image_id, path, reason
    shard-00000.safetensors    shard i: images i * images_per_shard up to the next shard's first
    SHA256SUMS                 a checksum of each file above (`sha256sum -c`); written last: it marks the store complete
    .partial/                  locks and unfinished files, until the store is complete

A shard holds, per hook, `<hook>/activations (rows, d)`, `<hook>/image_index (rows)`, the image_id, and
`<hook>/position (rows)`, images in ascending order. Each readable image has the same number of rows at a hook. The
images of a shard that could not be read are in the header's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from medsae_plugin.errors import MedSAEError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
IMAGES = "images.csv"
FAILURES = "failures.csv"
CHECKSUMS = "SHA256SUMS"
PARTIAL = ".partial"


@dataclass(frozen=True)
class HookInfo:
    """A hook of a store: `n_positions` is the encoder's, `rows_per_image` what the position policy kept of them.

    `grid` is the (rows, columns) of the positions after `n_prefix` prefix tokens, None at an image-level hook.
    `dtype` is the stored one, by its name in torch.
    """

    d: int
    n_positions: int
    grid: tuple[int, int] | None
    n_prefix: int
    rows_per_image: int
    dtype: str

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> HookInfo:
        return cls(**{**entry, "grid": None if entry["grid"] is None else tuple(entry["grid"])})

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "grid": None if self.grid is None else list(self.grid)}


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}.safetensors"


def n_shards(manifest: Mapping[str, Any]) -> int:
    return -(-manifest["images"]["count"] // manifest["images"]["per_shard"])


def shard_names(manifest: Mapping[str, Any]) -> list[str]:
    return [shard_name(i) for i in range(n_shards(manifest))]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises MedSAEError where there is no store, or one that this version cannot read."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
        version = manifest["schema_version"]
    except FileNotFoundError:
        raise MedSAEError(f"{folder} is not an activation store: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise MedSAEError(f"{path} is damaged ({error})") from None
    if version != SCHEMA_VERSION:
        raise MedSAEError(
            f"{folder} has schema version {version}; this version of medsae-plugin reads {SCHEMA_VERSION}"
        )
    return manifest


@contextmanager
def open_shard(path: Path) -> Iterator[Any]:
    """A shard's `safe_open`, which maps tensors and reads none before it is used.

    Raises:
        MedSAEError: the file is missing, not a safetensors file, or shorter or longer than its header says.
    """
    try:
        with safe_open(path, framework="pt") as shard:
            yield shard
    except FileNotFoundError:
        raise MedSAEError(f"{path} is missing") from None
    except SafetensorError as error:
        cut = "truncated or too long" if "not fully covered" in str(error) else "damaged"
        raise MedSAEError(f"{path} is {cut}: {error}") from None


def shard_failures(path: Path) -> list[tuple[int, str]]:
    """The shard's unreadable images: (image_id, reason)."""
    with open_shard(path) as shard:
        return [(image, reason) for image, reason in json.loads(shard.metadata()["failures"])]


def read_checksums(folder: Path) -> dict[str, str]:
    """`SHA256SUMS`: file name to digest."""
    lines = (folder / CHECKSUMS).read_text("utf-8", errors="replace").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
