"""A Hugging Face Hub on loopback, for the real huggingface_hub client: `HF_ENDPOINT` is its `url`.

It speaks what a model repository needs: create, branch, info, preupload, LFS batch and upload, commit, and
resolve with ETags, redirects and ranges; private and gated repositories; and it fails on demand.
`HF_ENDPOINT` is read when huggingface_hub is imported, so clients run in processes of their own: see `Client`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from helpers.hub_state import Commit, Fault, Hub, Repo, etag_of, is_lfs

__all__ = ["Client", "Fault", "Hub", "etag_of", "running_hub"]

_CHUNK = 1 << 14


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A Hub that serves on a free port until the context ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.resume.set()
        server.shutdown()
        server.server_close()


class Client:
    """A process with a home of its own that runs code against the Hub: many snippets, one import of SAE-Lens.

    What a snippet leaves in `result` (JSON) is returned; an exception comes back as its class's name and text.
    """

    _LOOP = """
import json, os, sys
import sae_lens, medsae_plugin
say, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    asked, names = json.loads(line), {}
    os.environ["HF_TOKEN"] = asked["token"]
    try:
        exec(asked["code"], names)
        answer = {"result": names.get("result")}
    except Exception as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps(answer), file=say, flush=True)
"""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.home = home
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._LOOP],
            env=hub.environment(home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, code: str, token: str = "") -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"code": code, "token": token}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return f"{answer['error']}: {answer['text']}" if "error" in answer else answer["result"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message or code, **headers}


class _Cut(Exception):
    """The connection is to be closed without another word."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def _serve(self, method: str) -> None:
        parts = urlsplit(self.path)
        self.query, path = parse_qs(parts.query), unquote(parts.path)
        self.hub.requests.append((method, path))
        self.fault = self.hub.take_fault(method, path)
        try:
            if self.fault and self.fault.status:
                self._body()
                raise _Refused(self.fault.status, message="on demand")
            body = self._body(path)
            for route_method, pattern, action in _ROUTES:
                if route_method == ("GET" if method == "HEAD" else method) and (match := re.fullmatch(pattern, path)):
                    answer = action(self, body, **match.groupdict())
                    if self.fault and self.fault.lose_answer:
                        raise _Cut
                    if answer is not None:
                        self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
                    return
            raise _Refused(404, message=f"no route {method} {path}")
        except _Refused as refused:
            error = json.dumps({"error": refused.headers["X-Error-Message"]}).encode()
            self._answer(refused.status, error, refused.headers)
        except (_Cut, ConnectionError):
            self.close_connection = True

    def _body(self, path: str = "") -> bytes:
        length, body = int(self.headers.get("Content-Length") or 0), b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        putting = self.command == "PUT"
        stop = self.fault.cut if self.fault and putting else None
        pause = length // 2 if putting and self.hub.hold and re.search(self.hub.hold, path) else None
        while len(body) < length:
            if len(body) == stop:
                raise _Cut
            if len(body) == pause:
                self.hub.reached.set()
                self.hub.resume.wait(60)
            ends = [end for end in (stop, pause, len(body) + _CHUNK, length) if end is not None and end > len(body)]
            chunk = self.rfile.read(min(ends) - len(body))
            if not chunk:
                raise _Cut
            body += chunk
        return body

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        fault = self.fault if self.fault and self.command == "GET" else None
        sent = body
        if fault and fault.damage:
            sent = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent if fault is None or fault.cut is None else sent[: fault.cut])
        if fault and fault.cut is not None:
            raise _Cut

    @property
    def token(self) -> str | None:
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        return token if scheme == "Bearer" else None

    def _readable(self, repo_id: str) -> Repo:
        repo = self.hub.repos.get(repo_id)
        known = self.token in self.hub.writers or (repo is not None and self.token in repo.readers)
        if repo is None or (repo.private and not known):
            raise _Refused(404 if self.token else 401, "RepoNotFound", "Repository not found")
        if repo.gated and not known:
            raise _Refused(403 if self.token else 401, "GatedRepo", "Access to this model is restricted")
        return repo

    def _writable(self, repo_id: str) -> Repo:
        repo = self._readable(repo_id)
        if self.token not in self.hub.writers:
            raise _Refused(403 if self.token else 401, "", "You may not write here")
        return repo

    def _commit_at(self, repo: Repo, revision: str) -> Commit:
        commit = repo.commit_of(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", "Invalid rev id")
        return commit

    def create(self, body: bytes) -> Any:
        asked = json.loads(body)
        if self.token not in self.hub.writers:
            raise _Refused(403 if self.token else 401, "", "You may not create repositories")
        repo_id = f"{asked['organization']}/{asked['name']}"
        with self.hub.lock:
            exists = repo_id in self.hub.repos
            if not exists:
                self.hub.create(repo_id, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        answer = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id}
        if exists:
            self._answer(409, json.dumps({**answer, "error": "You already created this model repo"}).encode(), {})
            return None
        return answer

    def branch(self, body: bytes, repo: str, branch: str) -> Any:
        writable = self._writable(repo)
        if branch in writable.branches:
            raise _Refused(409, "", "Reference already exists")
        writable.branches[branch] = list(writable.branches["main"])
        return {}

    def info(self, body: bytes, repo: str, revision: str | None = None) -> Any:
        readable = self._readable(repo)
        commit = self._commit_at(readable, revision or "main")
        return {
            "_id": "0",
            "id": repo,
            "sha": commit.oid,
            "private": readable.private,
            "gated": readable.gated,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }

    def validate_yaml(self, body: bytes) -> Any:
        front = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
        if front is None or not isinstance(yaml.safe_load(front[1]), dict):
            self._answer(400, json.dumps({"errors": [{"message": "no metadata"}]}).encode(), {})
            return None
        return {"errors": [], "warnings": []}

    def preupload(self, body: bytes, repo: str, revision: str) -> Any:
        commit = self._commit_at(self._writable(repo), revision)
        answers = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            answer = {"path": path, "uploadMode": "lfs" if is_lfs(path) else "regular", "shouldIgnore": False}
            if path in commit.files:
                answer["oid"] = etag_of(path, commit.files[path])
            answers.append(answer)
        return {"files": answers}

    def lfs_batch(self, body: bytes, repo: str) -> Any:
        self._writable(repo)
        objects = []
        for asked in json.loads(body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.lfs:
                href = f"{self.hub.url}/lfs/{asked['oid']}"
                answer["actions"] = {"upload": {"href": href}, "verify": {"href": f"{self.hub.url}/lfs-verify/{repo}"}}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    def lfs_upload(self, body: bytes, oid: str) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refused(400, "", "the content does not have this checksum")
        self.hub.lfs[oid] = body
        self.hub.uploaded.append(oid)
        return {}

    def lfs_verify(self, body: bytes, repo: str) -> Any:
        if json.loads(body)["oid"] not in self.hub.lfs:
            raise _Refused(404, "", "no such object")
        return {}

    def commit(self, body: bytes, repo: str, revision: str) -> Any:
        branches = self._writable(repo).branches
        if revision not in branches:
            raise _Refused(404, "RevisionNotFound", "Invalid rev id")
        files: dict[str, bytes] = {}
        message = ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise _Refused(400, "", f"LFS object {value['oid']} was never uploaded")
                files[value["path"]] = self.hub.lfs[value["oid"]]
            else:
                raise _Refused(400, "", f"unknown operation {item['key']}")
        commit = self.hub.commit(repo, revision, files, message)
        return {"success": True, "commitOid": commit.oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{commit.oid}"}

    def resolve(self, body: bytes, repo: str, revision: str, file: str) -> None:
        commit = self._commit_at(self._readable(repo), revision)
        if file not in commit.files:
            raise _Refused(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit.oid})
        content = commit.files[file]
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if is_lfs(file):
            oid = etag_of(file, content)
            self.hub.lfs.setdefault(oid, content)
            linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            # Another host, as the Hub's CDN is: the client asks there without the token, and takes no metadata from it.
            location = self.hub.url.replace("127.0.0.1", "localhost") + f"/cdn/{oid}"
            self._answer(302, b"", {**headers, **linked, "Location": location})
        else:
            self._ranged(content, {**headers, "ETag": f'"{etag_of(file, content)}"'})

    def cdn(self, body: bytes, oid: str) -> None:
        self._ranged(self.hub.lfs[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _ranged(self, content: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            self._answer(200, content, headers)
            return
        start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        span = f"bytes {start}-{end}/{len(content)}"
        self._answer(206, content[start : end + 1], {**headers, "Content-Range": span})


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_ROUTES: tuple[tuple[str, str, Any], ...] = (
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("POST", rf"/api/models/{_REPO}/branch/(?P<branch>.+)", _Handler.branch),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<revision>.+)", _Handler.commit),
    ("GET", rf"/api/models/{_REPO}(/revision/(?P<revision>.+))?", _Handler.info),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_upload),
    ("POST", rf"/lfs-verify/{_REPO}", _Handler.lfs_verify),
    ("GET", r"/cdn/(?P<oid>[0-9a-f]{64})", _Handler.cdn),
    ("GET", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Handler.resolve),
)
