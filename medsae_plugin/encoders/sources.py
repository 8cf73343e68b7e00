"""Where a card's checkpoint comes from: files on this machine or on the Hub, and what to do when the Hub refuses."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from medsae_plugin.encoders.card import EncoderCard
from medsae_plugin.errors import MedSAEError
from medsae_plugin.fetch import hub_file_if_any
from medsae_plugin.files import sha256_of

CONFIG = "config.json"


@dataclass(frozen=True)
class Source:
    """A card's checkpoint: at a place that is given, else at the card's own.

    given: a folder, or the checkpoint file itself; None takes the card's source.
    cache_dir: what is fetched goes there; None is the Hub's cache, and `MEDSAE_CACHE` for a URL.
    local_files_only: fetch nothing.
    """

    card: EncoderCard
    given: Path | None = None
    cache_dir: Path | None = None
    local_files_only: bool = False

    @property
    def place(self) -> str:
        """The local path that holds the weights, or the Hub id of the card's source."""
        if self.given is not None:
            return str(self.given.expanduser().absolute())
        return str(self.card.source_path or self.card.source.get("path", ""))

    @property
    def is_of_the_hub(self) -> bool:
        """Whether the weights are in a repository of the Hub."""
        place = self.place
        return bool(place) and self.card.source["format"] != "medsae" and not (Path(place).exists() or is_local(place))

    def at(self, revision: str) -> Source:
        """The source at another revision.

        Raises:
            MedSAEError: it is not on the Hub.
        """
        if not self.is_of_the_hub:
            where = self.place or self.card.source.get("url") or "given in Python"
            raise MedSAEError(f"card {self.card.name}: its weights are not on the Hub ({where}), and have no revision")
        card = dataclasses.replace(self.card, source={**self.card.source, "revision": revision})
        return dataclasses.replace(self, card=card)

    def files(self, names: Sequence[str], wanted: Callable[[str], object] = lambda key: True) -> list[Path]:
        """The files that hold the checkpoint, fetched if need be: one, or the shards that hold `wanted` keys.

        Args:
            names: what the checkpoint may be called, the best first.

        Raises:
            MedSAEError: no such file, or a Hub that refuses: how to get access, if the repository is gated.
        """
        place = self.place
        if Path(place).is_file():
            return [Path(place)]
        found = next((path for name in names if (path := self.file(name))), None)
        if found is None:
            raise MedSAEError(f"card {self.card.name}: {place} cannot be loaded: it holds none of {', '.join(names)}")
        if found.suffix != ".json":
            return [found]
        try:
            shards = sorted({s for key, s in json.loads(found.read_text("utf-8"))["weight_map"].items() if wanted(key)})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise MedSAEError(f"{found} is not an index of a checkpoint's files") from None
        if strange := [shard for shard in shards if Path(shard).name != shard]:
            raise MedSAEError(f"{found} names a file outside its folder: {strange[0]!r}")
        paths = [(shard, self.file(shard)) for shard in shards]
        if lacking := [shard for shard, path in paths if path is None]:
            raise MedSAEError(f"card {self.card.name}: {place} lacks {', '.join(lacking)}, which its index names")
        return [path for _, path in paths if path]

    def file(self, name: str) -> Path | None:
        """The file `name` of the folder, or of the Hub repository at the card's revision; None where it has none.

        Raises:
            MedSAEError: the Hub refuses or cannot be reached, and the file is in no cache.
        """
        place = self.place
        if Path(place).is_dir():
            path = Path(place) / name
            return path if path.is_file() else None
        if is_local(place):
            raise MedSAEError(f"card {self.card.name}: {place} cannot be loaded: there is no such folder")
        return hub_file_if_any(
            place,
            name,
            self.card.source.get("revision"),
            what=f"card {self.card.name}: {place}",
            note=self.card.access or "",
            cache_dir=self.cache_dir,
            local_files_only=self.local_files_only,
        )

    def folder(self, why: str = "cannot be loaded: it") -> Path:
        """The folder that holds the checkpoint's `config.json`.

        Raises:
            MedSAEError: it has none.
        """
        config = self.file(CONFIG)
        if config is None:
            raise MedSAEError(f"card {self.card.name}: {self.place} {why} holds no {CONFIG}")
        return config.parent


def is_local(place: str) -> bool:
    """Whether a source's path is no Hub id, even where nothing is there."""
    return place.startswith((".", "/", "~"))


def check_sha256(card: EncoderCard, files: Sequence[Path]) -> None:
    """Raises MedSAEError where the files are not those whose SHA-256 the card says."""
    expected = card.source.get("sha256")
    if expected and checkpoint_sha256(files) != expected:
        raise MedSAEError(f"{files[0]} is not the file that card {card.name} names: its sha256 is another")


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
