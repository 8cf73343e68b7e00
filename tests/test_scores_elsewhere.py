"""External validation: chosen on one table's or store's images and reported on another's, against brute force."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import relu_sae, save_sae, write_store
from sklearn.metrics import roc_auc_score

from medsae_plugin.cli import main
from medsae_plugin.comparison import compare
from medsae_plugin.data.joining import join_tables
from medsae_plugin.data.tables import read_table
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores import Evaluation, Probes, Resampling, evaluate
from medsae_plugin.scores.elsewhere import chosen_at, with_test_table
from medsae_plugin.training.memory import TrainingPatients

D, LABELS = 6, ("Edema", "Fracture")
FEW = {"resampling": Resampling(9, 20), "progress": False}


def hospital(folder, name, n, seed, splits, patient="p", labels=LABELS):
    """A store and a table; latent 2c and 2c + 1 follow label c, which of them more hangs on the hospital."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, 2)) < 0.4).astype(float)
    rows = rng.normal(size=(n, D)).astype(np.float32)
    for c in range(2):
        rows[:, 2 * c + seed % 2] += 1.5 * y[:, c]
    patients = [f"{patient}{k // 2}" for k in range(n)]
    images = pd.DataFrame({"image_id": np.arange(n), "path": [f"{name}-{k}.png" for k in range(n)]})
    images = images.assign(patient=patients, split=splits if isinstance(splits, str) else list(splits))
    store = write_store(folder / name, {"hook_embedding": rows, f"only {name}": rows}, images=images)
    table = images[["path", "patient"]].assign(**dict(zip(labels, y.T, strict=True)))
    table.to_csv(folder / f"{name}.csv", index=False)
    return store, read_table(folder / f"{name}.csv", label_columns=list(labels)), np.maximum(rows, 0), y


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hospitals")
    a = hospital(folder, "a", 160, 0, ["train"] * 120 + ["test"] * 40, "a")
    b = hospital(folder, "b", 80, 1, "test", "b")
    return folder, a, b, save_sae(folder / "sae", relu_sae("hook_embedding", torch.eye(D)))


def by_hand(select, report):
    """Of each label the latent of the largest r on one array, and its r on the other."""
    (a, y), (b, t) = select, report
    tops = [int(np.argmax([np.corrcoef(a[:, j], y[:, c])[0, 1] for j in range(D)])) for c in range(2)]
    return tops, [np.corrcoef(b[:, j], t[:, c])[0, 1] for c, j in enumerate(tops)]


def told(evaluation):
    of = evaluation["sae"].observations
    return [o.latent for o in of], [o.r for o in of]


def test_chosen_at_one_hospital_and_reported_at_another(case, tmp_path):
    _, (store_a, table_a, x, y), (store_b, table_b, z, t), sae = case
    with pytest.raises(MedSAEError, match="no readable images in split 'train'"):
        evaluate(store_b, sae, table_b, **FEW)  # as it has a test split alone
    scene = chosen_at(store_a, table_a, store_b, table_b)
    found = evaluate(scene.store, sae, scene.table, tmp_path, select=scene.select, report=scene.report, **FEW)
    tops, r = by_hand((x[:120], y[:120]), (z, t))
    latents, figures = told(found)
    assert latents == tops == [0, 2]  # at hospital b the others follow
    np.testing.assert_allclose(figures, r, atol=1e-6)
    assert "chosen on train of a (120 images, 60 patients), every figure on test of b (80 images, 40 patients)" in str(
        found
    )
    own = evaluate(scene.store, sae, scene.table, select="test of a", report=scene.report, **FEW)
    assert own["sae"].fidelity == found["sae"].fidelity and own["sae"].fidelity["l0"] == pytest.approx(
        (z > 0).sum(1).mean()
    )
    compared = compare(scene.store, sae, scene.table, tmp_path / "c", select=scene.select, report=scene.report, **FEW)
    assert str(compared).startswith("Every figure on test of b (80 images, 40 patients)")


