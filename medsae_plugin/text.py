"""Plain tables for the terminal, and quantities as people read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any


def printable(text: str) -> str:
    """Text on a line as a terminal may have it: what is no sign (controls, marks of direction) is escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def aligned(rows: Sequence[Sequence[str]], rule_after: Collection[int] = ()) -> list[str]:
    """Rows of a plain table as lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for i, row in enumerate(rows, 1):
        cells = [x.rjust(w) if k else x.ljust(w) for k, (x, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
        if i in rule_after:
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
    return lines


def to_the_left(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a plain table as lines, every column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def differences(there: Mapping[str, Any], here: Mapping[str, Any], where: str) -> list[str]:
    """What differs between two nested mappings, a line each: `a.b: 1 in the store, 2 now`; `where` is "the store"."""
    old, new = _flat(there), _flat(here)
    return [
        f"  {key}: {old.get(key)!r} in {where}, {new.get(key)!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def fixed(x: int | float | None, digits: int = 2) -> str:
    """A number with so many digits after the point; `-` where it is undefined."""
    return "-" if x is None else f"{x:.{digits}f}"


def byte_size(n: int | float) -> str:
    """A number of bytes in units of 1000: `265 GB`."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while n >= 999.5 and len(units) > 1:
        n, units = n / 1000, units[1:]
    return f"{n:.3g} {units[0]}"


def clock(seconds: int | float) -> str:
    """A duration: `0:07`, `12:40`, `3:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """A nested mapping as one of dotted keys."""
    if not isinstance(value, Mapping) or not value:
        return {key: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{key}.{name}" if key else name)
    return flat
