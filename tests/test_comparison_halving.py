"""Successive halving: parts of a training make the whole, what goes on, a sweep that is killed, one that diverges."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from helpers import small_run
from helpers.planted import planted_rows, write_store

from medsae_plugin import MedSAEError, SAESpec, TrainingConfig
from medsae_plugin.cli import main
from medsae_plugin.comparison import Halving, Sweep, sweep, sweeps
from medsae_plugin.comparison.choosing import CRITERIA, Candidate, going_on
from medsae_plugin.data.tables import read_table
from medsae_plugin.scores import MeanTopR
from medsae_plugin.training import Recipe, train_saes
from medsae_plugin.training.checkpoints import Checkpoints

HALVING = Halving(rungs=3, keep=0.5)
STEPS = 16
CONFIG = TrainingConfig(STEPS * 60, batch_size=60, lr=3e-3, validate_every=4, n_checkpoints=1)
SPECS = [
    SAESpec(f"k{k}-lr{lr}", "hook_embedding", "topk", 3, options={"k": k}, lr=lr)
    for k in (2, 4)
    for lr in (1e-3, 1e-2, 3e-2)
]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    rows, codes = planted_rows(240, 16, 12)
    store = write_store(folder / "store", {"hook_embedding": rows})
    frame = pd.DataFrame((codes[:, :3] > 0).astype(int), columns=list(small_run.LABELS))
    frame.insert(0, "Path", store.images["path"])
    frame.to_csv(folder / "labels.csv", index=False)
    return store, read_table(folder / "labels.csv", label_columns=small_run.LABELS)


def swept(planted, out, recipe=None, **more):
    store, table = planted
    recipe = recipe or Recipe(SPECS, CONFIG)
    return sweep(store, recipe, table, out, **{**small_run.OPTIONS, "halving": HALVING, "memory": 450_000, **more})


@pytest.fixture(scope="module")
def whole(planted, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "sweep"
    return out, swept(planted, out)


def files(out: Path) -> dict[str, bytes]:
    """Of all that is in a folder but the scores' sparse matrices, whose manifests name their SAEs' folders."""
    kept = (p for p in out.rglob("*") if p.is_file() and "latents" not in p.parts)
    return {str(p.relative_to(out)): p.read_bytes() for p in kept}


def test_rungs_are_powers_of_the_share_that_goes_on():
    assert HALVING.shares == [0.25, 0.5, 1.0] and HALVING.steps(1001) == [251, 501, 1001]
    assert Halving().shares == [1.0] and Halving(2, 1 / 3).steps(9) == [3, 9]
    with pytest.raises(MedSAEError, match="2 steps are too few for 3 rungs, which would end at steps 1, 1, 2"):
        HALVING.steps(2)
    for wrong in ((0, 0.5), (2, 1.0), (2, 0.0)):
        with pytest.raises(MedSAEError):
            Halving(*wrong)


def test_what_goes_on_is_the_best_share_and_ends_as_it_would_alone(planted, whole, tmp_path):
    """The figures of a rung are those of an unbroken training at that step; who goes on follows from them; and who
    reaches the end has the weights and the history of the unbroken training."""
    out, comparison = whole
    store, table = planted
    assert sorted(p.name for p in (out / "passes").iterdir()) == ["00", "01"]
    alone = {}
    for spec in SPECS:
        folder = train_saes(store, [spec], CONFIG, tmp_path / spec.name, top_r=MeanTopR(store, table), progress=False)
        history = pd.read_parquet(folder[spec.name] / "history.parquet").set_index("step")
        alone[spec.name] = folder[spec.name], history
    found, going = Sweep.open(out), [spec.name for spec in SPECS]
    for k, step in enumerate([4, 8]):
        told = [Candidate(name, {key: float(alone[name][1].at[step, key]) for key in CRITERIA}) for name in going]
        assert found.rungs[k].figures == {c.name: pytest.approx(c.figures) for c in told}
        going = going_on(told, 0.5, len(told))
        assert found.rungs[k].goes_on == going
    assert len(going) == 2
    finished = {p.parent.name: p.parent for p in out.glob("passes/*/*/sae_weights.safetensors")}
    assert set(finished) == set(going)
    for name in going:
        for file in ("sae_weights.safetensors", "history.parquet", "training.json", "cfg.json"):
            assert (finished[name] / file).read_bytes() == (alone[name][0] / file).read_bytes()
    assert [s.name for s in comparison.saes if s.kind == "sae"] == going
    (recommended,) = found.recommended
    assert recommended.recipe in going and recommended.on == "val" and recommended.recipe not in recommended.figures
    on_val = {s.name: s.val for s in comparison.saes if s.kind == "sae"}
    assert recommended.figures == {key: on_val[recommended.recipe][key] for key in CRITERIA}


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_sweep_that_is_killed_and_run_again_writes_the_same_files(planted, whole, tmp_path, monkeypatch, after):
    """Killed as soon as a checkpoint is written: at the end of a part, before it is told; or in the middle of one."""
    out = tmp_path / "sweep"
    take, calls = Checkpoints.take, []

    def killed(self, *args):
        take(self, *args)
        calls.append(args)
        if len(calls) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        swept(planted, out)
    swept(planted, out)
    there, wanted = files(out), files(whole[0])
    assert set(there) == set(wanted)
    assert [name for name, content in wanted.items() if there[name] != content] == []
    monkeypatch.undo()
    monkeypatch.setattr(sweeps, "train_part", None)  # all is finished: nothing is trained
    swept(planted, out)


def test_an_sae_that_diverges_ends_with_its_recipe_and_the_sweep_goes_on(planted, tmp_path):
    specs = [
        *(replace(SPECS[0], name=f"wild{seed}", lr=lr, seed=seed) for seed, lr in ((0, 1e30), (1, 1e30))),
        *(replace(SPECS[0], name=f"tame{seed}", seed=seed) for seed in (0, 1)),
        SPECS[3],
    ]
    recipe = Recipe(specs, CONFIG)
    for n, rungs in enumerate((1, 2)):
        comparison = swept(planted, tmp_path / str(n), recipe, halving=Halving(rungs))
        found = Sweep.open(tmp_path / str(n))
        assert found.rungs[0].diverged == ["wild0", "wild1"] and not set(found.rungs[0].figures) & {"wild0", "wild1"}
        assert [r.name for r in found.recipes] == ["wild0 (2 seeds)", "tame0 (2 seeds)", SPECS[3].name]
        assert {s.name for s in comparison.saes if s.kind == "sae"} == {"tame0", "tame1", SPECS[3].name}
        assert "wild1 diverged by" in str(found) and "a lower learning rate may hold" in str(found)
        assert found.rungs[0].goes_on == (None if rungs == 1 else ["tame0 (2 seeds)", SPECS[3].name])
    with pytest.raises(MedSAEError, match="no SAE of the sweep was trained to the end:\nwild0 diverged by the whole"):
        swept(planted, tmp_path / "wild", Recipe(specs[:1], CONFIG), halving=Halving())


def test_what_is_not_the_same_sweep_or_has_nothing_to_choose_on_is_refused(planted, whole, tmp_path):
    out, _ = whole
    for other in ({"halving": Halving(3, 0.4)}, {"halving": Halving(2)}, {"recipe": Recipe(SPECS[:5], CONFIG)}):
        with pytest.raises(MedSAEError, match="holds another sweep"):
            swept(planted, out, **other)
    store, table = planted
    with pytest.raises(MedSAEError, match="needs a table"):
        sweeps.train_grid(store, Recipe(SPECS, CONFIG), tmp_path / "x", halving=HALVING, progress=False)
    rows, _ = planted_rows(240, 16, 12)
    images = store.images.replace({"split": {"val": "test"}})
    without = write_store(tmp_path / "store", {"hook_embedding": rows}, images=images)
    with pytest.raises(MedSAEError, match="no image of the store's split 'val'"):
        swept((without, table), tmp_path / "y")
    swept((without, table), tmp_path / "z", Recipe(SPECS[:2], CONFIG), halving=Halving())
    (recommended,) = Sweep.open(tmp_path / "z").recommended
    assert recommended.recipe is None and "would flatter" in recommended.reason


def test_the_command_says_what_went_on_and_what_it_recommends(planted, tmp_path, capsys):
    store, table = planted
    recipe = tmp_path / "grid.yaml"
    recipe.write_text(
        "saes:\n  - {hook: hook_embedding, architecture: topk, expansion: 3, options: {k: [2, 4]}, lr: [0.001, 0.01]}\n"
        "training: {samples: 480, batch_size: 60}\n"
    )
    words = ["sweep", str(store.path), "--recipe", str(recipe), "--table", str(table.root / "labels.csv")]
    words += ["--labels", ",".join(small_run.LABELS), "--rungs", "2", "--out", str(tmp_path / "out"), "--quiet"]
    assert main(words) == 0
    told = capsys.readouterr().out
    (recommended,) = Sweep.open(tmp_path / "out").recommended
    assert "Rung 1 of 2, after 0.5 of the training, on a sample of val" in told
    assert f"Recommended at hook_embedding: {recommended.recipe}\n{recommended.reason}" in told
    assert main([*words, "--protocol", "medsae-paper"]) == 1
    assert "leave out --rungs" in capsys.readouterr().err
    assert main(["schema", "sweep"]) == 0
    assert {"rungs", "recommended"} <= set(json.loads(capsys.readouterr().out)["properties"])
