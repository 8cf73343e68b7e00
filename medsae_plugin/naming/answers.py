"""Every request and its answer, kept on disk by content, so that nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsae_plugin.files import make_folder, write_text
from medsae_plugin.naming.chat import Conversation, Picture

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Kept:
    """What a model said to a request: a text, or None where it refused, and why. `failed`: nothing came at all, so it
    is not on disk."""

    answer: str | None
    refusal: str = ""
    failed: bool = False


class Answers:
    """A folder of answers, `ab/abcd....json`, each under the SHA-256 of what was asked of whom.

    A request is the model's identity, the prompt's version and hash, and every turn: texts as they are, pictures by the
    SHA-256 of their bytes. Whoever changes any of it asks anew. Files are written whole or not at all.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def get(self, request: dict[str, Any]) -> Kept | None:
        """What is kept for this request, if anything."""
        try:
            record = json.loads(self._path(request).read_text(encoding="utf-8"))
            return Kept(record["answer"], record["refusal"]) if record["request"] == request else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # not there, or damaged by hand: ask
            return None

    def put(self, request: dict[str, Any], answer: str | None, refusal: str = "") -> Kept:
        """Keep an answer, and return what `get` will."""
        record = {"request": request, "answer": answer, "refusal": refusal}
        path = self._path(request)
        make_folder(path.parent)
        write_text(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
        return Kept(answer, refusal)

    def _path(self, request: dict[str, Any]) -> Path:
        key = key_of(request)
        return self.folder / key[:2] / f"{key}.json"


def request_of(identity: Any, prompt: str, conversation: Conversation) -> dict[str, Any]:
    """A request as JSON holds it."""
    turns = [
        {"role": turn.role, "parts": [{"image": p.sha256} if isinstance(p, Picture) else p for p in turn.parts]}
        for turn in conversation
    ]
    request = {"schema": SCHEMA_VERSION, "model": dict(identity), "prompt": prompt, "turns": turns}
    return json.loads(json.dumps(request))  # as it will be when read again


def key_of(request: dict[str, Any]) -> str:
    """The SHA-256 of a request, in hex."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
