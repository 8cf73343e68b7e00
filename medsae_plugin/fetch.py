"""The network: files of Hub repositories and of other servers, archives unpacked; what can happen on the way, in
words."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import socket
import ssl
import stat
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, InvalidURL
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from medsae_plugin.errors import MedSAEError, reason_of
from medsae_plugin.files import make_folder, sha256_of, writing

_LOG_IN = "log in (`hf auth login`, or a token in HF_TOKEN)"
_ATTEMPTS = 5
_SECONDS = 10.0  # that the Hub may take to answer at all
# Whose exceptions speak of the network; huggingface_hub and openai change from one to the other with their versions.
_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "openai"}
# What steers connections: where to, through what, trusting whom.
_ADDRESSES = r"HF_ENDPOINT|(HTTPS?|ALL|NO)_PROXY"
_CERTIFICATES = r"SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
_READ_AT_IMPORT = r"HF_ENDPOINT|HF_\w*TIMEOUT\w*"


def hub_file(
    repo_id: str,
    filename: str,
    revision: str | None = None,
    *,
    what: str | None = None,
    note: str = "",
    but: type[Exception] | tuple[()] = (),
    force_download: bool = False,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """A file of a model repository, from the cache or the Hub; the token is huggingface_hub's.

    Where the Hub does not answer and the file is in no cache, that is said at once, not after huggingface_hub's tries.

    Args:
        what: names it in messages. note: ends the message of a refusal. but: let this exception pass.
        cache_dir: huggingface_hub's, where another folder is the cache. local_files_only: ask the cache alone.

    Raises:
        MedSAEError: no such repository, revision or file; no leave to read it; no connection and not in the cache; a
            connection that was cut; a disk that does not take it; or content that is not what the Hub says it is.
    """
    what = what or f"{filename} of {repo_id}"
    with hub_errors(repo_id, what, note, but):
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError

        cached = try_to_load_from_cache(repo_id, filename, cache_dir, revision)
        needed = not isinstance(cached, str) or force_download
        if needed and (reason := "local_files_only is set" if local_files_only else unreachable()):
            if cached is not None and not force_download:  # it has been looked for, and is not there
                raise EntryNotFoundError(filename)
            if local_files_only:
                raise MedSAEError(f"{what} is not in the cache, and {reason}")
            raise MedSAEError(
                f"{what} is not in the cache, and the Hub cannot be reached ({reason}); connect once to fetch it"
            )
        with writing(Path(cache_dir or constants.HF_HUB_CACHE), "HF_HOME names another folder for the cache"):
            options: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only}
            path = Path(hf_hub_download(repo_id, filename, revision=revision, force_download=force_download, **options))
    _check_blob(path)
    return path


def hub_file_if_any(repo_id: str, filename: str, revision: str | None = None, **options: Any) -> Path | None:
    """As `hub_file`; None where the repository has no such file, as far as can be told offline too."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return hub_file(repo_id, filename, revision, but=EntryNotFoundError, **options)
    except EntryNotFoundError:
        return None


def check_files(folder: Path, sha256: Mapping[str, str]) -> None:
    """Compare files with their checksums.

    Raises:
        MedSAEError: a file that is missing, or another than it should be.
    """
    for name, expected in sha256.items():
        path = folder / name
        if not path.is_file():
            raise MedSAEError(f"{path} is missing")
        if (found := sha256_of(path)) != expected:
            raise MedSAEError(
                f"{path} is damaged or has been changed: its sha256 is {found}, the release's card says {expected}; "
                "delete it and load the release again"
            )


def _check_blob(path: Path) -> None:
    """Compare a cached file with its ETag, which names it: SHA-256 of a large file, git's hash of a small one."""
    etag = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        found = sha256_of(path)
    elif re.fullmatch(r"[0-9a-f]{40}", etag):
        content = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    else:  # a cache without links keeps no ETag
        return
    if found != etag:
        raise MedSAEError(
            f"{path} is damaged or has been changed: its checksum is {found}, the Hub says {etag}; "
            f"delete {path.resolve()} and load it again"
        )


