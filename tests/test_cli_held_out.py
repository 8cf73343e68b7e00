"""Folds, another table and a judge, given to the commands that take them, against figures by hand."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import relu_sae, save_sae, write_store
from sae_lens import SAE

from medsae_plugin import HookedVisionEncoder
from medsae_plugin.cli import main
from medsae_plugin.data.tables import read_table
from medsae_plugin.phantoms import generate
from medsae_plugin.scores import Evaluation, LabelledImages
from medsae_plugin.scores.images import Folds
from medsae_plugin.store import ActivationStore

N, D, LABELS = 240, 6, ("Edema", "Fracture")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Two images a patient; latents 2c and 2c + 1 follow label c alike, so that folds choose differently. And another
    encoder's store of these images."""
    folder, rng = tmp_path_factory.mktemp("case"), np.random.default_rng(11)
    y = (rng.random((N, 2)) < 0.4).astype(float)
    rows = rng.normal(size=(N, D)).astype(np.float32)
    for c in range(2):
        rows[:, 2 * c : 2 * c + 2] += 0.8 * y[:, [c]]
    split = np.repeat(["train", "val", "test"], [80, 60, 100])
    images = pd.DataFrame({"image_id": np.arange(N), "path": [f"{k}.png" for k in range(N)]})
    images = images.assign(patient=[f"p{k // 2}" for k in range(N)], split=split)
    store = write_store(folder / "store", {"hook_embedding": rows}, images=images)
    by_judge = rng.normal(size=(N, 3)).astype(np.float32)
    write_store(folder / "judge", {"seen": by_judge}, images=images)
    table = images[["path", "patient"]].assign(**dict(zip(LABELS, y.T, strict=True)))
    table.to_csv(folder / "labels.csv", index=False)
    table[100:160].to_csv(folder / "valid.csv", index=False)
    for k, name in enumerate(("one", "two")):
        save_sae(folder / name, relu_sae("hook_embedding", torch.eye(D) * (k + 1), encoder_sha256="0" * 64))
    return folder, store, np.maximum(rows, 0).astype(np.float64), y, by_judge.astype(np.float64)


def run(command, folder, out, *more):
    arguments = [command, folder / "store", folder / "one", folder / "two", "--table", folder / "labels.csv"]
    arguments += ["--labels", ",".join(LABELS), "--permutations", "19", "--quiet", "--out", out, *more]
    assert main([*map(str, arguments)]) == 0


def compared(folder, out, *more):
    run("compare", folder, out, *more)
    content = json.loads((out / "comparison.json").read_text())
    return content, {s["name"]: s for s in content["saes"]}


def best(a, y):
    return int(np.argmax([np.corrcoef(column, y)[0, 1] for column in a.T]))


