"""A user's own metric, in a module on disk, is known to the command line; and what `--import` says of bad modules."""

import json
import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import jsonschema
import pytest
from helpers.extending import prepare, run

import medsae_plugin
from medsae_plugin.cli.schema import _SAVED
from medsae_plugin.errors import MedSAEError
from medsae_plugin.saved import Saved
from medsae_plugin.scores.models import Result

METRIC = """
import numpy as np
import medsae_plugin as medsae

@medsae.metric("peak", title="own peak", per="latent", show=["table"])
def peak(scored):
    "The largest activation, and a half."
    return scored.report.maximum + 0.5
"""
EVALUATE = [
    "evaluate",
    "store",
    "saes/embedding",
    "--table",
    "cxr/labels.csv",
    "--permutations",
    "5",
    "--bootstrap",
    "5",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extending")
    prepare(folder)
    (folder / "my_metric.py").write_text(METRIC)
    return folder


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> str:
    """What an evaluation with the metric printed."""
    done = run(folder, *EVALUATE, "--out", "scores", "--import", "my_metric")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_own_metric_stands_in_the_table_and_the_files(folder, evaluated):
    assert "own peak" in evaluated
    (sae,) = [
        c for c in json.loads((folder / "scores" / "metrics.json").read_text())["candidates"] if c["kind"] == "sae"
    ]
    tops = [o for o in sae["observations"] if o["latent"] is not None]
    assert tops and all(o["peak"] >= 0.5 for o in tops)
    assert "own peak" not in run(folder, *EVALUATE, "--out", "other").stdout


def test_what_is_saved_fits_its_schema_which_names_every_metric(folder, evaluated):
    done = run(folder, "--import", "my_metric", "schema", "evaluation", "--out", "schema.json")
    assert done.returncode == 0, done.stderr
    schema = json.loads((folder / "schema.json").read_text())
    saved = json.loads((folder / "scores" / "metrics.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(saved, schema)
    observation, sae = (schema["$defs"][name]["properties"] for name in ("Observation", "UnitScores"))
    assert observation["peak"]["title"] == "own peak" and observation["auroc"]["title"] == "AUROC"
    assert sae["mean_top_r"]["title"] == "mean r of top latents"
    for wrong in ({"schema": 1}, {"candidates": [{**saved["candidates"][0], "mean_top_r": "0.5"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(saved | wrong, schema)
    assert "peak" not in run(folder, "schema", "evaluation").stdout
    assert "comparison" in run(folder, "schema").stdout


@pytest.mark.parametrize(
    ("what", "file"),
    [
        ("store", "store/manifest.json"),
        ("run", "saes/run.json"),
        ("training", "saes/embedding/training.json"),
        ("latents", "scores/latents/neurons-of-hook_embedding/manifest.json"),
        ("latents", "scores/latents/embedding/manifest.json"),
    ],
)
def test_what_stores_and_trainings_are_fits_its_schema_and_opens_as_it_was_written(folder, evaluated, what, file):
    _, module, name = _SAVED[what]
    kind, path = getattr(import_module(module), name), folder / file
    schema, content = kind.model_json_schema(mode="serialization"), json.loads(path.read_text())
    jsonschema.validate(content, schema)
    for wrong in ({"schema_version": 2}, {"surprise": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content | wrong, schema)
    assert kind.open(path).text() == path.read_text()
    newer = path.with_name("newer.json")
    newer.write_text(json.dumps(content | {"schema_version": 2}))
    with pytest.raises(MedSAEError, match=r"newer\.json has schema version 2, and this version .* reads 1; install"):
        kind.open(newer)
    newer.unlink()


def test_every_result_has_a_schema():
    for _, module, _ in pkgutil.walk_packages(medsae_plugin.__path__, "medsae_plugin."):
        if not module.endswith("__main__"):
            import_module(module)
    saved = {getattr(import_module(module), model) for _, module, model in _SAVED.values()}
    kinds = [*Saved.__subclasses__(), *Result.__subclasses__()]
    assert saved == {kind for kind in kinds if kind is not Result and kind.__module__.startswith("medsae_plugin.")}
    for kind in saved:
        jsonschema.Draft202012Validator.check_schema(kind.model_json_schema(mode="serialization"))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("absent", "--import absent: no module 'absent' in "),
        ("my_metric.py", "give its name, without .py"),
        ("raises", "--import raises: it cannot be imported (ValueError: not today)"),
        ("needs", "--import needs: it needs 'something_else', which is not installed"),
        ("twice", "--import twice: there is a metric 'r' already"),
        ("leaves", "--import leaves: it cannot be imported (SystemExit: 3)"),
    ],
)
def test_a_bad_module_is_told_in_a_line(tmp_path, module, said):
    (tmp_path / "raises.py").write_text("raise ValueError('not today')")
    (tmp_path / "needs.py").write_text("import something_else")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    (tmp_path / "my_metric.py").write_text("")
    twice = "from medsae_plugin.scores import declared\nfrom medsae_plugin import metric\n"
    (tmp_path / "twice.py").write_text(twice + "metric('r', title='r', per='sae')(len)")
    for words in (["--import", module, "encoders"], ["encoders", "--import", module]):
        done = run(tmp_path, *words)
        assert done.returncode == 1 and done.stderr.startswith("medsae: ") and said in done.stderr
        assert "Traceback" not in done.stderr and not done.stdout


def test_an_old_spelling_works_and_names_the_new_one(folder):
    done = run(folder, *EVALUATE, "--out", "old", "--report", "val")
    assert done.returncode == 0 and "--report is now --report-split; the old spelling goes with 0.3" in done.stderr
    assert json.loads((folder / "old" / "metrics.json").read_text())["report"]["split"] == "val"
    done = run(folder, "sweep", "absent.yaml", "--store", "store", "--table", "cxr/labels.csv", "--out", "swept")
    assert "is now medsae sweep STORE --recipe RECIPE" in done.stderr and "no recipe at absent.yaml" in done.stderr
    done = run(folder, "vocabulary", "--reports", "absent.csv", "--out", "terms.tsv")
    assert "--reports is now --table" in done.stderr and "no table at absent.csv" in done.stderr


def test_sites_whose_untrained_saes_differ_are_not_merged(folder):
    """Their sums would be of other weights under one name."""
    for seed in ("0", "1"):
        done = run(folder, "stats", *EVALUATE[1:5], "--out", f"site{seed}", "--seed", seed)
        assert done.returncode == 0, done.stderr
    done = run(folder, "merge", "site0", "site1", "--out", "merged")
    assert done.returncode == 1 and "do not fit each other: units" in done.stderr
    assert run(folder, "merge", "site0", "site0", "--out", "merged").returncode == 0


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("medsae ", {"evaluate", "name", "encoders", "store", "schema"}),
        ("medsae store ", {"verify"}),
        ("medsae name score --ju", {"--judge"}),
        ("medsae encoders med", {"medclip-swin", "medsiglip-448"}),
        ("medsae schema ", {"evaluation", "comparison"}),
    ],
)
def test_a_shell_completes_commands_options_and_cards(tmp_path, line, offered):
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    out = tmp_path / "completions"
    environment = {**os.environ, **asked, "_ARGCOMPLETE_STDOUT_FILENAME": str(out)}
    code = "import sys\nfrom medsae_plugin.cli import main\nmain()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    words = {word.strip() for word in out.read_text().split("\n")}
    assert offered <= words and ("--report" not in words)
