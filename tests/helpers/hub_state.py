"""What the test Hub holds, and what tests set and ask: repositories, uploads, faults, requests."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LFS_SUFFIXES = (".safetensors", ".pt", ".bin")


@dataclass
class Commit:
    """A commit: every file's content by path."""

    oid: str
    files: dict[str, bytes]
    message: str = ""


@dataclass
class Repo:
    """A model repository; `readers` are the tokens that may read it, None for anyone."""

    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    def commit_of(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        commits = [commit for branch in self.branches.values() for commit in branch]
        return next((commit for commit in commits if commit.oid == revision), None)


@dataclass
class Fault:
    """Spoil the next `times` requests with this method whose path matches.

    status: answer so; or
    cut: close the connection after so many bytes of the request's body (uploads) or the answer's (downloads); or
    damage: change a byte of the answer's body; or
    lose_answer: do what is asked, and close the connection before the answer.
    """

    method: str
    path: str
    status: int | None = None
    cut: int | None = None
    damage: bool = False
    lose_answer: bool = False
    times: int = 1


class Hub:
    """The state of the server, and what tests set and ask.

    writers: tokens that may write. requests: method and path of all, in order. uploaded: bytes received by LFS oid.
    reached, resume: with `hold` set to a pattern, an upload to a matching path stops half-way, sets `reached` and
        waits for `resume`.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.writers = {"hf_writer"}
        self.requests: list[tuple[str, str]] = []
        self.uploaded: list[str] = []
        self.faults: list[Fault] = []
        self.hold: str | None = None
        self.reached, self.resume = threading.Event(), threading.Event()
        self.lock = threading.RLock()
        self.url = ""

    def create(self, repo_id: str, **settings: Any) -> Repo:
        first = Commit(_oid(repo_id, {}), {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.repos[repo_id] = Repo(branches={"main": [first]}, **settings)
        return self.repos[repo_id]

    def add_file(self, repo_id: str, path: str, content: bytes, branch: str = "main") -> str:
        """Put a file into a repository as a commit of its own; the commit."""
        return self.commit(repo_id, branch, {path: content}, f"add {path}").oid

    def commit(self, repo_id: str, branch: str, files: dict[str, bytes], message: str) -> Commit:
        with self.lock:
            commits = self.repos[repo_id].branches[branch]
            merged = {**commits[-1].files, **files}
            commits.append(Commit(_oid(commits[-1].oid + message, merged), merged, message))
            return commits[-1]

    def commits(self, repo_id: str, branch: str = "main") -> list[Commit]:
        """Without the initial one."""
        return self.repos[repo_id].branches[branch][1:]

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def environment(self, home: Path, token: str | None = None, **more: str) -> dict[str, str]:
        """The environment of a client with this (empty) home and token, and without ours."""
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "MEDSAE_"))}
        client = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
        }
        return {**ours, **client, **({"HF_TOKEN": token} if token else {}), **more}


def _oid(message: str, files: dict[str, bytes]) -> str:
    digest = hashlib.sha1(message.encode())
    for path in sorted(files):
        digest.update(path.encode() + b"\0" + files[path])
    return digest.hexdigest()


def is_lfs(path: str) -> bool:
    return path.endswith(LFS_SUFFIXES)


def etag_of(path: str, content: bytes) -> str:
    """SHA-256 of a large file, git's hash of a small one."""
    if is_lfs(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
