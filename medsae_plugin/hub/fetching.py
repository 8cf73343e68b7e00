"""Files of Hub repositories: fetched through huggingface_hub, checked, and its errors in words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from medsae_plugin._compat import hub_http
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import sha256_of

_LOG_IN = "log in (`hf auth login`, or a token in HF_TOKEN)"


def fetch(repo_id: str, filename: str, revision: str | None = None, *, force_download: bool = False) -> Path:
    """A file of a model repository, from the cache or the Hub; the token is huggingface_hub's.

    Raises:
        MedSAEError: no such repository, revision or file; no leave to read it; no connection and not in the cache; or
            content that is not what the Hub says it is.
    """
    from huggingface_hub import hf_hub_download

    with hub_errors(repo_id, f"{filename} of {repo_id}"):
        path = Path(hf_hub_download(repo_id, filename, revision=revision, force_download=force_download))
    _check_blob(path)
    return path


def has_file(repo_id: str, filename: str, revision: str | None = None) -> bool:
    """Whether a repository has a file, as far as can be told offline too."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        with hub_errors(repo_id, repo_id, but=EntryNotFoundError):
            hf_hub_download(repo_id, filename, revision=revision)
    except EntryNotFoundError:
        return False
    return True


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


@contextmanager
def hub_errors(repo_id: str, what: str, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn huggingface_hub's errors into MedSAEErrors that say what to do, but those of the kind `but`."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except but:
        raise
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise MedSAEError(
            f"{what} is not in the cache, and the Hub cannot be reached; connect once to fetch it"
        ) from None
    except GatedRepoError:
        raise MedSAEError(
            f"{what} is gated: ask for access at https://huggingface.co/{repo_id}, then {_LOG_IN}"
        ) from None
    except RepositoryNotFoundError:
        raise MedSAEError(
            f"{what} cannot be had: there is no repository {repo_id}, or it is private; to read a private one, "
            f"{_LOG_IN} as someone who may"
        ) from None
    except RevisionNotFoundError:
        raise MedSAEError(f"{what} cannot be had: {repo_id} has no such revision") from None
    except EntryNotFoundError:
        raise MedSAEError(f"{what} cannot be had: there is no such file") from None
    except HFValidationError as error:
        raise MedSAEError(f"{repo_id!r} is no repository: {error}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise MedSAEError(f"{what}: the Hub refuses ({status}); {_LOG_IN} as someone who may") from None
        raise MedSAEError(f"{what}: the Hub answers {status}; try again later") from None
    except hub_http().TransportError as error:
        raise MedSAEError(f"{what}: the connection was cut ({error}); run it again to go on") from None
