"""Encoders from the Hub: a server on loopback answers as the Hub does, open and gated, in a process of its own."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.tiny_encoders import HOOKS, TINY

# One process for all, since it alone takes seconds to import: a line of JSON asks, a line of JSON answers.
CLIENT = """
import contextlib, io, json, os, sys
import torch
from medsae_plugin.cli import main
from medsae_plugin.encoders import HookedVisionEncoder
from medsae_plugin.errors import MedSAEError
for line in sys.stdin:
    job, out, err = json.loads(line), io.StringIO(), io.StringIO()
    os.environ.update(job["environment"])
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if "load" in job:
            try:
                encoder = HookedVisionEncoder.from_pretrained(job["load"], **job.get("options", {}))
            except MedSAEError as error:
                print(error, file=sys.stderr)
                status = 1
                encoder = None
            if encoder is not None:
                print(encoder(torch.ones(1, 3, *encoder.preprocessor.shape)).flatten().tolist())
        else:
            status = main(job["arguments"])
    print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """Repositories by name, each a folder at one commit, or None for one that is gated."""

    repositories: dict[str, Path | None]
    asked: list[str]
    tokens: set[str | None]

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        repository, kind, revision, name = "/".join(parts[:2]), *[*parts[2:5], "", "", ""][:3]
        if kind != "resolve" or repository not in self.repositories:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        self.tokens.add(self.headers.get("Authorization"))
        folder = self.repositories[repository]
        if folder is None:
            status = 401 if self.headers.get("Authorization") is None else 403
            return self.refuse(status, "GatedRepo", f"Access to model {repository} is restricted.")
        if revision != COMMIT:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if not (folder / name).is_file():
            return self.refuse(404, "EntryNotFound", "Entry not found")
        body = (folder / name).read_bytes()
        self.send_response(200)
        for key, value in (("ETag", f'"{name}"'), ("X-Repo-Commit", COMMIT), ("Content-Length", str(len(body)))):
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.asked.append(name)
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[type[Hub], Ask]]:
    """The server, and what asks in the client's process: status, stdout and stderr of a command line, or of a load."""
    handler = type("Handler", (Hub,), {"repositories": {}, "asked": [], "tokens": set()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        environment |= {
            "HF_ENDPOINT": f"http://127.0.0.1:{httpd.server_port}",
            "HF_HOME": str(tmp_path_factory.mktemp("home")),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
        }
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert client.stdin is not None and client.stdout is not None

        def ask(*arguments: object, environment: dict[str, str] | None = None, **job: Any) -> tuple[int, str, str]:
            handler.asked.clear()
            handler.tokens.clear()
            job |= {"arguments": list(map(str, arguments)), "environment": environment or {}}
            client.stdin.write(json.dumps(job) + "\n")
            client.stdin.flush()
            status, out, err = json.loads(client.stdout.readline())
            return status, out, err

        yield handler, ask
        client.stdin.close()
        client.wait(timeout=60)
        httpd.shutdown()


def hub_card(name: str, folder: Path, repository: str) -> Path:
    """The package's card of this name, with the tiny model's image size and another repository."""
    card = yaml.safe_load((HOOKS / f"{name}.yaml").read_text())
    card["source"] |= {"path": repository, "revision": COMMIT}
    card["preprocessing"]["size"] = TINY[name].size
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump(card))
    return path


def images(folder: Path) -> None:
    """Files by the names of four patients, to be listed: the encoder comes before any is read."""
    for i in range(4):
        (folder / f"patient{i}.png").write_bytes(b"")


@pytest.mark.parametrize("token", ["", "hf_that_has_no_access"])
def test_a_gated_model_says_how_to_get_access(hub: tuple[type[Hub], Ask], tmp_path: Path, token: str):
    handler, ask = hub
    handler.repositories["google/medsiglip-448"] = None
    images(tmp_path)
    status, _, err = ask(
        *("extract", "medsiglip-448", "--images", tmp_path, "--out", tmp_path / "store", "--quiet"),
        environment={"HF_TOKEN": token},
    )
    assert status == 1
    assert "medsae: card medsiglip-448: google/medsiglip-448 is gated" in err
    assert "https://huggingface.co/google/medsiglip-448" in err and "hf auth login" in err
    assert "accept the Health AI Developer Foundations terms" in err
    assert handler.tokens == {f"Bearer {token}" if token else None}


def test_a_model_of_the_hub_is_fetched_at_its_revision_once(hub: tuple[type[Hub], Ask], tmp_path: Path):
    handler, ask = hub
    features = TINY["rad-dino"].make(tmp_path)
    handler.repositories["lab/tiny-dino"] = tmp_path / "model"
    card = hub_card("rad-dino", tmp_path, "lab/tiny-dino")
    _, out, _ = ask(load=str(card))
    assert sorted(handler.asked) == ["config.json", "model.safetensors"]
    expected = features(torch.ones(1, 3, 56, 56)).flatten()
    torch.testing.assert_close(torch.tensor(json.loads(out)), expected.detach())
    assert ask(load=str(card))[1] == out and handler.asked == []
    wrong = yaml.safe_load(card.read_text())
    wrong["source"]["revision"] = "f" * 40
    card.write_text(yaml.safe_dump(wrong))
    images(tmp_path)
    status, _, err = ask("extract", card, "--images", tmp_path, "--out", tmp_path / "store")
    assert status == 1 and "lab/tiny-dino has no such revision" in err


def test_huggingfaces_words_are_passed_on(hub: tuple[type[Hub], Ask], tmp_path: Path):
    handler, ask = hub
    TINY["rad-dino"].make(tmp_path)
    handler.repositories["lab/other-dino"] = tmp_path / "model"
    card = hub_card("rad-dino", tmp_path, "lab/other-dino")
    cache = {"cache_dir": str(tmp_path / "cache")}
    status, _, err = ask(load=str(card), options={**cache, "local_files_only": True})
    assert status == 1 and "is not in the cache, and local_files_only is set" in err and handler.asked == []
    status, out, _ = ask(load=str(card), options=cache)
    assert status == 0 and handler.asked != []
    assert (tmp_path / "cache" / "models--lab--other-dino" / "snapshots" / COMMIT / "model.safetensors").is_file()
    assert ask(load=str(card), options={**cache, "local_files_only": True})[:2] == (0, out) and handler.asked == []
    status, _, err = ask(load=str(card), options={"revision": "v2"})
    assert status == 1 and "lab/other-dino has no such revision" in err
    unpinned = yaml.safe_load(card.read_text())
    unpinned["source"]["revision"] = "f" * 40
    card.write_text(yaml.safe_dump(unpinned))
    assert ask(load=str(card), options={**cache, "revision": COMMIT})[1] == out
    status, _, err = ask(load="phantom-swin", options={"revision": "v2"})
    assert status == 1 and "its weights are not on the Hub" in err


def test_of_medgemma_only_the_shards_with_the_vision_tower_are_fetched(hub: tuple[type[Hub], Ask], tmp_path: Path):
    handler, ask = hub
    features = TINY["medgemma-4b-vision"].make(tmp_path)
    handler.repositories["lab/tiny-gemma"] = tmp_path / "model"
    _, out, _ = ask(load=str(hub_card("medgemma-4b-vision", tmp_path, "lab/tiny-gemma")))
    torch.testing.assert_close(torch.tensor(json.loads(out)), features(torch.ones(1, 3, 32, 32)).flatten().detach())
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {shard for key, shard in index.items() if "vision_tower" in key or "projector" in key}
    assert needed < set(index.values())
    assert sorted(handler.asked) == sorted({"config.json", "model.safetensors.index.json", *needed})


def test_without_shapes_on_the_card_only_the_config_is_fetched(hub: tuple[type[Hub], Ask], tmp_path: Path):
    handler, ask = hub
    TINY["clip-vit-base"].make(tmp_path)
    handler.repositories["lab/tiny-clip"] = tmp_path / "model"
    card = hub_card("clip-vit-base", tmp_path, "lab/tiny-clip")
    card.write_text(yaml.safe_dump({k: v for k, v in yaml.safe_load(card.read_text()).items() if k != "vision"}))
    status, out, err = ask("encoders", card)
    assert status == 0, err
    assert re.search(r"blocks\.\{0\.\.1\}\.hook_resid_post +16 +4 x 4 +1\n", out)
    assert "from config.json in lab/tiny-clip; no weights were read" in out
    assert handler.asked == ["config.json"]
    status, out, _ = ask("encoders", "check", card)
    assert status == 0 and "is sound" in out and "hook points on the shapes of config.json in lab/tiny-clip" in out
    absent = hub_card("clip-vit-base", tmp_path, "lab/absent")
    images(tmp_path)
    status, _, err = ask("extract", absent, "--images", tmp_path, "--out", tmp_path / "store")
    assert status == 1 and "there is no repository lab/absent on the Hub" in err
