"""The command that makes the bundled release: the same files each time, and a card that registers."""

import shutil
from pathlib import Path

import pytest
from helpers.repository_scripts import script

from medsae_plugin import Evaluation, demo
from medsae_plugin.encoders.cards import pretrained_folder
from medsae_plugin.fetch import check_files
from medsae_plugin.release.cards import read_releases
from medsae_plugin.sae_folders import read_object

make_release = script("release_phantom").make_release

RECIPE = """
saes:
  - {name: embedding, hook: hook_embedding, architecture: batchtopk, expansion: 1, options: {k: 4}}
training: {total_training_samples: 2048, batch_size: 64, lr: 1.0e-3, validate_every: 100}
"""


def test_the_same_demo_makes_the_same_release(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setattr(demo, "RECIPE", str(tmp_path / "recipe.yaml"))
    first, second = tmp_path / "first", tmp_path / "second"
    card = make_release(first, tmp_path / "work", n=60, progress=False)
    (tmp_path / "again").mkdir()
    for part in ("demo.json", "phantoms"):  # the slow part, whose own tests say that a seed gives the same images
        source = tmp_path / "work" / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / "again" / part)
    make_release(second, tmp_path / "again", n=60, progress=False)
    made = {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert made == {path.relative_to(second): path.read_bytes() for path in second.rglob("*") if path.is_file()}
    assert Path("medsae-phantom/embedding/metrics.json") in made and len(made) == 6
    (release,) = read_releases(card)
    sae = release.saes["embedding"]
    check_files(first / "medsae-phantom" / sae.path, sae.sha256)
    assert (release.name, sae.hook) == ("medsae-phantom", "hook_embedding")


@pytest.mark.parametrize("name", ["embedding", "last-block"])
def test_the_bundled_configs_count_the_dead_latents_that_the_table_has(name):
    folder = pretrained_folder() / "medsae-phantom" / name
    config, (scores,) = read_object(folder / "cfg.json"), Evaluation.open(folder / "metrics.json").saes
    dead = config["metadata"]["num_dead_features"]
    assert dead == round(scores.value("dead") * config["d_sae"])
    assert dead < 0.1 * config["d_sae"]
