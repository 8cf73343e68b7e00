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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from safetensors import SafetensorError, safe_open

from medsae_plugin.errors import MedSAEError
from medsae_plugin.saved import Saved, WasDict

MANIFEST = "manifest.json"
IMAGES = "images.csv"
FAILURES = "failures.csv"
CHECKSUMS = "SHA256SUMS"
PARTIAL = ".partial"
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class HookInfo:
    """A hook of a store: `n_positions` is the encoder's, `rows_per_image` what the position policy kept of them.

    `grid` is the (rows, columns) of the positions after `n_prefix` prefix tokens, None at an image-level hook.
    `dtype` is the stored one, by its name in torch.
    """

    d: PositiveInt
    n_positions: PositiveInt
    grid: tuple[PositiveInt, PositiveInt] | None
    n_prefix: NonNegativeInt
    rows_per_image: PositiveInt
    dtype: Annotated[str, Field(pattern=f"^({'|'.join(DTYPES)})$")]


class EncoderInfo(WasDict):
    """Whose activations a store holds, and what it computed in."""

    name: str
    weights_sha256: str
    dtype: str


class ImagesInfo(WasDict):
    """A store's images: how many there are, the hash of their table, and how many stand in a shard."""

    count: PositiveInt
    sha256: str
    per_shard: PositiveInt


class Manifest(Saved, WasDict):
    """What was extracted, from what, and how; all that a store's activations follow from.

    preprocessing: the encoder's, as `Preprocessor.config` says it. positions: the policy, as `parse_positions` reads
        it. seed: of positions that are sampled.
    """

    FILE: ClassVar[str] = MANIFEST
    COMMAND: ClassVar[str] = "medsae extract"

    schema_version: Literal[1] = 1
    encoder: EncoderInfo
    preprocessing: dict[str, Any]
    hooks: dict[str, HookInfo]
    positions: str
    seed: int
    images: ImagesInfo

    @property
    def shard_names(self) -> list[str]:
        return [shard_name(i) for i in range(-(-self.images.count // self.images.per_shard))]

    def of_images(self, sha256: str, count: int | None = None) -> Manifest:
        """The same of other images."""
        images = self.images.model_copy(update={"sha256": sha256, "count": count or self.images.count})
        return self.model_copy(update={"images": images})


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}.safetensors"


def read_manifest(folder: Path) -> Manifest:
    """Raises MedSAEError where there is no store, or one that this version cannot read."""
    if not (folder / MANIFEST).is_file():
        raise MedSAEError(f"{folder} is not an activation store: it has no {MANIFEST}")
    return Manifest.open(folder)


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
