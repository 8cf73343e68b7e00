"""Recipes: those that ship load, and what is wrong in one is said."""

import pytest

from medsae_plugin import MedSAEError
from medsae_plugin.comparison import load_grid
from medsae_plugin.training import SAESpec, TrainingConfig, load_recipe
from medsae_plugin.training.recipes import SWEEPS, list_recipes

GOOD = """
saes:
  - {name: a, hook: hook_embedding, architecture: topk, expansion: 8, options: {k: 4}}
training: {total_training_samples: 1000, batch_size: 10, lr: 1.0e-3}
"""


@pytest.mark.parametrize(
    ("load", "name"), [(load_recipe, n) for n in list_recipes()] + [(load_grid, n) for n in list_recipes(SWEEPS)]
)
def test_what_ships_loads_by_its_name(load, name):
    specs, config = load(name)
    assert specs and (config.total_training_samples or config.epochs) > 0


def test_the_papers_recipe_says_what_the_paper_says():
    specs, config = load_recipe("medsae-paper")
    (spec,) = specs
    assert (spec.hook, spec.architecture, spec.expansion, spec.normalize) == (
        "hook_embedding_unit",
        "standard",
        16,
        "center_and_scale",
    )
    assert (config.batch_size, config.epochs, config.lr_warm_up_steps, config.lr_decay_steps) == (1024, 200, 0, 0)


def test_the_papers_grid_is_its_codes_in_two_scales():
    """Three widths, eight learning rates, four coefficients: as they stand, and times sqrt(512)."""
    specs, config = load_grid("medsae-paper-grid")
    assert len(specs) == 2 * 3 * 8 * 4 and {spec.expansion for spec in specs} == {4, 8, 16} and config.epochs == 200
    coefficients = {
        name: sorted({s.options["l1_coefficient"] for s in specs if s.name.startswith(name)})
        for name in ("rescaled", "unit")
    }
    assert coefficients["rescaled"] == [1e-4, 1e-3, 3e-3, 3e-2]
    for own, scaled in zip(*coefficients.values(), strict=True):
        assert scaled == pytest.approx(own * 512**0.5, rel=2e-3)
    assert sorted({spec.lr for spec in specs}) == [1e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 5e-2]


def test_a_recipe_is_what_it_says(tmp_path):
    (tmp_path / "r.yaml").write_text(GOOD)
    specs, config = load_recipe(tmp_path / "r.yaml")
    assert specs == [SAESpec("a", "hook_embedding", "topk", 8, options={"k": 4})]
    assert config == TrainingConfig(1000, batch_size=10, lr=1e-3)


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("architecture", "arch"), 3, "saes, entry 1: unknown field arch; known are name, hook, architecture"),
        (("hook: hook_embedding, ", ""), 3, "saes, entry 1 lacks hook"),
        (("name: a", "name: 7"), 3, "name is 7, should be text$"),
        (("batch_size: 10", "batch_size: true"), 4, "batch_size is True, should be a whole number$"),
        (("expansion: 8", "expansion: true"), 3, "entry 1, expansion is True, should be a number$"),
        (("expansion: 8", "expansion: 1e1"), 3, r"expansion is '1e1', should be a number \(write 1\.0e\+1"),
        (("expansion: 8", "expansion: -8"), 3, "SAE a: expansion -8 is not above 0"),
        (("1.0e-3", "1e-3"), 4, r"lr is '1e-3', should be a number \(write 1\.0e-3, with a point, for YAML\)"),
        (("1.0e-3", "2E-5"), 4, r"lr is '2E-5', should be a number \(write 2\.0e-5"),
        (("1.0e-3", "1.25e5"), 4, r"lr is '1\.25e5', should be a number \(write 1\.25e\+5"),
        (("1.0e-3", "1e6"), 4, r"lr is '1e6', should be a number \(write 1\.0e\+6"),
        (("samples: 1000", "samples: 1e6"), 4, r"samples is '1e6', should be a whole number \(write 1000000\)"),
        (("samples: 1000", "samples: 1.0e+6"), 4, r"samples is 1000000\.0, should be .* \(write 1000000\)"),
        (("samples: 1000", "samples: 1.5"), 4, r"samples is 1\.5, should be a whole number$"),
        (("samples: 1000", "samples: many"), 4, "samples is 'many', should be a whole number$"),
        (("samples: 1000", "samples: 9"), 4, "9 training samples do not fill one batch of 10"),
        (("samples: 1000", "samples: 1000, passes: 2"), 4, r"give either epochs or samples \(total_training_samples\)"),
        (("total_training_samples: 1000, ", ""), 4, r"give either epochs or samples \(total_training_samples\)"),
        (("total_training_samples: 1000", "passes: 0"), 4, "0 epochs are none"),
        (("training:", "train:"), 4, "unknown field train; do you mean training"),
        (("saes:", "saes: []\nsaes_:"), 2, "saes"),
        (("{k: 4}", "[k]"), 3, r"options is \['k'\], should be a table of fields"),
        (("name: a", "name: ../a"), 3, "no name for an SAE's folder"),
        (("saes:", "saes: ["), 3, "not YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, change, line, message):
    assert change[0] in GOOD
    (tmp_path / "r.yaml").write_text(GOOD.replace(*change))
    with pytest.raises(MedSAEError, match=rf"r\.yaml:{line}: .*{message}"):
        load_recipe(tmp_path / "r.yaml")


def test_no_recipe_there(tmp_path):
    with pytest.raises(MedSAEError, match=r"no recipe at .*the package has: .*medsae-paper"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(
        MedSAEError, match=r"no recipe at nothing-such, .*the package has: five-layers, k-and-lr, medsae-paper-grid"
    ):
        load_grid("nothing-such")


@pytest.mark.parametrize(
    ("written", "samples", "epochs"),
    [
        ("samples: 1000", 1000, None),
        ("epochs: 2", None, 2),
        ("passes: 2.5", None, 2.5),
        ("epochs: 0.5", None, 0.5),
    ],
)
def test_rows_are_counted_in_samples_or_in_epochs_and_old_names_are_read(tmp_path, written, samples, epochs):
    (tmp_path / "r.yaml").write_text(GOOD.replace("total_training_samples: 1000", written))
    config = load_recipe(tmp_path / "r.yaml").config
    assert (config.total_training_samples, config.epochs) == (samples, epochs)
