"""What is said to a vision-language model and what comes back; a backend is anything that is a `Chat`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable


@dataclass(frozen=True)
class Picture:
    """An image as it is shown to a model: the bytes of a PNG file."""

    png: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.png).hexdigest()


@dataclass(frozen=True)
class Turn:
    """What one side says: texts and pictures in order."""

    role: Literal["user", "assistant"]
    parts: tuple[str | Picture, ...]


Conversation = tuple[Turn, ...]


@dataclass(frozen=True)
class Failure:
    """No answer came. `lasting`: the same request would fail again, as one that is longer than the model can read."""

    reason: str
    lasting: bool


@runtime_checkable
class Chat(Protocol):
    """A vision-language model that answers conversations."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What an answer depends on besides the conversation: the model and its parameters. No path, no address."""

    def replies(self, conversations: Iterable[Conversation]) -> Iterator[tuple[int, str | Failure]]:
        """The answer to each conversation, with its place among them, in the order in which the answers come.

        Conversations are taken as they are needed, so there may be more of them than fit in memory.

        Raises:
            MedSAEError: the model cannot be reached or used at all.
        """
