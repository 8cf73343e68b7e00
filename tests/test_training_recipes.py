"""Recipes: those that ship load, and what is wrong in one is said."""

from pathlib import Path

import pytest

from medsae_plugin import MedSAEError
from medsae_plugin.training import SAESpec, TrainingConfig, load_recipe

RECIPES = sorted((Path(__file__).parent.parent / "examples" / "recipes").glob("*.yaml"))
GOOD = """
saes:
  - {name: a, hook: hook_embedding, architecture: topk, expansion: 8, options: {k: 4}}
training: {total_training_samples: 1000, batch_size: 10, lr: 1.0e-3}
"""


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_the_recipes_that_ship_load(path):
    specs, config = load_recipe(path)
    assert specs and config.total_training_samples > 0


def test_the_papers_recipe_says_what_the_paper_says():
    specs, config = load_recipe(next(p for p in RECIPES if p.stem == "medsae-paper"))
    (spec,) = specs
    assert (spec.hook, spec.architecture, spec.expansion, spec.normalize) == (
        "hook_embedding",
        "standard",
        16,
        "center_and_scale",
    )
    assert config.batch_size == 1024


def test_a_recipe_is_what_it_says(tmp_path):
    (tmp_path / "r.yaml").write_text(GOOD)
    specs, config = load_recipe(tmp_path / "r.yaml")
    assert specs == [SAESpec("a", "hook_embedding", "topk", 8, options={"k": 4})]
    assert config == TrainingConfig(1000, batch_size=10, lr=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("architecture", "arch"), "SAE 1: unknown fields arch"),
        (("1.0e-3", "1e-3"), r"lr is '1e-3', should be float \(write 1.0e-3"),
        (("hook: hook_embedding, ", ""), "SAE 1 lacks hook"),
        (("batch_size: 10", "batch_size: true"), "batch_size is True, should be int"),
        (("1.0e-3", "2E-5"), r"lr is '2E-5', should be float \(write 2\.0e-5"),
        (("1.0e-3", "1e6"), r"lr is '1e6', should be float \(write 1\.0e\+6"),
        (("samples: 1000", "samples: 1e6"), r"total_training_samples is '1e6', should be int \(write 1000000\)"),
        (("samples: 1000", "samples: 1.0e+6"), r"samples is 1000000\.0, should be int \(write 1000000\)"),
        (("samples: 1000", "samples: 1.5"), r"samples is 1\.5, should be int$"),
        (("samples: 1000", "samples: many"), "samples is 'many', should be int$"),
        (("training:", "train:"), "two fields saes and training"),
        (("{k: 4}", "[k]"), "options is"),
        (("name: a", "name: ../a"), "no name for an SAE's folder"),
        (("saes:", "saes: ["), "not YAML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, change, message):
    assert change[0] in GOOD
    (tmp_path / "r.yaml").write_text(GOOD.replace(*change))
    with pytest.raises(MedSAEError, match=message):
        load_recipe(tmp_path / "r.yaml")


def test_no_recipe_there(tmp_path):
    with pytest.raises(MedSAEError, match="no recipe at"):
        load_recipe(tmp_path / "absent.yaml")
