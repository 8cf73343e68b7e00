"""Recipes: which SAEs to train and how, as a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field

from medsae_plugin.training.specs import SAESpec, TrainingConfig
from medsae_plugin.yaml_files import STRICT, read_yaml


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

    Raises:
        MedSAEError: no such file, no YAML, or every field that is unknown, missing or wrong, with its line.
    """
    return read_yaml(path, RecipeFile, "recipe").recipe
