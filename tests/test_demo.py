"""`medsae demo` from phantoms to the report, with a recipe of seconds in place of its own."""

import json

from medsae_plugin import demo
from medsae_plugin.cli import main

RECIPE = """
saes:
  - {name: last-block, hook: stages.2.blocks.3.hook_resid_post, architecture: batchtopk, expansion: 1, options: {k: 8}}
  - {name: embedding, hook: hook_embedding, architecture: batchtopk, expansion: 1, options: {k: 8}}
training: {total_training_samples: 5_120, batch_size: 128, lr: 1.0e-3, validate_every: 10}
"""


def test_it_ends_in_a_comparison_of_its_two_layers_and_a_report(tmp_path, monkeypatch, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setattr(demo, "RECIPE", tmp_path / "recipe.yaml")
    arguments = ["demo", "--n", "80", "--out", str(tmp_path / "demo"), "--quiet"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "AUROC of a linear probe at each layer" in out and "What becomes of latents" in out
    for line in out.splitlines()[-8:]:
        assert (tmp_path / "demo").joinpath(line.split(str(tmp_path / "demo"))[1].lstrip("/")).exists()
    content = json.loads((tmp_path / "demo" / "comparison" / "comparison.json").read_text())
    assert [(f["a"], f["b"]) for f in content["flows"]] == [("last-block", "embedding")]
    report = tmp_path / "demo" / "report.html"
    assert "data:image" in report.read_text() and str(tmp_path) not in report.read_text()
    before = report.read_bytes()
    weights = tmp_path / "demo" / "saes" / "embedding" / "sae_weights.safetensors"
    trained = weights.stat().st_mtime_ns
    assert main(arguments) == 0  # it goes on from what is there, to the same report
    assert report.read_bytes() == before and weights.stat().st_mtime_ns == trained
    assert main([*arguments, "--seed", "1"]) == 1
    assert "other arguments" in capsys.readouterr().err
