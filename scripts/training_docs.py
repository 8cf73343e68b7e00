"""The fields of recipes in docs/training.md, from the models.

python scripts/training_docs.py          # rewrites the part between the marks; a test fails when it is stale
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

from medsae_plugin.training.specs import SAESpec, TrainingConfig

PAGE = Path(__file__).resolve().parent.parent / "docs" / "training.md"
BEGIN, END = "<!-- fields: python scripts/training_docs.py -->", "<!-- end of fields -->"


def documented(model: Any) -> dict[str, str]:
    """What a dataclass's docstring says of its fields, by name: `name: text`, which lines further in continue."""
    doc = re.sub(r"\n\s{8,}", " ", model.__doc__)
    return dict(re.findall(r"^\s{4}(\w+): (.+)$", doc, flags=re.M))


def fields(model: Any) -> str:
    """A table of a dataclass's fields: name, type, default, meaning.

    Raises:
        KeyError: a field that the docstring says nothing of.
    """
    said = documented(model)
    lines = ["| field | type | default | |", "| --- | --- | --- | --- |"]
    for field in dataclasses.fields(model):
        kind = re.sub(r"Annotated\[(.+), _\w+\]", r"\1", str(field.type)).replace(" | None", "")
        kind = " or ".join(re.sub(r"\[.*\]", "", part).strip("'\" ") for part in kind.split(" | "))
        kind = {"dict": "table", "str": "text", "Literal": "text", "bool": "true or false"}.get(kind, kind)
        lines.append(f"| `{field.name}` | {kind} | {_default(field)} | {said[field.name]} |")
    return "\n".join(lines)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "none"
    if field.default is dataclasses.MISSING:
        return "has to be given"
    return "left out" if field.default is None else f"`{field.default}`"


def page(text: str) -> str:
    """The page with the tables as the models have them."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = f"### `saes`, each entry\n\n{fields(SAESpec)}\n\n### `training`\n\n{fields(TrainingConfig)}"
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def main() -> None:
    PAGE.write_text(page(PAGE.read_text("utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
