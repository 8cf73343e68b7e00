"""Checkpoints on the Hub and in local folders: which files hold them, and what to do when the Hub refuses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from medsae_plugin.encoders.cards import EncoderCard
from medsae_plugin.errors import MedSAEError
from medsae_plugin.fetch import hub_file
from medsae_plugin.files import sha256_of

CONFIG = "config.json"
TRANSFORMERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def place_of(card: EncoderCard, weights: str | Path | None) -> str:
    """The local path that holds the card's weights, or the Hub id of its source."""
    if weights is not None:
        return str(Path(weights).expanduser().absolute())
    return str(card.source_path or card.source.get("path", ""))


def weight_files(
    card: EncoderCard,
    weights: str | Path | None,
    names: Sequence[str] = TRANSFORMERS,
    wanted: Callable[[str], bool] = lambda key: True,
) -> list[Path]:
    """The files that hold a checkpoint, fetched from the Hub if need be: one, or the shards that hold `wanted` keys.

    Args:
        weights: a folder, or the checkpoint file itself; None takes the card's source.
        names: what the checkpoint may be called, the best first.

    Raises:
        MedSAEError: no such file, or a Hub that refuses: how to get access, if the repository is gated.
    """
    place = place_of(card, weights)
    if Path(place).is_file():
        return [Path(place)]
    found = next((path for name in names if (path := fetched(card, place, name))), None)
    if found is None:
        raise MedSAEError(f"card {card.name}: {place} cannot be loaded: it holds none of {', '.join(names)}")
    if found.suffix != ".json":
        return [found]
    try:
        shards = sorted({s for key, s in json.loads(found.read_text("utf-8"))["weight_map"].items() if wanted(key)})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MedSAEError(f"{found} is not an index of a checkpoint's files") from None
    if strange := [shard for shard in shards if Path(shard).name != shard]:
        raise MedSAEError(f"{found} names a file outside its folder: {strange[0]!r}")
    paths = [(shard, fetched(card, place, shard)) for shard in shards]
    if lacking := [shard for shard, path in paths if path is None]:
        raise MedSAEError(f"card {card.name}: {place} lacks {', '.join(lacking)}, which its index names")
    return [path for _, path in paths if path]


def is_local(place: str) -> bool:
    """Whether a source's path is no Hub id, even where nothing is there."""
    return place.startswith((".", "/", "~"))


def fetched(card: EncoderCard, place: str, name: str) -> Path | None:
    """The file `name` of a folder or of a Hub repository at the card's revision; None where it has none.

    Raises:
        MedSAEError: the Hub refuses or cannot be reached, and the file is in no cache.
    """
    if Path(place).is_dir():
        path = Path(place) / name
        return path if path.is_file() else None
    if is_local(place):
        raise MedSAEError(f"card {card.name}: {place} cannot be loaded: there is no such folder")
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return hub_file(
            place,
            name,
            card.source.get("revision"),
            what=f"card {card.name}: {place}",
            note=card.access or "",
            but=EntryNotFoundError,
        )
    except EntryNotFoundError:
        return None


def checkpoint_sha256(files: Sequence[Path]) -> str:
    """The SHA-256 of one file; of several, that of their names and SHA-256s, a line each."""
    if len(files) == 1:
        return sha256_of(files[0])
    lines = "".join(f"{path.name} {sha256_of(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def state_sha256(module: nn.Module) -> str:
    """The SHA-256 of a module's parameters and buffers: their names and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
