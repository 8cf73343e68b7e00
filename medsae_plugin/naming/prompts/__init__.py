"""The prompts: versioned text files, with and without reports."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from string import Template

from medsae_plugin.naming.chat import Picture, Turn

VERSION = "v1"

_IMAGES = re.compile(r"^\[\[images: (\w+)\]\]\n", re.MULTILINE)


class Prompt:
    """A prompt file. `$word` is filled with text; a line `[[images: word]]` with captioned pictures."""

    def __init__(self, name: str, text: str, version: str = VERSION) -> None:
        self.name, self.text, self.version = name, text, version

    @property
    def identity(self) -> str:
        """Name, version and hash of the text, such as `v1/name:0123456789abcdef`."""
        return f"{self.version}/{self.name}:{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"

    def turn(self, images: Mapping[str, Sequence[tuple[str, Picture]]], **words: object) -> Turn:
        """The user's turn. Where there are no images for a place, the line that announces them goes as well.

        The places of images are found before anything is filled in, and what is filled in is not looked at again, so
        no report and no answer can add a place or a word.
        """
        parts: list[str | Picture] = []
        # `split` with one group gives text, name, text, name, ..., text.
        for i, piece in enumerate(_IMAGES.split(self.text)):
            if i % 2 == 0:
                if text := Template(piece).substitute(words).strip():
                    parts.append(text)
            elif images[piece]:
                for caption, picture in images[piece]:
                    parts += [caption, picture]
            else:
                above = str(parts.pop()).rpartition("\n")[0].strip()
                parts += [above] if above else []
        return Turn("user", tuple(parts))


@cache
def load_prompt(name: str) -> Prompt:
    """The prompt of this name in the package's current version."""
    path = resources.files(__package__) / VERSION / f"{name}.txt"
    return Prompt(name, path.read_text(encoding="utf-8"))
