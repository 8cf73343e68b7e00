"""Official splits that are published as lists of images, one a line."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from medsae_plugin.data.formats import without_suffix
from medsae_plugin.errors import MedSAEError, reason_of


def splits_by_lists(paths: Sequence[str], lists: Mapping[str, Path]) -> tuple[list[str], str, list[str]]:
    """The split of each image, "" where it is in none of the lists; where that is from, in words; and notes.

    A line is an image's path, or the end of it: its file's name, with or without the suffix.

    Raises:
        MedSAEError: a list that cannot be read or names no image of the table, an image in two lists, a line that
            several images end in.
    """
    by_end: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        for end in ends_of(path):
            by_end.setdefault(end, []).append(row)
    splits = [""] * len(paths)
    notes: list[str] = []
    for split, file in lists.items():
        lines = _lines(file)
        strange = 0
        for line in lines:
            rows = by_end.get(without_suffix(line), [])
            strange += not rows
            if len(rows) > 1:
                raise MedSAEError(f"{file}: {line!r} is the end of {len(rows)} images' paths; give more of the path")
            for row in rows:
                if splits[row] not in ("", split):
                    raise MedSAEError(f"{paths[row]!r} is in the lists of {splits[row]!r} and of {split!r} ({file})")
                splits[row] = split
        if strange == len(lines):
            raise MedSAEError(
                f"{file}: none of its {len(lines):,} lines, such as {lines[0][:80]!r}, is an image of the table, such "
                f"as {paths[0]!r}"
            )
        if strange:
            notes.append(f"{strange:,} of the {len(lines):,} lines of {file.name} are no image of this table")
    return splits, ", ".join(str(file) for file in lists.values()), notes


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MedSAEError(f"{file} cannot be read as a list of images: {reason_of(error)}") from None
    lines = [line.strip().replace("\\", "/") for line in text.splitlines() if line.strip()]
    if not lines:
        raise MedSAEError(f"{file} is a list of images, and empty")
    return lines


def ends_of(path: str) -> list[str]:
    """`a/b/c.png` as `c`, `b/c`, `a/b/c`."""
    parts = without_suffix(path).split("/")
    return [posixpath.join(*parts[k:]) for k in range(len(parts))]
