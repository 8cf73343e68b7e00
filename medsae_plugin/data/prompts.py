"""Findings prompts for zero-shot classification: sentences that state an observation, and sentences that deny it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from medsae_plugin._old_names import old_function
from medsae_plugin.errors import MedSAEError
from medsae_plugin.phantoms.sentences import SENTENCES, Sentences
from medsae_plugin.yaml_files import STRICT, parse_yaml

CHEXPERT, PHANTOMS = "chexpert", "phantoms"


@dataclass(frozen=True)
class Prompts:
    """Sentences by observation, where they come from, and the name of the set."""

    name: str
    source: str
    sentences: Mapping[str, Sentences]


def load_prompts(name_or_path: str | Path) -> Prompts:
    """The package's prompts of this name (`chexpert`, `phantoms`), or those of a YAML file.

    A file has `source`, who wrote them, and `observations`, by name of the label: `present` and `absent`, a list of
    sentences each.

    Raises:
        MedSAEError: no such set or file, or a file that says something else.
    """
    if str(name_or_path) == PHANTOMS:
        return Prompts(PHANTOMS, "The sentences that the demo encoder was trained on, written for it.", SENTENCES)
    if str(name_or_path) == CHEXPERT:
        text = (resources.files("medsae_plugin.data") / "chexpert_prompts.yaml").read_text(encoding="utf-8")
        return _parse(text, CHEXPERT, CHEXPERT)
    path = Path(name_or_path)
    if not path.is_file():
        raise MedSAEError(
            f"no prompts named {str(path)!r} and no file there; the package has {CHEXPERT} and {PHANTOMS}"
        )
    return _parse(path.read_text(encoding="utf-8"), path.stem, str(path))


def __getattr__(name: str) -> Any:
    return old_function(__name__, name)


Ways = Annotated[list[str], Field(min_length=1)]


class _Ways(BaseModel):
    model_config = STRICT
    present: Ways
    absent: Ways


class _PromptFile(BaseModel):
    model_config = STRICT
    source: str
    observations: Annotated[dict[str, _Ways], Field(min_length=1)]


def _parse(text: str, name: str, where: str) -> Prompts:
    content = parse_yaml(text, _PromptFile, where)
    of_label = {label: Sentences(tuple(w.present), tuple(w.absent)) for label, w in content.observations.items()}
    return Prompts(name, content.source, of_label)
