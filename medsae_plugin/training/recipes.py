"""Recipes: which SAEs to train and how, as a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field

from medsae_plugin.encoders.cards import pretrained_folder
from medsae_plugin.errors import MedSAEError
from medsae_plugin.training.specs import SAESpec, TrainingConfig
from medsae_plugin.yaml_files import STRICT, read_yaml

RECIPES, SWEEPS = "recipes", "sweeps"  # folders of those that ship


class Recipe(NamedTuple):
    """What a recipe says; unpacks into the arguments of `train_saes`."""

    specs: list[SAESpec]
    config: TrainingConfig


class RecipeFile(BaseModel):
    """What may stand in a recipe."""

    model_config = STRICT
    saes: Annotated[list[SAESpec], Field(min_length=1)]
    training: TrainingConfig

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.saes, self.training)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe: `saes`, a list of the fields of `SAESpec`, and `training`, those of `TrainingConfig`.

    Args:
        path: of a file, or the name of one that ships with the package, such as `medsae-paper`.

    Raises:
        MedSAEError: no such file, no YAML, or every field that is unknown, missing or wrong, with its line.
    """
    return read_yaml(recipe_file(path), RecipeFile, "recipe").recipe


def list_recipes(kind: str = RECIPES) -> list[str]:
    """Names of the recipes that ship with the package, for `medsae train`, or for `medsae sweep` (`SWEEPS`)."""
    return sorted(file.stem for file in (pretrained_folder() / kind).glob("*.yaml"))


def recipe_file(name_or_path: str | Path, kind: str = RECIPES) -> Path:
    """The file of this name in the package, or the user's own; a sweep may be a plain recipe as well.

    Raises:
        MedSAEError: neither is there.
    """
    for folder in dict.fromkeys((kind, RECIPES)):
        if str(name_or_path) in list_recipes(folder):
            return pretrained_folder() / folder / f"{name_or_path}.yaml"
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise MedSAEError(
            f"there is no recipe at {path}, and of this name the package has: " + ", ".join(list_recipes(kind))
        )
    return path
