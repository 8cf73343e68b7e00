"""Monosemanticity by another encoder's embeddings: images matched by path, and the same formula."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import made_up_images, relu_sae, save_sae, write_store

from medsae_plugin import Evaluation, MedSAEError, evaluate, read_table
from medsae_plugin.cli import main
from medsae_plugin.scores import JudgeStore, Resampling

N, D = 150, 4
FEW = Resampling(9, 9)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, an SAE that reads its axes, a table, and a judge's store: its images in another order, with more of
    them, and a hook of two positions."""
    folder, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    rows = rng.normal(size=(N, D)).astype(np.float32)
    store = write_store(folder / "store", {"hook_embedding": rows})
    sae = save_sae(folder / "sae", relu_sae("hook_embedding", torch.eye(D), encoder_sha256="0" * 64))
    pd.DataFrame({"Path": store.images["path"], "one": rng.integers(0, 2, N), "two": rng.integers(0, 2, N)}).to_csv(
        folder / "labels.csv", index=False
    )
    order = rng.permutation(N)
    more = made_up_images(N + 30, 0).iloc[N:].assign(patient="other")
    images = pd.concat([store.images.iloc[order], more], ignore_index=True).assign(image_id=np.arange(N + 30))
    by_judge = rng.normal(size=(N, 3)).astype(np.float32) + 1
    there = np.concatenate([by_judge[order], np.ones((30, 3), np.float32)])
    wide = np.stack([there, 3 * there + 1], axis=1)
    judge = write_store(folder / "judge", {"hook_embedding": there, "two": wide}, images=images)
    return folder, store, sae, rows, judge, by_judge


def monosemanticity(a, e):
    e = e / np.linalg.norm(e, axis=1, keepdims=True)
    a = (a - a.min()) / (a.max() - a.min())
    weight = np.outer(a, a) * (1 - np.eye(len(a)))
    return (weight * (e @ e.T)).sum() / weight.sum()


@pytest.mark.parametrize("hook", ["hook_embedding", "two"])
def test_it_is_the_pair_loops_by_the_judges_embeddings_of_the_same_images(made, hook, capsys, tmp_path):
    folder, store, sae, rows, judge, by_judge = made
    arguments = ["evaluate", str(store.path), str(sae), "--table", str(folder / "labels.csv"), "--labels", "one,two",
                 "--permutations", "9", "--bootstrap", "9", "--out", str(tmp_path), "--quiet",
                 "--judge-store", str(judge.path)]  # fmt: skip
    assert main([*arguments, *(["--judge-hook", hook] if hook != "hook_embedding" else [])]) == 0
    said = capsys.readouterr().out
    evaluation = Evaluation.open(tmp_path)
    test = np.flatnonzero(store.images["split"] == "test")
    embeddings = by_judge[test] if hook == "hook_embedding" else (4 * by_judge[test] + 1) / 2
    frame = evaluation.frame("sae")
    for j in range(D):
        a = np.maximum(rows[test, j], 0).astype(np.float64)
        assert frame["monosemanticity"][j] == pytest.approx(monosemanticity(a, rows[test]), abs=1e-5)
        assert frame["monosemanticity_judge"][j] == pytest.approx(monosemanticity(a, embeddings), abs=1e-5)
    mean = frame["monosemanticity_judge"].mean()
    assert evaluation.saes[0].mean_monosemanticity_judge == pytest.approx(mean)
    assert (evaluation.judge.encoder, evaluation.judge.hook) == ("planted", hook)
    assert f" {mean:.3f} " in next(line for line in said.splitlines() if line.startswith("this SAE "))
    assert "monosemanticity by the judge" in said


def test_without_a_judge_there_is_no_such_figure(made):
    folder, store, sae, *_ = made
    table = read_table(folder / "labels.csv", label_columns=["one", "two"])
    evaluation = evaluate(store, [sae], table, resampling=FEW, progress=False)
    assert "judge" not in str(evaluation) and "monosemanticity_judge" not in evaluation.frame()
    assert evaluation.judge is None and evaluation.saes[0].value("mean_monosemanticity_judge") is None


def test_a_judge_that_has_not_the_images_or_the_hook_is_refused(made, tmp_path, capsys):
    folder, store, sae, rows, judge, _ = made
    table = read_table(folder / "labels.csv", label_columns=["one", "two"])
    with pytest.raises(MedSAEError, match=r"no hook 'h' to judge by; it has hook_embedding, two \(--judge-hook\)"):
        JudgeStore(judge, "h")
    part = write_store(tmp_path / "part", {"hook_embedding": rows[:90]})
    with pytest.raises(MedSAEError, match=r"has not \d+ of the \d+ images to report on, such as 'patient"):
        evaluate(store, [sae], table, judge=JudgeStore(part), progress=False)
    common = ["evaluate", str(store.path), str(sae), "--table", str(folder / "labels.csv"), "--out", str(tmp_path)]
    assert main([*common, "--judge-hook", "two", "--quiet"]) == 1
    assert "--judge-hook is of a --judge-store" in capsys.readouterr().err
    assert main([*common, "--judge-store", str(judge.path), "--protocol", "medsae-paper", "--quiet"]) == 1
    assert "--judge-store says nothing to --protocol medsae-paper" in capsys.readouterr().err
