"""The command line from end to end, on real radiographs, and its errors."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from medsae_plugin import __version__
from medsae_plugin.cli import main
from medsae_plugin.phantoms import generate

RECIPE = """
saes:
  - {name: embedding, hook: hook_embedding, architecture: topk, expansion: 2, options: {k: 16}}
  - {name: last-stage, hook: stages.3.blocks.1.hook_resid_post, architecture: topk, expansion: 1, options: {k: 16}}
training: {total_training_samples: 10240, batch_size: 128, lr: 1.0e-3, validate_every: 40}
"""


def test_the_whole_path_on_real_radiographs(shared, golden_medclip, tmp_path, capsys):
    table, root = shared / "realcxr" / "labels.csv", tmp_path / "cxr"
    root.mkdir()
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    frame = pd.concat([frame.iloc[::3], frame[frame["Pneumonia"] != "1.0"]]).drop_duplicates("Path")
    for path in frame["Path"]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(shared / "realcxr" / path)
    broken = frame["Path"].iloc[0]
    (root / broken).unlink()
    (root / broken).write_bytes(b"not a radiograph")
    frame.to_csv(root / "labels.csv", index=False)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    store, saes, scores = tmp_path / "store", tmp_path / "saes", tmp_path / "scores"
    hooks = "hook_embedding,stages.3.blocks.1.hook_resid_post"
    extract = ["extract", "medclip-swin", "--weights", golden_medclip("swin"), "--table", root / "labels.csv"]
    assert main([*map(str, extract), "--hooks", hooks, "--out", str(store), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert f"{len(frame) - 1} images of medclip-swin (1 unreadable, see failures.csv)" in out
    assert broken in (store / "failures.csv").read_text()
    assert main(["store", "verify", str(store)]) == 0
    assert "is sound" in capsys.readouterr().out
    train = ["train", str(store), "--recipe", str(tmp_path / "recipe.yaml"), "--out", str(saes), "--quiet"]
    assert main(train) == 0
    assert main([*train, "--resume"]) == 0
    capsys.readouterr()
    folders = [str(saes / "embedding"), str(saes / "last-stage")]
    evaluate = ["evaluate", str(store), *folders, "--table", str(root / "labels.csv"), "--out", str(scores), "--quiet"]
    assert main(evaluate) == 0
    out = capsys.readouterr().out
    assert "Pneumonia" in out and "explained variance" in out and "neurons" in out
    metrics = json.loads((scores / "metrics.json").read_text())
    last = "stages.3.blocks.1.hook_resid_post"
    assert [(c["kind"], c["hook"]) for c in metrics["candidates"]] == [
        ("sae", "hook_embedding"),
        ("untrained", "hook_embedding"),
        ("sae", last),
        ("untrained", last),
        ("neurons", "hook_embedding"),
        ("neurons", last),
    ]
    latents = pd.read_parquet(scores / "latents.parquet")
    assert len(latents[latents["kind"] == "sae"]) == 1024 + 768
    for file in (*scores.glob("*.json"), *saes.rglob("*.json"), store / "manifest.json"):
        assert str(tmp_path) not in file.read_text() and "patient_id" not in file.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "medclip-swin", "--out", "x"], "give either --table CSV or --images DIR"),
        (["extract", "medclip-swin", "--table", "absent.csv", "--out", "x"], "there is no table at absent.csv"),
        (["extract", "medclip-vit", "--images", ".", "--out", "x"], "no image"),
        (["extract", "medclip-swin", "--images", "absent", "--out", "x"], "absent is not a folder"),
        (["store", "verify", "."], "not an activation store"),
        (["train", ".", "--recipe", "absent.yaml", "--out", "x"], "no recipe at absent.yaml"),
        (["evaluate", ".", "sae", "--table", "absent.csv", "--out", "x"], "not an activation store"),
        (["phantoms", "--n", "0", "--out", "x"], "cannot draw 0 phantoms"),
    ],
)
def test_mistakes_are_told_in_a_line_without_a_traceback(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("medsae: ") and message in err and "Traceback" not in err


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys\nfrom medsae_plugin.cli import declared\ndeclared().parser().format_help()\n"
        "print([m for m in ('torch', 'sae_lens', 'transformers', 'pandas', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    run = subprocess.run([sys.executable, "-m", "medsae_plugin", "--version"], capture_output=True, text=True)
    assert run.stdout == f"medsae {__version__}\n"


def test_a_wheel_carries_the_cards_the_bundled_weights_and_the_release(tmp_path):
    """Built and installed beside SAE-Lens in an environment of its own, without the repository on the path, offline."""
    repository = Path(__file__).parent.parent
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    subprocess.run([*build, repository], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    site = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True)
    here = [p for p in sys.path if p.endswith("site-packages")]
    code = (
        f"import sys; sys.path += {here!r}\n"
        "import medsae_plugin; print(medsae_plugin.__file__)\n"
        "encoder = medsae_plugin.HookedVisionEncoder.from_pretrained('phantom-swin')\n"
        "prompts = __import__('medsae_plugin.data.prompts').data.prompts.load_prompts('chexpert')\n"
        "print(encoder.encode_text(['edema']).shape[0], len(prompts.sentences), "
        "*__import__('medsae_plugin.encoders').encoders.list_cards())\n"
        "from sae_lens import SAE\n"
        "print(SAE.from_pretrained('medsae-phantom', 'embedding').cfg.metadata.hook_name)\n"
        "from medsae_plugin.cli import main\n"
        "main(['publish', 'absent', '--repo', 'a/b'])"
        "\nfrom medsae_plugin.naming import Vocabulary\nfrom medsae_plugin.naming.prompts import load_prompt\n"
        "print(Vocabulary.seed().category_of('edema'), load_prompt('name').identity[:8])"
    )
    python = tmp_path / "env" / "bin" / "python"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    out = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=offline)
    assert out.returncode == 0, out.stderr
    first, second, third, fourth = out.stdout.splitlines()
    assert first == str(site / "medsae_plugin" / "__init__.py")
    assert second.startswith("1 14 ") and {"medclip-resnet50", "medclip-swin-medsae"} <= set(second.split())
    assert fourth == "Edema v1/name:"
    assert third == "hook_embedding" and "absent holds no SAE" in out.stderr
    with zipfile.ZipFile(wheel) as archive:
        assert "medsae_plugin/release/model_card.md" in archive.namelist()


def test_what_was_read_as_what_is_told_and_the_tables_own_split_is_used(tmp_path, capsys):
    """Extraction with a table: patients, labels, what is left aside, splits; and where images are not there."""
    table = pd.read_csv(generate(8, tmp_path / "cxr", size=64), dtype=str, keep_default_na=False)
    patients = table["Path"].str.extract(r"(patient\d+)")[0]
    table["Path"], table["fold"] = "CheXpert-v1.0/" + table["Path"], "1"
    table["split"] = ["test" if patient == patients.iloc[-1] else "train" for patient in patients]
    table.to_csv(tmp_path / "cxr" / "split.csv", index=False)
    extract = ["extract", "phantom-swin", "--table", str(tmp_path / "cxr" / "split.csv"), "--quiet", "--workers", "0"]
    assert main([*extract, "--out", str(tmp_path / "store")]) == 0
    told = capsys.readouterr().err
    for said in (
        "dialect chexpert",
        "without 'CheXpert-v1.0/'",
        "fold: 0 and 1 alone",
        "Support Devices",
        "the table's own",
    ):
        assert said in told
    images = pd.read_csv(tmp_path / "store" / "images.csv", dtype=str)
    assert images["split"].tolist() == table["split"].tolist() and not images["path"].str.startswith("CheXpert").any()
    assert main([*extract, "--out", str(tmp_path / "other"), "--splits", "train=0.5,test=0.5"]) == 0
    assert "own splits are not used" in capsys.readouterr().err
    table["split"] = ["train", "test"] * (len(table) // 2)
    table.to_csv(tmp_path / "cxr" / "split.csv", index=False)
    wrong = {
        "more than one of its splits": [],
        "either --split-column or --splits": ["--split-column", "split", "--splits", "train=1"],
        "either --patient-column or --patients-from": ["--patient-column", "fold", "--patients-from", "x"],
        "no other patient to find": ["--patients-are-images", "--patients-from", "x"],
        "none of its 8 images is there": ["--root", str(tmp_path / "store"), "--splits", "train=1"],
    }
    for message, more in wrong.items():
        assert main([*extract, "--out", str(tmp_path / "no"), *more]) == 1
        assert message in capsys.readouterr().err and not (tmp_path / "no").exists()
