"""Official checkpoints to files on disk: fetched, resumed, checked, unpacked inside their folder."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from medsae_plugin.encoders.cards import EncoderCard
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import sha256_of

CHECKPOINT = "pytorch_model.bin"
_ATTEMPTS = 5


def cache_folder() -> Path:
    """`MEDSAE_CACHE`, or `~/.cache/medsae`."""
    return Path(os.environ.get("MEDSAE_CACHE", "~/.cache/medsae")).expanduser()


def official_checkpoint(card: EncoderCard, weights: str | Path | None) -> Path:
    """The checkpoint file that `weights` holds; with None, the card's URL is fetched to the cache first.

    Args:
        weights: a `pytorch_model.bin` (or `.safetensors`), the official zip, or a folder holding one of them.

    Raises:
        MedSAEError: nothing there, a damaged or hostile zip, a download that fails or has the wrong checksum.
    """
    path = Path(weights).expanduser() if weights is not None else _fetched(card)
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        raise MedSAEError(f"no weights at {path}; give {CHECKPOINT}, the official zip, or a folder holding either")
    if zipfile.is_zipfile(path) and not _is_torch_zip(path):
        path = _in_folder(unpack(path, cache_folder() / card.name / sha256_of(path)[:16]))
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
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with zipfile.ZipFile(archive_path) as archive:
            for member in archive.infolist():
                _unpack_member(archive, member, temporary)
        temporary.rename(folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise MedSAEError(f"{archive_path} is damaged: {error}; delete it and fetch it again") from None
    except OSError:
        if not folder.is_dir():  # else another process unpacked it meanwhile
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


def _fetched(card: EncoderCard) -> Path:
    url = card.source["url"]
    target = cache_folder() / card.name / url.rsplit("/", 1)[-1]
    if not target.is_file():
        download(url, target)
    return target


def download(url: str, target: Path) -> None:
    """Fetch `url` to `target` with a progress bar; a part left by a cut is continued, now or by the next call.

    Raises:
        MedSAEError: the server refuses, or the connection is cut time and again; what has come is kept.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(_ATTEMPTS):
        try:
            if _continue(url, part):
                part.replace(target)
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                part.unlink(missing_ok=True)
                raise MedSAEError(f"{url} cannot be fetched: the server says {error.code} {error.reason}") from None
            reason = f"the server says {error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            reason = str(error)
        time.sleep(min(2**attempt, 10) * 0.25)
    raise MedSAEError(f"{url} cannot be fetched: {reason}; run it again to go on, or give the file as weights")


def _continue(url: str, part: Path) -> bool:
    """Append to `part` what is missing of `url`; whether it is whole now."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        if have and response.status != 206:  # the server starts over, so we do
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem)
        with part.open("ab" if have else "wb") as sink, bar:
            while chunk := response.read(1 << 16):
                sink.write(chunk)
                bar.update(len(chunk))
    return total is None or part.stat().st_size == total
