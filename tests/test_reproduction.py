"""docs/reproduction.md: its commands run one after the other, on phantoms and with a small encoder."""

import json
import subprocess
import sys

import pytest
import torch
from helpers.repository_scripts import script
from sae_lens import SAE

import medsae_plugin as medsae
from medsae_plugin.cli import main
from medsae_plugin.encoders import load_card
from medsae_plugin.training.recipes import SWEEPS, recipe_file

reproduction = script("reproduction")


def test_the_page_runs_from_its_first_to_its_last_command(tmp_path, monkeypatch, capsys):
    settings, commands = reproduction.commands_of(reproduction.PAGE.read_text("utf-8"))
    assert [command.split()[1] for command in commands] == ["-c", "extract", "store", "train", "evaluate", "sweep"]
    training = reproduction.as_chexpert(tmp_path / settings["DATA"], 24, 96)
    swept = reproduction.smaller(recipe_file(settings["GRID"], SWEEPS), tmp_path / "grid.yaml", 2, 16)
    reproduction.smaller(recipe_file(settings["RECIPE"]), tmp_path / "recipe.yaml", 2, 16)
    settings |= {"ENCODER": "phantom-swin", "WEIGHTS": str(load_card("phantom-swin").source_path), "DEVICE": "cpu"}
    settings |= {"RECIPE": "recipe.yaml", "GRID": "grid.yaml"}
    monkeypatch.chdir(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for command in commands:
        words = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True).stdout
        program, *arguments = words.splitlines()
        if program == "medsae":
            done = main([*arguments, "--quiet"])
        else:
            done = subprocess.run([sys.executable, *arguments]).returncode
        assert done == 0, capsys.readouterr().err

    store = medsae.ActivationStore("runs/store")
    rows = store.image_rows("hook_embedding_unit", slice(None))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    assert len(rows) == 24 and store.n_rows("hook_embedding_unit", "train") == training
    assert set(store.images["split"]) == {"train", "val"}
    assert SAE.load_from_disk("runs/saes/medsae").cfg.d_sae == 16 * 96
    report = json.loads((tmp_path / "runs" / "saes" / "medsae" / "training.json").read_text())
    assert report["training"]["total_training_samples"] == 2 * training
    for folder, n in (("runs/paper", 1), ("runs/sweep/comparison", swept)):
        found = json.loads((tmp_path / folder / "metrics.json").read_text())
        assert found["table_images"] == training and found["without_activations"] == 0
        assert [c["kind"] for c in found["candidates"]].count("sae") == n and len(found["candidates"]) == n + 1
    ranks = [c["rank_entropy"] for c in found["candidates"] if c["kept"]]
    assert ranks == sorted(ranks) and swept == 16
    assert "[17]" in capsys.readouterr().out


def test_what_is_told_of_the_whole_is_the_time_on_the_bars():
    output = "training: 10%|# | 1/9 [00:30<01:00]\rtraining: 99%|# | 8/9 [01:30<00:01]\nscoring: 1/1 [00:02<00:00]"
    assert reproduction.on_bar(output, "training") == 90
    twice = output + "\ntraining: 10%|# | 1/9 [1:00:05<9:00:00]"
    assert reproduction.on_bar(twice + "\ntraining: 10%|# | 1/9 [00:01<01:00]", "training") == 3606
    ran = [reproduction.Ran("medsae extract x --out y", 100.0, 50.0, 1.5, "extracting: 1/1 [01:30<00:00, 2 image/s]")]
    text = reproduction.table(ran, {"medsae extract": [(reproduction.BARS["extract"], 400)]})
    assert " ".join(text.splitlines()[1].split()) == "extract 100 s 50 s 1.50 GiB 5.0 core hours"


@pytest.mark.parametrize("block", ["    medsae x", "```python\nmedsae x\n```"])
def test_other_blocks_of_the_page_are_not_run(block):
    assert reproduction.commands_of(f"text\n\n{block}\n\n```sh\nA=b\nmedsae y \\\n  --z $A\n```\n") == (
        {"A": "b"},
        ["medsae y --z $A"],
    )
