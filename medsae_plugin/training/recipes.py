"""Recipes: which SAEs to train and how, as a YAML file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from medsae_plugin.errors import MedSAEError
from medsae_plugin.training.specs import SAESpec, TrainingConfig, check_kind


class Recipe(NamedTuple):
    """What a recipe says; unpacks into the arguments of `train_saes`."""

    specs: list[SAESpec]
    config: TrainingConfig


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe: `saes`, a list of the fields of `SAESpec`, and `training`, those of `TrainingConfig`.

    Raises:
        MedSAEError: no such file, no YAML, a field that is unknown, missing or of the wrong kind.
    """
    return parse_recipe(read_yaml(path), str(path))


def read_yaml(path: str | Path) -> Any:
    """What a recipe's file holds.

    Raises:
        MedSAEError: no such file, no YAML.
    """
    path = Path(path)
    if not path.is_file():
        raise MedSAEError(f"there is no recipe at {path}")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MedSAEError(f"{path} is not YAML: {error}") from None


def parse_recipe(content: Any, where: str) -> Recipe:
    """A recipe from what its file holds; see `load_recipe`. `where` begins every message."""
    if not isinstance(content, dict) or set(content) != {"saes", "training"}:
        raise MedSAEError(f"{where} should have the two fields saes and training")
    if not isinstance(content["saes"], list) or not content["saes"]:
        raise MedSAEError(f"{where}: saes is a list of SAEs")
    specs = [_checked(SAESpec, entry, f"{where}, SAE {k + 1}") for k, entry in enumerate(content["saes"])]
    return Recipe(specs, _checked(TrainingConfig, content["training"], f"{where}, training"))


def _checked(kind: Any, entry: Any, where: str) -> Any:
    """An instance of a dataclass from a YAML mapping, with its fields' kinds checked."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if not isinstance(entry, dict):
        raise MedSAEError(f"{where} should hold the fields {', '.join(fields)}")
    if unknown := sorted(map(str, entry.keys() - fields.keys())):
        raise MedSAEError(f"{where}: unknown fields {', '.join(unknown)}; known are {', '.join(fields)}")
    required = {f.name for f in fields.values() if f.default is f.default_factory is dataclasses.MISSING}
    if missing := sorted(required - entry.keys()):
        raise MedSAEError(f"{where} lacks {', '.join(missing)}")
    for name, value in entry.items():
        check_kind(value, fields[name], where)
    return kind(**entry)