def test_what_top_latents_lose_from_home_to_the_other_hospital(case, tmp_path):
    """Against brute force: r and AUROC on a's test split, on b, of both, and bootstrapped, what is lost."""
    store_a, table_a, x, y = hospital(tmp_path, "a", 320, 0, ["train"] * 120 + ["test"] * 200, "a")
    store_b, table_b, z, t = hospital(tmp_path, "b", 160, 1, "test", "b")
    sae = case[3]
    scene = chosen_at(store_a, table_a, store_b, table_b)
    assert scene.home == "test of a"
    found = evaluate(scene.store, sae, scene.table, select=scene.select, report=scene.report, home=scene.home, **FEW)
    tops, there = by_hand((x[:120], y[:120]), (x[120:], y[120:]))
    rng = np.random.default_rng(0)
    for c, o in enumerate(found["sae"].observations):
        (a, u), (b, v) = (x[120:, tops[c]], y[120:, c]), (z[:, tops[c]], t[:, c])
        assert o.value("r_home") == pytest.approx(there[c], abs=1e-6)
        assert o.value("r_drop") == pytest.approx(there[c] - np.corrcoef(b, v)[0, 1], abs=1e-6)
        pooled = np.corrcoef(np.concatenate([(k - k.mean()) / k.std() for k in (a, b)]), np.concatenate([u, v]))[0, 1]
        assert o.value("r_pooled") == pytest.approx(pooled, abs=1e-6)
        assert o.value("auroc_home") == pytest.approx(roc_auc_score(u, a), abs=1e-6)
        pairs = [k.sum() * (1 - k).sum() for k in (u, v)]
        aurocs = [roc_auc_score(u, a), roc_auc_score(v, b)]
        assert o.value("auroc_pooled") == pytest.approx(np.average(aurocs, weights=pairs), abs=1e-6)
        assert o.value("auroc_drop") == pytest.approx(aurocs[0] - aurocs[1], abs=1e-6)
        drawn = []
        for _ in range(400):
            i, j = (2 * rng.integers(0, n // 2, n // 2)[:, None] + [0, 1] for n in (len(a), len(b)))
            drawn.append(np.corrcoef(a[i.ravel()], u[i.ravel()])[0, 1] - np.corrcoef(b[j.ravel()], v[j.ravel()])[0, 1])
        assert o.value("r_drop_high") - o.value("r_drop_low") == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.25)
    of = found["sae"].observations
    assert found["sae"].value("mean_top_r_home") == pytest.approx(np.mean([o.value("r_home") for o in of]))
    assert found["sae"].value("mean_top_r_drop") == pytest.approx(np.mean([o.value("r_drop") for o in of]))
    assert "At home, on test of a (200 images, 100 patients), and here, on test of b (160 images, 80" in str(found)
    assert str(Evaluation.read(found.to_json())) == str(found)
    no = evaluate(store_a, sae, table_a, **FEW)
    assert no.home is None and no["sae"].value("mean_top_r_drop") is None and "At home" not in str(no)
    alone = store_a.with_splits(["train"] * 320)
    assert chosen_at(alone, table_a, store_b, table_b).home is None


def test_patients_at_home_that_the_sae_was_trained_on_are_left_out(case, tmp_path):
    _, (store_a, table_a, *_), (store_b, table_b, *_), _ = case
    scene = chosen_at(store_a, table_a, store_b, table_b)
    for patients, said in (
        ({"a70", "a71"}, "Left out at home: 2 patients that an SAE was trained on."),
        ({f"a{k}" for k in range(60, 80)}, "no patient is left that no SAE was trained on"),
    ):
        sae = save_sae(tmp_path / f"sae{len(patients)}", relu_sae("hook_embedding", torch.eye(D)))
        TrainingPatients.of(sorted(patients)).save(sae)
        found = evaluate(
            scene.store, sae, scene.table, select=scene.select, report=scene.report, home=scene.home, **FEW
        )
        assert said in str(found) and found.home.images == 40 - 2 * len(patients)


def test_covariates_that_one_hospital_lacks_are_unknown_there(case, tmp_path):
    folder = case[0]
    for name, more in (("a", {"Age": 50, "Sex": "Male"}), ("b", {"Sex": "Female", "Projection": "AP"})):
        pd.read_csv(folder / f"{name}.csv").assign(**more).to_csv(tmp_path / f"{name}.csv", index=False)
    first, second = (read_table(tmp_path / f"{name}.csv", label_columns=list(LABELS)) for name in "ab")
    joined = join_tables(first, second).covariates
    assert set(joined["sex"][:160]) == {first.covariates["sex"][0]}
    assert (joined["age"][:160] == 50).all() and joined["age"][160:].isna().all()
    assert (joined["projection"][:160] == "").all() and (joined["projection"][160:] == "AP").all()


def test_a_joined_store_reads_as_its_two_stores_do(case):
    _, (store_a, table_a, *_), (store_b, table_b, *_), _ = case
    joined = chosen_at(store_a, table_a, store_b, table_b).store
    assert list(joined.hooks) == ["hook_embedding"]
    rows = torch.cat([rows for _, rows in joined.image_batches("hook_embedding", batch_images=33)]).numpy()
    both = [store.image_rows("hook_embedding", slice(None)).numpy() for store in (store_a, store_b)]
    np.testing.assert_array_equal(rows, np.concatenate(both))
    np.testing.assert_array_equal(joined.rows_of("hook_embedding", [200, 3])[:, 0].numpy(), rows[[200, 3]])
    np.testing.assert_array_equal(joined.image_rows("hook_embedding", slice(155, 165)).numpy(), rows[155:165])
    assert joined.n_rows("hook_embedding", "train of a") == 120


def test_patients_of_both_hospitals_are_refused_or_said_to_be_others(case, tmp_path):
    _, (store_a, table_a, *_), _, _ = case
    store, table, *_ = hospital(tmp_path, "c", 40, 1, "test", "a")
    with pytest.raises(MedSAEError, match=r"20 patients of .*c are in .*a too, such as 'a0'.*--other-patients"):
        chosen_at(store_a, table_a, store, table)
    scene = chosen_at(store_a, table_a, store, table, other_patients=True)
    found = evaluate(scene.store, case[3], scene.table, select=scene.select, report=scene.report, **FEW)
    assert found.report.patients == 20
    with pytest.raises(MedSAEError, match="its splits are"):
        chosen_at(store_a, table_a, store_a, table_a)


def test_hospitals_that_share_no_label_hook_or_encoder_are_refused(case, tmp_path):
    _, (store_a, table_a, *_), (store_b, *_), _ = case
    store, table, *_ = hospital(tmp_path, "d", 20, 1, "test", "d", ("Hernia", "Mass"))
    with pytest.raises(MedSAEError, match="have no label in common: one has Edema, Fracture, the other Hernia, Mass"):
        chosen_at(store_a, table_a, store, table)
    encoder = store.manifest.encoder.model_copy(update={"weights_sha256": "9" * 64})
    store.manifest = store.manifest.model_copy(update={"encoder": encoder})
    with pytest.raises(MedSAEError, match="are not of the same encoder"):
        chosen_at(store_a, table_a, store, table)
    one = write_store(tmp_path / "one", {"other": np.zeros((20, 3), np.float32)}, images=store.images)
    with pytest.raises(MedSAEError, match="no hook in common"):
        chosen_at(store_b, table, one, table)


def test_a_test_table_is_reported_on_and_takes_no_part_in_choosing(case, tmp_path):
    folder, (store, table, x, y), *_, sae = case
    frame = pd.read_csv(folder / "a.csv")
    frame[100:].to_csv(tmp_path / "valid.csv", index=False)
    test = read_table(tmp_path / "valid.csv", label_columns=list(LABELS))
    scene = with_test_table(store, table, test)
    found = evaluate(scene.store, sae, scene.table, select=scene.select, report=scene.report, **FEW)
    tops, r = by_hand((x[:100], y[:100]), (x[100:], y[100:]))
    assert told(found)[0] == tops
    np.testing.assert_allclose(told(found)[1], r, atol=1e-6)
    assert "every figure on valid.csv (60 images, 30 patients)" in str(found)
    frame[101:].to_csv(tmp_path / "half.csv", index=False)  # half a patient
    scene = with_test_table(store, table, read_table(tmp_path / "half.csv", label_columns=list(LABELS)))
    with pytest.raises(MedSAEError, match=r"1 patients are in both 'train' and 'half.csv'"):
        evaluate(scene.store, sae, scene.table, select=scene.select, report=scene.report, **FEW)
    with pytest.raises(MedSAEError, match=r"has none of the 80 images of b\.csv"):
        with_test_table(store, table, case[2][1])


def test_the_command_line_chooses_at_one_and_reports_at_the_other(case, tmp_path, capsys):
    folder, (_, _, x, y), (_, _, z, t), sae = case
    common = ["--labels", "Edema,Fracture", "--permutations", "9", "--quiet", "--out", tmp_path / "out"]
    external = ["--table", folder / "b.csv", "--select-from", folder / "a", "--select-table", folder / "a.csv"]
    assert main([*map(str, ["evaluate", folder / "b", sae, *external, *common])]) == 0
    tops, r = by_hand((x[:120], y[:120]), (z, t))
    latents, figures = told(Evaluation.open(tmp_path / "out"))
    assert latents == tops and figures == pytest.approx(r, abs=1e-6)
    said = capsys.readouterr().out
    assert "every figure on test of b" in said and "At home, on test of a" in said
    assert main([*map(str, ["compare", folder / "b", sae, *external, *common[:-1], tmp_path / "c"])]) == 0
    said = capsys.readouterr().out
    assert "mean r at home" in said and "lost: that, less r here" in said
    (compared,) = (
        s for s in json.loads((tmp_path / "c" / "comparison.json").read_text())["saes"] if s["name"] == "sae"
    )
    assert [top["latent"] for top in compared["top"]] == tops
    assert [top["r"] for top in compared["top"]] == pytest.approx(r, abs=1e-5)
    probe = ["probe", folder / "b", sae, *external, *common[:2], "--quiet", "--out", tmp_path / "p"]
    assert main([*map(str, probe)]) == 0
    alone = [o.k_sparse["1"] for o in Probes.open(tmp_path / "p").units[0].labels]
    assert alone == pytest.approx([roc_auc_score(t[:, c], z[:, j]) for c, j in enumerate(tops)])
    capsys.readouterr()
    for more, words in (
        (["--folds", "3", "--select-from", folder / "a"], "give one of them"),
        (["--other-patients"], "are of --select-from"),
        (["--folds", "3", "--report-split", "val"], "with --folds nothing is of --report-split"),
        (["--test-table", folder / "a.csv", "--report-split", "val"], "leave --report-split out"),
    ):
        assert main([*map(str, ["evaluate", folder / "b", sae, "--table", folder / "b.csv", *common, *more])]) == 1
        assert words in capsys.readouterr().err
