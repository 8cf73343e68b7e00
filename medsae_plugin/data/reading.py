"""What was understood of a table or a folder, to be told to whoever gave it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from medsae_plugin.data.folders import printable


@dataclass(frozen=True)
class Reading:
    """What was understood of a table or a folder.

    source: the file or folder.
    dialect: its dialect, why it is that one and what an empty cell and -1 are, in words; "" for a folder.
    columns: what was read (`path`, `patient`, `split`, `sex`, ...), and from where, in words.
    aside: columns that were not read, and why.
    notes: what else to know.
    beside: more of each label, such as how its readers agree: a heading, and a text a label.
    uncertain: what -1 was read as (`Uncertain`); None where there was nothing to read.
    """

    source: str
    dialect: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    aside: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    beside: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    uncertain: str | None = None

    def aside_text(self) -> str:
        """The columns that were not read, by reason; "" where all were."""
        reasons: dict[str, list[str]] = {}
        for column, reason in self.aside.items():
            reasons.setdefault(reason, []).append(_shown(column))
        return "; ".join(f"{', '.join(columns)}: {reason}" for reason, columns in reasons.items())

    def text(
        self, n_images: int, n_patients: int, names: tuple[str, ...], labels: Float[np.ndarray, "images labels"]
    ) -> str:
        """All of it, beside how often each label is 1, 0 and unknown."""
        lines = [f"{self.source}: {n_images:,} images of {n_patients:,} patients"]
        if self.dialect:
            lines.append(f"  dialect {self.dialect}")
        lines += [f"  {what}: {where}" for what, where in self.columns.items()]
        if names:
            counts = np.stack([(labels == 1).sum(0), (labels == 0).sum(0), np.isnan(labels).sum(0)])
            heads = ["label", "1", "0", "unknown"]
            if (labels == -1).any():  # the paper's protocol keeps them
                heads, counts = [*heads, "-1"], np.vstack([counts, (labels == -1).sum(0)])
            width = max(map(len, (*map(_shown, names), "label")))
            more = {name: [texts.get(name, "") for texts in self.beside.values()] for name in names}
            body = [[_shown(n), *map(str, c), *more[n]] for n, c in zip(names, counts.T.tolist(), strict=True)]
            rows = [[*heads, *self.beside], *body]
            lines += ["  " + row[0].ljust(width) + "".join(cell.rjust(9) for cell in row[1:]) for row in rows]
        elif self.dialect:
            lines.append("  no label columns")
        if self.aside:
            lines.append(f"  left aside: {self.aside_text()}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def _shown(name: str) -> str:
    """A name as it is, or, if it is empty or holds signs that a terminal may not show, in quotes."""
    return name if name and name.isprintable() else printable(name)
