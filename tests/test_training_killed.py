"""A training that is killed goes on, by the same command, to the same files."""

import filecmp
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.planted import planted_rows, write_store

from medsae_plugin.cli import main

RECIPE = """
saes:
  - {name: one, hook: hook_embedding, architecture: batchtopk, expansion: 1, options: {k: 3}}
  - {name: two, hook: hook_embedding, expansion: 2, options: {l1_coefficient: 0.5}}
training: {total_training_samples: 38400, batch_size: 64, lr: 3.0e-3, lr_warm_up_steps: 50, validate_every: 50}
"""
FILES = ("sae_weights.safetensors", "cfg.json", "training.json", "history.parquet")


@pytest.fixture
def command(tmp_path) -> list[str]:
    """All but where to."""
    rows, _ = planted_rows(600, 16, 24)
    store = write_store(tmp_path / "store", {"hook_embedding": rows})
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    often = ["--checkpoint-minutes", "0.002"]
    return ["train", str(store.path), "--recipe", str(tmp_path / "recipe.yaml"), *often, "--out"]


def kill_after(command: list[str], out: Path, seconds: float) -> None:
    """Run the command in a process of its own, and kill it so long after its first whole checkpoint."""
    process = subprocess.Popen([sys.executable, "-m", "medsae_plugin", *command, str(out)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((out / "checkpoints").glob("*")) and time.monotonic() < deadline:
        assert process.poll() is None, "it was to be killed on the way"
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=10) == -signal.SIGKILL


def test_a_killed_training_goes_on_by_the_same_command_to_the_same_files(command, tmp_path, capsys):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_after(command, killed, random.uniform(0, 0.3))
    assert not (killed / "one").exists()
    capsys.readouterr()
    assert main([*command, str(killed)]) == 0
    assert "going on from the checkpoint at step " in capsys.readouterr().err
    assert main([*command, str(whole), "--quiet"]) == 0
    assert "training" not in capsys.readouterr().err
    for name in ("one", "two"):
        for file in FILES:
            assert filecmp.cmp(whole / name / file, killed / name / file, shallow=False), (name, file)
    assert not (killed / "checkpoints").exists(), "what was for going on alone is gone in the end"
    assert main([*command, str(killed)]) == 0
    assert "holds this training, finished" in capsys.readouterr().err
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("64", "32"))
    assert main([*command, str(killed)]) == 1
    assert "training.batch_size: 64 in the folder, 32 now" in capsys.readouterr().err


def test_a_training_without_a_checkpoint_says_that_it_begins_anew(command, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("38400", "6400"))
    assert main([*command, str(out), "--quiet"]) == 0
    weights = (out / "one" / FILES[0]).read_bytes()
    for name in ("one", "two"):
        (out / name / "training.json").unlink()
    capsys.readouterr()
    assert main([*command, str(out)]) == 0
    assert "has no checkpoint yet; it begins anew" in capsys.readouterr().err
    assert (out / "one" / FILES[0]).read_bytes() == weights
