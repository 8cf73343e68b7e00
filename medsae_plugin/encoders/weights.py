"""Official checkpoints to files on disk: given, or fetched to the cache, and checked."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from medsae_plugin.encoders.sources import Source
from medsae_plugin.errors import MedSAEError
from medsae_plugin.fetch import download, unpack
from medsae_plugin.files import sha256_of

CHECKPOINT = "pytorch_model.bin"


def cache_folder() -> Path:
    """`MEDSAE_CACHE`, or `~/.cache/medsae`."""
    return Path(os.environ.get("MEDSAE_CACHE", "~/.cache/medsae")).expanduser()


def official_checkpoint(source: Source) -> Path:
    """The checkpoint file of a source that is given as a file, the official zip, or a folder holding one of them.

    Where none is given, the card's URL is fetched to the cache first.

    Raises:
        MedSAEError: nothing there, a damaged or hostile zip, a download that fails or has the wrong checksum.
    """
    card, cache = source.card, source.cache_dir or cache_folder()
    path = source.given.expanduser() if source.given is not None else _fetched(source, cache)
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        raise MedSAEError(f"no weights at {path}; give {CHECKPOINT}, the official zip, or a folder holding either")
    if zipfile.is_zipfile(path) and not _is_torch_zip(path):
        path = _in_folder(unpack(path, cache / card.name / sha256_of(path)[:16]))
    expected = card.source.get("sha256")
    if expected and sha256_of(path) != expected:
        raise MedSAEError(f"{path} is not the checkpoint that card {card.name} names: its sha256 is another")
    return path


def _in_folder(folder: Path) -> Path:
    for pattern in (CHECKPOINT, "*.safetensors", "*.zip"):
        found = sorted(folder.rglob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise MedSAEError(f"{folder} holds {len(found)} files {pattern}; name the one to load")
    raise MedSAEError(f"{folder} holds no {CHECKPOINT}, no .safetensors and no .zip")


def _is_torch_zip(path: Path) -> bool:
    # torch.save writes a zip too; its pickle is what tells it from an archive of a checkpoint.
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/data.pkl") for name in archive.namelist())


def _fetched(source: Source, cache: Path) -> Path:
    url = source.card.source["url"]
    target = cache / source.card.name / url.rsplit("/", 1)[-1]
    if not target.is_file():
        if source.local_files_only:
            raise MedSAEError(f"{url} is not in the cache ({target}), and local_files_only is set")
        download(url, target)
    return target
