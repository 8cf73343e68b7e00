"""Findings prompts for zero-shot classification: sentences that state an observation, and sentences that deny it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from medsae_plugin.data.phantoms.sentences import SENTENCES, Sentences
from medsae_plugin.errors import MedSAEError

CHEXPERT, PHANTOMS = "chexpert", "phantoms"
# The demo encoder reads no other words than its own sentences'.
_OF_ENCODER = {"phantom-swin": PHANTOMS}


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


def prompts_for(encoder_name: str) -> Prompts:
    """The package's prompts in the words that an encoder knows: `chexpert`, but for the demo encoder."""
    return load_prompts(_OF_ENCODER.get(encoder_name, CHEXPERT))


def _parse(text: str, name: str, where: str) -> Prompts:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MedSAEError(f"{where} is not YAML: {error}") from None
    if not isinstance(content, dict) or set(content) != {"source", "observations"}:
        raise MedSAEError(f"{where} should hold `source` and `observations`, and nothing else")
    if not isinstance(content["observations"], dict) or not content["observations"]:
        raise MedSAEError(f"{where}: observations should hold sentences by name of the label")
    sentences = {str(label): _sentences(ways, label, where) for label, ways in content["observations"].items()}
    return Prompts(name, str(content["source"]), sentences)


def _sentences(ways: Any, label: str, where: str) -> Sentences:
    good = isinstance(ways, dict) and set(ways) == set(Sentences._fields)
    if not good or not all(isinstance(w, list) and w and all(isinstance(s, str) for s in w) for w in ways.values()):
        raise MedSAEError(f"{where}, {label}: give `present` and `absent`, a list of one or more sentences each")
    return Sentences(tuple(ways["present"]), tuple(ways["absent"]))
