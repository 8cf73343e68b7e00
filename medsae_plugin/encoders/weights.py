"""Official checkpoints to files on disk: fetched, resumed, checked, unpacked inside their folder."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from medsae_plugin.encoders.sources import Source
from medsae_plugin.errors import MedSAEError
from medsae_plugin.fetch import download
from medsae_plugin.files import make_folder, sha256_of, writing

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


def unpack(archive_path: Path, folder: Path) -> Path:
    """Unpack a zip into `folder`, which appears whole or not at all; returns it. Done already, it is left alone.

    Raises:
        MedSAEError: a damaged archive, or a member that is a link or would land outside the folder.
    """
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name))
    try:
        with writing(folder, "MEDSAE_CACHE names another folder"):
            with zipfile.ZipFile(archive_path) as archive:
                for member in archive.infolist():
                    _unpack_member(archive, member, temporary)
            temporary.rename(folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError) as error:
        raise MedSAEError(f"{archive_path} is damaged: {error}; delete it and fetch it again") from None
    except MedSAEError as error:
        if not (isinstance(error.__cause__, OSError) and folder.is_dir()):  # else another process unpacked it meanwhile
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in str(name) or stat.S_ISLNK(member.external_attr >> 16):
        raise MedSAEError(f"{archive.filename} is not unpacked: its member {member.filename!r} would leave the folder")
    target = folder / name
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def _fetched(source: Source, cache: Path) -> Path:
    url = source.card.source["url"]
    target = cache / source.card.name / url.rsplit("/", 1)[-1]
    if not target.is_file():
        if source.local_files_only:
            raise MedSAEError(f"{url} is not in the cache ({target}), and local_files_only is set")
        download(url, target)
    return target
