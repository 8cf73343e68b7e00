"""Grids, packing, and a sweep that goes on where it was stopped."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import small_run
from helpers.planted import planted_rows, write_store
from helpers.small_run import LABELS

from medsae_plugin import MedSAEError, SAESpec, TrainingConfig
from medsae_plugin.cli import main
from medsae_plugin.comparison import load_grid, sweep
from medsae_plugin.comparison.sweeps import pack
from medsae_plugin.report import open_run, write_figures
from medsae_plugin.training.plan import training_bytes
from medsae_plugin.training.specs import build_sae

GRID = """
saes:
  - {name: a, hook: [hook_embedding, hook_pooled], architecture: topk, expansion: [2, 4.5], options: {k: [4, 8]}}
  - hook: hook_pooled
    architecture: matryoshka_batchtopk
    options: {k: 8, matryoshka_widths: [[8, 16]]}
    seed: [0, 3]
training: {total_training_samples: 1000, batch_size: 10, lr: 1.0e-3}
"""


def test_lists_stand_for_every_combination(tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    specs, config = load_grid(tmp_path / "grid.yaml")
    assert len(specs) == 2 * 2 * 2 + 2 and len({spec.name for spec in specs}) == 10
    assert specs[0] == SAESpec("a-embedding-expansion2-k4", "hook_embedding", "topk", 2, options={"k": 4})
    assert specs[7] == SAESpec("a-pooled-expansion4.5-k8", "hook_pooled", "topk", 4.5, options={"k": 8})
    assert specs[9].options == {"k": 8, "matryoshka_widths": [8, 16]} and specs[9].seed == 3
    assert config.batch_size == 10


def test_the_sweep_that_ships_is_five_layers_times_two_seeds():
    specs, _ = load_grid("five-layers")
    assert len({spec.hook for spec in specs}) == 5 and [spec.seed for spec in specs] == [0, 1] * 5


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("k: [4, 8]", "k: []"), 3, "k is a list without choices"),
        (("seed: [0, 3]", "seed: [0, 0]"), 4, "several SAEs have the name"),
        (("seed: [0, 3]", "seed: [0, three]"), 7, "saes, entry 2, seed is 'three', should be a whole number$"),
        (("architecture: topk", "arch: [topk]"), 3, "saes, entry 1: unknown field arch"),
        (("options: {k: [4, 8]}", "options: [4]"), 3, r"options is \[4\], should be a table of fields"),
        (("saes:", "sae:"), 2, "unknown field sae; do you mean saes"),
        (("1.0e-3", "[1.0e-3, 1.0e-4]"), 8, "lr is .*, should be a number$"),
    ],
)
def test_what_is_wrong_in_a_grid_is_said_once_with_its_line(tmp_path, change, line, message):
    assert change[0] in GRID
    (tmp_path / "grid.yaml").write_text(GRID.replace(*change))
    with pytest.raises(MedSAEError, match=rf"grid\.yaml:{line}: .*{message}") as said:
        load_grid(tmp_path / "grid.yaml")
    assert "\n" not in str(said.value)


def test_passes_hold_as_many_saes_as_fit_and_the_estimate_covers_what_training_holds(tmp_path):
    store = write_store(tmp_path / "store", {"hook_embedding": planted_rows(60, 16, 8)[0]})
    specs = [SAESpec(f"s{k}", "hook_embedding", "topk", 8, options={"k": 4}) for k in range(5)]
    config = TrainingConfig(1000, batch_size=10)
    each = training_bytes(16, specs[0], config)
    assert [len(p) for p in pack(store, specs, config, 2 * each)] == [2, 2, 1]
    assert [len(p) for p in pack(store, specs, config, 5 * each)] == [5]
    assert [s.name for p in pack(store, specs, config, 2 * each) for s in p] == [s.name for s in specs]
    with pytest.raises(MedSAEError, match="raise the bound"):
        pack(store, specs, config, each - 1)
    for architecture, options in (("gated", {}), ("topk", {"k": 4})):
        sae = build_sae(store, SAESpec("x", "hook_embedding", architecture, 8, options=options), config)
        optimizer = torch.optim.Adam(sae.parameters())
        for p in sae.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        held = [p for p in sae.parameters()] + [p.grad for p in sae.parameters()]
        held += [t for state in optimizer.state.values() for t in state.values() if t.ndim]
        assert sum(t.numel() * 4 for t in held) <= each


def test_a_sweep_goes_on_where_it_was_stopped_and_ends_in_a_comparison(tmp_path, monkeypatch):
    """Stopped in its second pass; then the first is not trained again, and the weights are those of an unbroken run."""
    (tmp_path / "inputs").mkdir()
    store, recipe, table = small_run.prepare(tmp_path / "inputs")
    arguments = {**small_run.OPTIONS, "memory": 600_000}
    sweep(store, recipe, table, tmp_path / "whole", **arguments)
    whole = tmp_path / "whole" / "passes"
    assert sorted(p.name for p in whole.iterdir()) == ["00", "01"]
    import medsae_plugin.comparison.sweeps as sweeps

    calls = []

    def stopping(store, specs, config, out, **kwargs):
        calls.append(out.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(store, specs, config, out, **kwargs)

    train = sweeps.train_part
    monkeypatch.setattr(sweeps, "train_part", stopping)
    with pytest.raises(KeyboardInterrupt):
        sweep(store, recipe, table, tmp_path / "broken", **arguments)
    first = next((tmp_path / "broken" / "passes" / "00").glob("*/sae_weights.safetensors"))
    written = first.stat().st_mtime_ns
    monkeypatch.undo()
    comparison = sweep(store, recipe, table, tmp_path / "broken", **arguments)
    assert first.stat().st_mtime_ns == written
    broken = tmp_path / "broken" / "passes"
    for weights in broken.glob("*/*/sae_weights.safetensors"):
        assert weights.read_bytes() == (whole / weights.relative_to(broken)).read_bytes()
    saes = pd.read_parquet(tmp_path / "broken" / "comparison" / "saes.parquet")
    trained = saes[saes["kind"] == "sae"]
    assert len(trained) == 4
    for _, at_hook in trained.groupby("hook"):
        by_sparsity = at_hook.sort_values(["l0", "explained_variance"], ascending=[True, False])
        best = by_sparsity["explained_variance"].cummax()
        on_front = by_sparsity["explained_variance"] > best.shift(fill_value=-np.inf)
        assert (by_sparsity["pareto"] == on_front).all()
    assert {tuple(s.saes) for s in comparison.stability} == {
        ("embedding-seed0", "embedding-seed1"),
        ("stages.0.resid_post-seed0", "stages.0.resid_post-seed1"),
    }
    assert [(f.a, f.b) for f in comparison.flows] == [
        ("stages.0.resid_post-seed0", "embedding-seed0"),
        ("stages.0.resid_post-seed1", "embedding-seed1"),
    ]


def test_the_commands(small_run, tmp_path, capsys):
    recipe = str(small_run.sweep.parent / "grid.yaml")
    table = ["--table", str(small_run.images / "labels.csv"), "--quiet", "--labels", ",".join(LABELS)]
    again = ["sweep", str(small_run.store.path), "--recipe", recipe, *table]
    assert main([*again, "--out", str(tmp_path / "sweep")]) == 0
    out = capsys.readouterr().out
    assert "Stability across seeds" in out and "What becomes of latents" in out and "Edema" in out
    assert main([*again, "--precision", "bf16", "--out", str(tmp_path / "sweep")]) == 1
    assert "was begun in fp32" in capsys.readouterr().err
    assert main([*again, "--memory", "0.000001", "--out", str(tmp_path / "x")]) == 1
    assert "raise the bound" in capsys.readouterr().err
    saes = sorted(str(p.parent) for p in small_run.sweep.glob("passes/*/embedding*/cfg.json"))
    compare = ["compare", str(small_run.store.path), *saes, *table, "--out", str(tmp_path / "compared")]
    assert main(compare) == 0
    assert "embedding-seed1" in capsys.readouterr().out
    content = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert [(m["a"], m["b"]) for m in content["matching"]] == [("embedding-seed0", "embedding-seed1")]
    assert main(["compare", *compare[1:3], "--also", compare[1], *compare[4:]]) == 1
    assert "of the same encoder" in capsys.readouterr().err


def test_figures(small_run, tmp_path, capsys):
    figures = ["figures", str(small_run.sweep), "--formats", "svg", "--out", str(tmp_path / "cli")]
    assert main(figures) == 0
    names = {p.name for p in (tmp_path / "cli").iterdir()}
    assert {"flow-1.svg", "flow-2.svg", "pareto.svg", "visibility.svg", "training-embedding-seed0.svg"} <= names
    assert len(names) == 4 * 3 + 5
    run = open_run(small_run.sweep)
    run = replace(run, saes=run.saes[:1], comparison=None)
    written = write_figures(run, tmp_path / "a") + write_figures(run, tmp_path / "b")
    half = len(written) // 2
    for one, other in zip(written[:half], written[half:], strict=True):
        assert one.read_bytes() == other.read_bytes() and one.read_bytes().startswith((b"\x89PNG", b"<?xml"))
    assert main([*figures[:3], "bmp", *figures[4:]]) == 1
    assert "there are png, svg, pdf" in capsys.readouterr().err
