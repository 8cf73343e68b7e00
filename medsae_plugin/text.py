"""Plain tables for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence


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