def by_judge_alone(a, embeddings):
    """The mean over units of their monosemanticity, pair by pair."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    a = (a - a.min(0)) / np.ptp(a, axis=0)
    pairs = [np.outer(own, own) * (1 - np.eye(len(own))) for own in a.T]
    return np.mean([(weight * (unit @ unit.T)).sum() / weight.sum() for weight in pairs])


def test_folds_choose_on_the_others_and_are_pooled(case, tmp_path, capsys):
    folder, store, a, y, _ = case
    content, saes = compared(folder, tmp_path / "out", "--folds", "4", "--seed", "2")
    assert "each of 4 folds, in turn, of val and test (160 images, 80 patients)" in capsys.readouterr().out
    assert content["report"]["folds"] == 4
    run("evaluate", folder, tmp_path / "e", "--folds", "4", "--seed", "2")
    evaluation = Evaluation.open(tmp_path / "e")
    parts = LabelledImages.of(store, read_table(folder / "labels.csv")).cross_fitted(Folds(4, seed=2)).folds
    differ = 0
    for c, label in enumerate(LABELS):
        z, tops = np.zeros(N), []
        for part in parts:
            select, report = part.rows("select"), part.rows("report")
            tops.append(best(a[select], y[select, c]))
            own = a[report, tops[-1]]
            z[report] = (own - own.mean()) / own.std()
        differ += len(set(tops)) > 1
        r = np.corrcoef(z[80:], y[80:, c])[0, 1]
        for name in ("one", "two"):
            (top,) = (o for o in saes[name]["top"] if o["label"] == label)
            assert top["r"] == pytest.approx(r, abs=1e-5) and top["latent"] in tops
            assert evaluation[name].observations[c].r == pytest.approx(r, abs=1e-5)
    assert differ  # or one choice would have done


def test_another_table_and_another_encoder_for_a_judge(case, tmp_path, capsys):
    """Reported on that table's images, chosen on train without them; monosemanticity by the judge's embeddings too."""
    folder, _, a, y, by_judge = case
    more = ["--test-table", folder / "valid.csv", "--judge-store", folder / "judge", "--judge-hook", "seen"]
    _, saes = compared(folder, tmp_path / "out", *more)
    said = capsys.readouterr().out
    assert "Every figure on valid.csv (60 images, 30 patients)" in said and "by the judge" in said
    run("evaluate", folder, tmp_path / "e", *more)
    evaluation, judged = Evaluation.open(tmp_path / "e"), by_judge_alone(a[100:160], by_judge[100:160])
    for name in ("one", "two"):
        assert saes[name]["mean_monosemanticity_judge"] == pytest.approx(judged, abs=1e-5)
        assert evaluation[name].mean_monosemanticity_judge == pytest.approx(judged, abs=1e-5)
        for c, top in enumerate(saes[name]["top"]):
            j, o = best(a[:80], y[:80, c]), evaluation[name].observations[c]
            assert top["latent"] == o.latent == j
            assert [top["r"], o.r] == pytest.approx([np.corrcoef(a[100:160, j], y[100:160, c])[0, 1]] * 2, abs=1e-5)
    capsys.readouterr()
    compared(folder, tmp_path / "plain")
    assert "by the judge" not in capsys.readouterr().out


def test_sweep_takes_a_judge_and_refuses_it_before_it_trains(case, tmp_path, capsys):
    folder, store, *_, by_judge = case
    (tmp_path / "grid.yaml").write_text(
        "saes: [{hook: hook_embedding, architecture: topk, expansion: 2, options: {k: 2}, seed: [0, 1]}]\n"
        "training: {total_training_samples: 640, batch_size: 64}\n"
    )
    arguments = ["sweep", folder / "store", "--recipe", tmp_path / "grid.yaml", "--table", folder / "labels.csv"]
    arguments += ["--labels", ",".join(LABELS), "--permutations", "9", "--quiet", "--out", tmp_path / "out"]
    arguments = [*map(str, arguments), "--judge-store", str(folder / "judge")]
    assert main(arguments) == 1
    assert "no hook 'hook_embedding' to judge by" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([*arguments, "--judge-hook", "seen"]) == 0
    content = json.loads((tmp_path / "out" / "comparison" / "comparison.json").read_text())
    rows = next(store.image_batches("hook_embedding", batch_images=N))[1][140:]
    for found in (s for s in content["saes"] if s["kind"] == "sae"):
        (folder,) = (tmp_path / "out").rglob(f"passes/**/{found['name']}")
        a = SAE.load_from_disk(folder).encode(rows).detach().double().numpy()
        fires = np.ptp(a, axis=0) > 0
        assert found["mean_monosemanticity_judge"] == pytest.approx(
            by_judge_alone(a[:, fires], by_judge[140:]), abs=1e-4
        )
    assert "by the judge" in capsys.readouterr().out


def test_extract_takes_another_tables_images_as_the_test_split(tmp_path, capsys):
    folder = tmp_path / "cxr"
    frame = pd.read_csv(generate(16, folder, size=64), dtype=str, keep_default_na=False)
    patients = frame["Path"].str.extract(r"(patient\d+)")[0]
    told = patients.isin(sorted(set(patients))[-3:])
    frame[~told].to_csv(folder / "train.csv", index=False)
    frame[told].to_csv(folder / "valid.csv", index=False)
    arguments = ["extract", "phantom-swin", "--hooks", "hook_embedding", "--quiet", "--workers", "0"]
    tables = ["--table", str(folder / "train.csv"), "--test-table", str(folder / "valid.csv")]
    assert main([*arguments, *tables, "--out", str(tmp_path / "store")]) == 0
    store = ActivationStore(tmp_path / "store")
    images = store.images
    assert set(images["path"]) == set(frame["Path"])
    assert set(images["path"][images["split"] == "test"]) == set(frame["Path"][told])
    assert set(images["split"][~images["path"].isin(frame["Path"][told])]) == {"train", "val"}
    encoder = HookedVisionEncoder.from_pretrained("phantom-swin")
    with torch.no_grad():
        expected = encoder(encoder.preprocess([folder / path for path in images["path"]]))
    torch.testing.assert_close(store.image_rows("hook_embedding", slice(None)), expected, atol=1e-4, rtol=1e-4)
    frame.to_csv(folder / "valid.csv", index=False)
    capsys.readouterr()
    assert main([*arguments, *tables, "--out", str(tmp_path / "no")]) == 1
    assert "so they are not held out" in capsys.readouterr().err and not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "option", ["--folds=3", "--test-table=valid.csv", "--select-from=store", "--judge-store=judge"]
)
def test_sites_sum_over_two_splits_and_say_so(case, tmp_path, capsys, option):
    folder, *_ = case
    arguments = [
        "stats",
        folder / "store",
        folder / "one",
        "--table",
        folder / "labels.csv",
        "--out",
        tmp_path / "site",
    ]
    assert main([*map(str, arguments), option]) == 1
    said = capsys.readouterr().err
    assert "sums over two splits of a store" in said and option.partition("=")[0] in said and "--select-split" in said
    assert not (tmp_path / "site").exists()
