"""Files: checksums, and writing whole or not at all; what a disk can do, in words."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin.errors import MedSAEError, reason_of

if TYPE_CHECKING:
    import pandas as pd

_UMASK = os.umask(0)  # it can only be read by setting it
os.umask(_UMASK)

# What file systems that cannot flush answer: network drives and shared folders of virtual machines, mostly.
_NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
_NO_FOLDER_FLUSH = _NO_FLUSH | {errno.EACCES, errno.EPERM, errno.EISDIR}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# torch's writer of zips, which forgets the system's reason.
_TORCH_WRITER = re.compile(r"PytorchStreamWriter|inline_container|unexpected pos|file write failed|cannot be opened")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def writing(target: Path, advice: str = "") -> Iterator[None]:
    """Around all that writes to `target`, a file or a folder: what disks and the libraries that write raise, in words.

    Args:
        advice: a sentence that ends the message, such as what is kept.

    Raises:
        MedSAEError: the disk is full, read-only, or fails; no leave to write.
    """
    try:
        yield
    except MedSAEError:
        raise
    except Exception as error:
        words = _cannot_be_written(error, target)
        if words is None:
            raise
        raise MedSAEError(f"{target} cannot be written: {words}" + (f". {advice}" if advice else "")) from error


def _cannot_be_written(error: Exception, target: Path) -> str | None:
    """Why, with what to do; None where the error is of something else than of writing there."""
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.errno is not None:
        if isinstance(error, ConnectionError | TimeoutError) or error.errno in (errno.ENOMEM, errno.EAGAIN):
            return None
        if isinstance(error.filename, str | bytes) and not _is_at(Path(os.fsdecode(error.filename)), target):
            return None
        code: int | None = error.errno
        words = os.strerror(error.errno)
    elif type(error).__name__ == "SafetensorError" and (number := re.search(r"\(os error (\d+)\)", str(error))):
        code = int(number[1])
        words = os.strerror(code)
    elif isinstance(error, RuntimeError) and _TORCH_WRITER.search(str(error)):
        code = None if (free := free_bytes(target)) is None or free > 1 << 20 else errno.ENOSPC
        words = os.strerror(code) if code else reason_of(error)
    else:
        return None
    return f"{words}; make room, or choose another disk, and run it again" if code in _FULL else words


def _is_at(path: Path, target: Path) -> bool:
    """Whether a path is `target`, in it, above it, or (in) a temporary beside it, which has its name in its own."""
    path, target = path.absolute(), target.absolute()
    if target.is_relative_to(path):
        return True
    return path.is_relative_to(target.parent) and target.name in path.relative_to(target.parent).parts[0]


def free_bytes(path: Path) -> int | None:
    """Of the disk where a file or folder is, or is to be made; None where the system does not tell."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    with suppress(OSError):
        return shutil.disk_usage(path).free
    return None


def make_folder(folder: Path) -> Path:
    """The folder, made with those above it if it is not there.

    Raises:
        MedSAEError: it cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def refuse_other_content(folder: Path, what: str = "", ours: Callable[[Path], bool] = lambda folder: False) -> None:
    """Raise if something else is where a folder of ours is to be, so that no one's files are written over.

    Args:
        what: such a folder holds; "" where it must be empty, or not there.
        ours: whether a folder that is not empty is such a one.

    Raises:
        MedSAEError: a file, or a folder with other content.
    """
    if folder.is_dir():
        with reading(folder):
            if not any(folder.iterdir()) or ours(folder):
                return
    elif not folder.exists():
        return
    elif what:
        raise MedSAEError(f"{folder} is not a folder; choose another")
    if what:
        raise MedSAEError(f"{folder} is not empty and holds no {what}; choose another folder")
    raise MedSAEError(f"{folder} is not an empty folder; delete it or choose another")


def move_into_place(temporary: Path, target: Path) -> None:
    """Flush the file, then rename it: `target` is there whole or not at all, for whom the umask lets read it."""
    _let_be_read(temporary)
    _sync(temporary)
    temporary.replace(target)
    _sync(target.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write; on leaving without an exception it is flushed to disk and renamed to `path`.

    Raises:
        MedSAEError: as `writing`.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            yield temporary
            move_into_place(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill; on leaving without an exception it takes the place of `folder`, whole.

    Raises:
        MedSAEError: as `writing`.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            _let_be_read(temporary)
            yield temporary
            for file in temporary.rglob("*"):
                _let_be_read(file)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all.

    Raises:
        MedSAEError: as `writing`.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table, its rows without their index; a file that is there is replaced at once.

    Raises:
        MedSAEError: as `writing`.
    """
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around all that reads a file of the product's own: what disks and the libraries that read raise, in words.

    Raises:
        MedSAEError: there is no such file, no leave to read it, or it is damaged.
    """
    try:
        yield
    except (MedSAEError, MemoryError):
        raise
    except OSError as error:
        raise MedSAEError(f"{path} cannot be read: {error.strerror or reason_of(error)}") from error
    except Exception as error:  # json, pandas, pyarrow, safetensors and zipfile each have kinds of their own
        raise MedSAEError(f"{path} is damaged, or not what its name says ({reason_of(error)})") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        MedSAEError: as `reading`.
    """
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def _let_be_read(path: Path) -> None:
    """For whom the umask lets: safetensors and tempfile make files for their owner alone.

    Drives without owners (CIFS, FUSE, drvfs) refuse to change a mode, and go by their own.
    """
    with suppress(PermissionError, NotImplementedError):
        try:
            path.chmod((0o777 if path.is_dir() else 0o666) & ~_UMASK)
        except OSError as error:
            if error.errno not in _NO_FLUSH:
                raise


def _sync(path: Path) -> None:
    """Flush a file, or a folder's entries, which makes a rename last through a power cut; where that can be done."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows has no handle on a folder
        return
    try:
        handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (_NO_FOLDER_FLUSH if is_folder else _NO_FLUSH):
            raise
