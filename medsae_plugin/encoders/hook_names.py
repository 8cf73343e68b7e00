"""Hook points by name and by pattern."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain

from medsae_plugin.errors import MedSAEError

ALL = "all"
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)(?:\.\.([1-9]\d*))?\}|\{([^{}]*,[^{}]*)\}")


def select_hooks(asked: str | Iterable[str], known: Sequence[str], whose: str) -> list[str]:
    """The hook points that names and patterns stand for, each once, in the order of `known`.

    A pattern has braces as `medsae encoders` prints them and as shells expand them (`blocks.{0..11}.hook_mlp_out`,
    `{0..10..2}`, `{3,7}`), or `*`, `?`, `[...]` for any characters; or it is `all`.

    Raises:
        MedSAEError: `whose` (what has the hook points, for the message) has none of a name, even if other names of the
            same braces are there, or none that fits; the near ones.
    """
    chosen: set[str] = set()
    for pattern in [asked] if isinstance(asked, str) else asked:
        for name in _expanded(pattern):
            found = [name] if name in known else [hook for hook in known if name == ALL or fnmatchcase(hook, name)]
            if not found:
                raise MedSAEError(_unknown(name, pattern, known, whose))
            chosen.update(found)
    return [hook for hook in known if hook in chosen]


def collapsed(numbers: Sequence[int]) -> str:
    """Ascending numbers as braces that `select_hooks` and shells expand: `{0..11}`, or `{0,2,5}` where some lack."""
    if len(numbers) == 1:
        return str(*numbers)
    is_range = list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{{{numbers[0]}..{numbers[-1]}}}" if is_range else f"{{{','.join(map(str, numbers))}}}"


def _expanded(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, step, words = match.groups()
    inside: Iterable[str]
    if words is None:
        low, high = sorted((int(first), int(last)))
        inside = map(str, range(low, high + 1, int(step or 1)))
    else:
        inside = words.split(",")
    yield from chain.from_iterable(
        _expanded(f"{pattern[: match.start()]}{part}{pattern[match.end() :]}") for part in inside
    )


def _unknown(name: str, pattern: str, known: Sequence[str], whose: str) -> str:
    fits = "that fits " if re.search(r"[*?\[]", name) else ""
    of = "" if name == pattern else f", which {pattern!r} asks for"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[-3:]
    return f"{whose} has no hook point {fits}{name!r}{of}; near it: {', '.join(near)}"
