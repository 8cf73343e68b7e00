"""What a recipe leaves open, what a training will be, and the page of its fields."""

import re

import pytest
from helpers.planted import planted_rows, write_store
from helpers.repository_scripts import script

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.sae_folders import load_sae, read_object
from medsae_plugin.store import ActivationStore
from medsae_plugin.training import SAESpec, TrainingConfig, load_recipe, train_saes
from medsae_plugin.training.defaults import fitted
from medsae_plugin.training.plan import Plan, in_minutes

RECIPE = """
saes: [{name: a, hook: hook_embedding, architecture: topk, options: {k: 4}}]
training: {samples: 12_800, batch_size: 64, lr: 1.0e-3}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ActivationStore:
    """600 images, 360 of them for training; 16 dimensions at one hook, four rows an image of 240 at the other."""
    arrays = {
        "hook_embedding": planted_rows(600, 16, 24)[0],
        "wide": planted_rows(2400, 240, 20)[0].reshape(600, 4, 240),
    }
    return write_store(tmp_path_factory.mktemp("plan") / "store", arrays)


@pytest.mark.parametrize(
    ("hook", "options", "k", "latents"),
    [
        # k: the root of 240 is 15. Latents: at most 2 d; 1,440 k / 128 (wide) or 360 k / 128 fire 128 times a pass.
        ("wide", {}, 12, 128),
        ("wide", {"k": 60}, 60, 480),
        ("hook_embedding", {}, 4, 8),
        ("hook_embedding", {"k": 8}, 8, 16),
    ],
)
def test_width_and_k_follow_from_rows_and_dimensions(store, hook, options, k, latents):
    (spec,) = fitted(store, [SAESpec("a", hook, "batchtopk", options=options)])
    assert spec.width(store.hooks[hook].d) == latents
    assert spec.options == {"k": k, "aux_loss_coefficient": 32.0}
    assert fitted(store, [spec]) == [spec]  # what is said stays


def test_what_is_given_is_kept_and_an_architecture_without_k_gets_none(store):
    given = SAESpec("a", "wide", "topk", 3, options={"k": 5, "aux_loss_coefficient": 1.0})
    assert fitted(store, [given]) == [given]
    (plain,) = fitted(store, [SAESpec("a", "wide", "standard", 2)])
    assert plain.options == {} and plain.expansion == 2


def test_steps_follow_from_samples_and_epochs(store):
    config = TrainingConfig(batch_size=64, epochs=10).counted_in(store, ["hook_embedding"])
    assert (config.total_training_samples, config.epochs, config.steps) == (3600, None, 57)  # 56 batches and a quarter
    assert (config.lr_warm_up_steps, config.lr_decay_steps, config.dead_feature_window) == (2, 11, 10)
    long = TrainingConfig(1_000_000, batch_size=10, lr_decay_steps=0).in_steps()
    assert (long.lr_warm_up_steps, long.lr_decay_steps, long.dead_feature_window) == (5000, 0, 1000)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (360 * 500, None),
        (360 * 501, r"501 passes over the same 360 rows, more than 500"),
        (359, "1 passes over 360 rows"),
    ],
)
def test_too_many_passes_or_less_than_one_warn(store, samples, said):
    spec = SAESpec("a", "hook_embedding", "topk", 1, options={"k": 2})
    lines = Plan.of(store, [spec], TrainingConfig(samples, batch_size=16)).warnings
    assert (lines == []) if said is None else re.search(said, lines[0])


def test_training_warns_as_well(store, tmp_path):
    spec = SAESpec("a", "hook_embedding", "topk", 1, options={"k": 2})
    with pytest.warns(UserWarning, match="0.18 passes over 360 rows, less than one"):
        train_saes(store, [spec], TrainingConfig(64, batch_size=64), tmp_path / "out", progress=False)


def test_the_command_plans_and_trains_nothing(store, tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(RECIPE)
    arguments = ["train", str(store.path), "--recipe", str(tmp_path / "r.yaml")]
    assert main([*arguments, "--plan", "--epochs", "5", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "360 training images; 1,800 samples in 29 steps of 64 rows; about 33.3 kB for 1 SAE(s)" in out
    assert re.search(r"a +hook_embedding +16 +topk +8 +4 +360 +5$", out, flags=re.M)
    assert "filled in: a: expansion 0.5, aux_loss_coefficient 32" in out
    assert re.search(r"time: about \d+(:\d\d)+, by 20 steps of [\d.e-]+ s each", out)
    assert not (tmp_path / "out").exists()
    assert main(arguments) == 1
    assert "--out DIR (or --plan" in capsys.readouterr().err


def test_minutes_are_samples_by_a_trial_and_the_same_command_goes_on_to_the_same_number(store, tmp_path, monkeypatch):
    """A clock by which the twenty steps of a trial take two seconds: ten steps a second."""
    from medsae_plugin.training import plan

    ticks = iter([0.0, 2.0, 10.0, 14.0])
    (tmp_path / "r.yaml").write_text(RECIPE)
    arguments = ["train", str(store.path), "--recipe", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(plan, "time", type("Clock", (), {"perf_counter": staticmethod(lambda: next(ticks))}))
        config = in_minutes(
            store, load_recipe(tmp_path / "r.yaml").specs, load_recipe(tmp_path / "r.yaml").config, 0.05
        )
        assert (config.total_training_samples, config.steps) == (1920, 30)
        assert main([*arguments, "--minutes", "0.05", "--quiet"]) == 0
    samples = read_object(tmp_path / "out" / "run.json")["training"]["total_training_samples"]
    assert samples == 64 * 15
    assert main([*arguments, "--minutes", "0.05", "--resume", "--quiet"]) == 0
    with pytest.raises(MedSAEError, match="no time to train in"):
        in_minutes(store, load_recipe(tmp_path / "r.yaml").specs, load_recipe(tmp_path / "r.yaml").config, 0.0)


@pytest.mark.parametrize("hook", ["hook_embedding", "wide"])
def test_the_recipe_that_is_written_for_a_store_is_what_is_filled_in(store, tmp_path, capsys, hook):
    file = tmp_path / "made" / "r.yaml"
    arguments = ["recipe", "--store", str(store.path), "--hook", hook]
    assert main([*arguments, "--out", str(file)]) == 0
    assert main(arguments) == 0
    assert file.read_text() in capsys.readouterr().out
    specs, config = load_recipe(file)
    left_open = SAESpec(specs[0].name, hook, "batchtopk")
    assert fitted(store, specs) == fitted(store, [left_open])
    plan = Plan.of(store, specs, config)
    assert not plan.warnings and plan.config.steps <= 3200
    for name in ("lr_warm_up_steps", "lr_decay_steps", "dead_feature_window"):  # as the comments say
        assert f"# {name}: {getattr(plan.config, name)} " in file.read_text()
    assert main([*arguments, "--out", str(file)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main([*arguments[:-1], "hook_x"]) == 1
    assert "no hook 'hook_x'; it has hook_embedding, wide" in capsys.readouterr().err


def test_dead_latents_in_the_config_are_those_of_the_validation_figures(store, tmp_path):
    spec = SAESpec("a", "wide", "topk", 2, options={"k": 2})
    folder = train_saes(store, [spec], TrainingConfig(2560, batch_size=128), tmp_path / "out", progress=False)["a"]
    dead = read_object(folder / "training.json")["validation"]["dead"] * 480
    assert dead > 0 and load_sae(folder).cfg.metadata.num_dead_features == round(dead)


def test_the_page_has_every_field_as_the_models_have_it():
    docs = script("training_docs")
    text = docs.PAGE.read_text("utf-8")
    assert docs.page(text) == text, "docs/training.md is stale: python scripts/training_docs.py"