def unreachable() -> str | None:
    """Why the Hub does not answer, in words; None where it does, whatever it says. One request, without further tries.

    Raises:
        MedSAEError: a setting of the environment with which none can be made.
    """
    from huggingface_hub import constants, get_session

    try:
        session = get_session()
    except Exception as error:  # of a proxy's address or a certificate file: of whatever kind the library raises
        settings = _settings(_CERTIFICATES if isinstance(error, OSError) else _ADDRESSES)
        raise MedSAEError(
            f"no connection can be made: {_without_secrets(reason_of(error))}; mend {settings}"
        ) from error
    try:
        session.head(constants.ENDPOINT, timeout=_SECONDS, follow_redirects=False)
    except Exception as error:
        if (words := network_reason(error)) is None:
            raise
        return words
    return None


@contextmanager
def hub_errors(repo_id: str, what: str, note: str = "", but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn what huggingface_hub raises into MedSAEErrors that say what to do, but those of the kind `but`.

    Args:
        note: ends the message.
    """
    try:
        yield
    except MedSAEError:
        raise
    except Exception as error:
        from huggingface_hub.errors import LocalEntryNotFoundError  # an EntryNotFoundError, but of the connection

        if but and isinstance(error, but) and not isinstance(error, LocalEntryNotFoundError):
            raise
        words = _of_the_hub(error, repo_id, what)
        if words is None:
            raise
        raise MedSAEError(words + (f"\n{note.strip()}" if note else "")) from error


def _of_the_hub(error: Exception, repo_id: str, what: str) -> str | None:
    from huggingface_hub import errors

    match error:
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            reason = network_reason(error) or reason_of(_chain(error)[-1])
            return f"{what} is not in the cache, and the Hub cannot be reached ({reason}); connect once to fetch it"
        case errors.GatedRepoError():
            return (
                f"{what} is gated: ask for access at https://huggingface.co/{repo_id} with your account, accept its "
                f"terms, then {_LOG_IN}, and run it again"
            )
        case errors.RepositoryNotFoundError():
            return (
                f"{what} cannot be had: there is no repository {repo_id} on the Hub, or it is private; to read a "
                f"private one, {_LOG_IN} as someone who may"
            )
        case errors.RevisionNotFoundError():
            return f"{what} cannot be had: {repo_id} has no such revision"
        case errors.EntryNotFoundError():
            return f"{what} cannot be had: there is no such file"
        case UnicodeEncodeError():
            return f"{what}: {_BAD_TOKEN}"
        case errors.HFValidationError():
            return f"{repo_id!r} is no repository: {error}"
        case errors.HfHubHTTPError():
            status = error.response.status_code
            if status in (401, 403):
                return f"{what}: the Hub refuses ({status}); {_LOG_IN} as someone who may"
            return f"{what}: the Hub answers {status}; try again later"
    if "Consistency check failed" in str(error) or _is_xet(error):
        return f"{what}: the connection was cut ({reason_of(error)}); run it again to go on"
    cut = network_reason(error)
    return cut and f"{what}: the connection was cut ({cut}); run it again to go on"


def _is_xet(error: Exception) -> bool:
    """hf_xet, which moves large files, raises bare RuntimeErrors."""
    return type(error).__name__ == "XetDownloadError" or (
        isinstance(error, RuntimeError) and bool(re.search("CAS|xet|reqwest|Data processing error", str(error)))
    )


def network_reason(error: BaseException) -> str | None:
    """Why a connection failed, in a line, with the settings that may be to blame; None where that is not what it says.

    No token is repeated, nor a proxy's password.
    """
    chain = _chain(error)
    root, kinds = chain[-1], {type(e).__name__ for e in chain}
    if "OfflineModeIsEnabled" in kinds:
        return "HF_HUB_OFFLINE is set"
    if "LocalProtocolError" in kinds:  # its words may hold the header with the token
        return _BAD_TOKEN
    if kinds & {"UnsupportedProtocol", "InvalidURL"}:
        settings = _settings(_ADDRESSES)
        return _without_secrets(reason_of(root)) + (f"; mend {settings}" if settings else "")
    if isinstance(root, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(root):
        said = getattr(root, "verify_message", "") or reason_of(root)
        return (
            f"the server's certificate is not trusted: {said}; if your network signs its own, "
            "point SSL_CERT_FILE at its authority's certificate"
        )
    if not any(isinstance(e, _NETWORK) or _is_of_a_library(e) for e in chain):
        return None
    through = _settings(_ADDRESSES)
    return _without_secrets(reason_of(root)) + (f", with {through}" if through else "")


_BAD_TOKEN = "the token (HF_TOKEN, or that of `hf auth login`) holds characters that no request can carry"
_NETWORK = (ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror, urllib.error.URLError, HTTPException)


def _is_of_a_library(error: BaseException) -> bool:
    return any(kind.__module__.partition(".")[0] in _LIBRARIES for kind in type(error).__mro__)


def _chain(error: BaseException) -> list[BaseException]:
    """An exception, and what it was raised for, as far as that says anything."""
    chain = [error]
    while True:
        given = getattr(chain[-1], "reason", None)
        deeper = given if isinstance(given, BaseException) else chain[-1].__cause__ or chain[-1].__context__
        if deeper is None or deeper in chain or not str(deeper):
            return chain
        chain.append(deeper)


def _settings(pattern: str) -> str:
    """The environment's settings that the pattern names, without a proxy's user and password."""
    found = {k: v for k, v in os.environ.items() if v and re.fullmatch(pattern, k, re.IGNORECASE)}
    return ", ".join(f"{k}={_without_secrets(v)}" for k, v in sorted(found.items()))


def _without_secrets(text: str) -> str:
    """Without users and passwords in addresses."""
    return re.sub(r"(?<=//)[^\s'\"]*@|(?<![^\s'\"])[^\s'\"/]*:[^\s'\"/]*@", "", text)


def broken_settings() -> str | None:
    """What keeps huggingface_hub from being imported, in words: it reads the environment then."""
    try:
        from huggingface_hub import hf_hub_download  # noqa: F401
    except ValueError as error:
        return f"huggingface_hub cannot be loaded: {reason_of(error)}; mend {_settings(_READ_AT_IMPORT)}"
    return None


def download(url: str, target: Path) -> None:
    """Fetch `url` to `target` with a progress bar; a part left by a cut is continued, now or by the next call.

    Raises:
        MedSAEError: the server refuses, or the connection is cut time and again; what has come is kept. The disk does
            not take it.
    """
    make_folder(target.parent)
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
                raise MedSAEError(f"{url} cannot be fetched: the server says {error.code} {error.reason}") from error
            reason = f"the server says {error.code} {error.reason}"
        except MedSAEError:
            raise
        except (OSError, HTTPException, ValueError) as error:
            reason = network_reason(error) or reason_of(error)
            # urllib says ValueError of an address without a scheme, and of a proxy's that has none.
            hopeless = (InvalidURL, ValueError, ssl.SSLCertVerificationError)
            if isinstance(error, hopeless) or isinstance(_chain(error)[-1], hopeless):
                break
        time.sleep(min(2**attempt, 10) * 0.25)
    raise MedSAEError(f"{url} cannot be fetched: {reason}; run it again to go on, or give the file as weights")


def _continue(url: str, part: Path) -> bool:
    """Append to `part` what is missing of `url`; whether it is whole now."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        if have and response.status != 206:  # the server starts over, so we do
            have = 0
        length = response.headers.get("Content-Length") or ""
        total = have + int(length) if length.isdecimal() else None
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem)
        with writing(part), part.open("ab" if have else "wb") as sink, bar:
            while chunk := response.read(1 << 16):
                sink.write(chunk)
                bar.update(len(chunk))
    return total is None or part.stat().st_size == total


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
