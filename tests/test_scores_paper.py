"""The protocol of MedSAE's paper: its subset, its numbers against plain torch, and what it refuses."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import relu_sae, save_sae, write_store
from sae_lens import SAE

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.data.tables import OBSERVATIONS, read_table
from medsae_plugin.scores import paper

N, D, K = 420, 12, 30


def test_the_subset_of_a_table_worked_out_by_hand():
    """Two of each label, and a row is passed over if any of its labels is full, whatever its others need."""
    rows = {  # by observation's place
        0: {0: 1},  # kept: 0 has one
        1: {3: -1, 5: 0},  # nothing is positive
        2: {0: 1, 2: 1},  # kept: 0 is full, 2 has one
        3: {0: 1, 13: 1},  # 0 is full, though 13 has none yet
        4: {13: 1, 0: -1},  # kept, since uncertain is not positive: 13 has one
        5: {2: 1, 13: 1},  # kept: 2 and 13 are full
        6: {13: 1},  # full
        7: {7: 1},  # kept
        8: {7: 1, 2: 1},  # 2 is full
        9: {7: 1, 8: 1},  # kept: 7 is full
    }
    labels = np.zeros((10, 14), dtype=np.int64)
    for row, values in rows.items():
        for column, value in values.items():
            labels[row, column] = value
    assert paper.greedy_subset(labels, 2).tolist() == [0, 2, 4, 5, 7, 9]
    assert paper.greedy_subset(labels.astype(float), 2).tolist() == [0, 2, 4, 5, 7, 9]
    assert paper.greedy_subset(labels[:, :0], 2).tolist() == []


@pytest.mark.parametrize("seed", range(3))
def test_the_subset_is_that_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([-1.0, 0.0, 1.0], (3000, 14), p=[0.1, 0.8, 0.1])
    labels[:, 11] *= rng.random(3000) < 0.02  # one that never fills
    counts, expected = [0] * 14, []
    for i, row in enumerate(labels):
        positive = [c for c in range(14) if row[c] == 1]
        if positive and all(counts[c] < 25 for c in positive):
            expected.append(i)
            for c in positive:
                counts[c] += 1
    assert paper.greedy_subset(labels, 25).tolist() == expected and counts[11] < 25 == max(counts)


def test_the_subset_of_chexperts_own_table(request):
    """1,947 images, 200 of each label, of the 223,414 rows of the table of labels of CheXpert's training images."""
    file = Path(os.environ.get("MEDSAE_CHEXPERT_TABLE", ""))
    if not file.is_file():
        file = request.getfixturevalue("shared") / "chexpert_train.csv.gz"
    if not file.is_file():
        pytest.skip(
            f"no {file}: set MEDSAE_CHEXPERT_TABLE to chexpert_train.csv.gz, which lies in torchxrayvision/data of the "
            "wheel that `pip download --no-deps torchxrayvision` brings, or put it there"
        )
    labels = pd.read_csv(file, usecols=list(OBSERVATIONS))[list(OBSERVATIONS)].fillna(0).to_numpy()
    assert len(labels) == 223_414
    kept = paper.greedy_subset(labels, 200)
    assert len(kept) == 1947 and kept[-1] == 49_593
    assert ((labels[kept] == 1).sum(0) == 200).all()
    uncertain = dict(zip(OBSERVATIONS, (labels[kept] == -1).sum(0), strict=True))
    assert (uncertain["Pleural Effusion"], uncertain["Cardiomegaly"], uncertain["No Finding"]) == (112, 60, 0)


def test_the_eight_labels_are_those_of_the_reference():
    assert [OBSERVATIONS.index(label) for label in paper.LABELS] == [0, 2, 4, 5, 7, 9, 10, 13]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A store, a table of its images in another order with 14 labels, -1 and empty cells, and two SAEs."""
    folder = tmp_path_factory.mktemp("paper")
    rng = np.random.default_rng(5)
    # Labels leave a trace in the rows, so that some latents follow some of them.
    labels = rng.choice([1.0, 0.0, -1.0, np.nan], (N, 14), p=[0.12, 0.2, 0.05, 0.63])
    rows = 2 + (np.nan_to_num(labels) @ rng.normal(size=(14, D)) + rng.normal(size=(N, D))).astype(np.float32)
    store = write_store(folder / "store", {"hook_embedding_unit": rows.astype(np.float32)})
    frame = pd.DataFrame(labels, columns=list(OBSERVATIONS))
    frame.insert(0, "Path", store.images["path"])
    order = rng.permutation(N)
    frame = frame.iloc[order].reset_index(drop=True)
    # Of the table's images some are not in the store, and of the store's some not in the table.
    absent = pd.DataFrame(
        {"Path": [f"patient99999/view{i}.png" for i in range(40)], **dict.fromkeys(OBSERVATIONS, 1.0)}
    )
    frame = pd.concat([absent, frame.iloc[: N - 30]])
    frame.to_csv(folder / "labels.csv", index=False)
    saes = []
    for name, bias in (("sparse", -6.0), ("dense", -2.0)):
        weights = torch.from_numpy(rng.normal(size=(K, D))).float()
        b_enc = torch.full((K,), bias)
        b_enc[:5] = -1e3  # dead
        saes.append(save_sae(folder / name, relu_sae("hook_embedding_unit", weights, 0.02 * weights, b_enc, 2.0)))
    return folder, store, frame.reset_index(drop=True), rows.astype(np.float32), saes


def reference_figures(activations: torch.Tensor, labels: torch.Tensor) -> dict:
    """What the reference's script computes of a column, from its description, in plain torch in float64."""
    a, y = activations.double(), labels.double()
    n = a.shape[1]
    r = torch.corrcoef(torch.cat([a, y], 1).T)[:n, n:]
    kept = [j for j in range(n) if r[j].abs().max() > 0.2]
    share = r.abs() / (r.abs().sum(1, keepdim=True) + 1e-8)
    h = -(share * torch.log(share + 1e-10)).sum(1)
    top = [max(kept, key=lambda j: float(r[j, c])) for c in range(8)]
    target = torch.nn.functional.one_hot(r[kept].argmax(1), 8).double()
    return {
        "kept": len(kept),
        "top": top,
        "r": [float(r[j, c]) for c, j in enumerate(top)],
        "h": [float(h[j]) for j in top],
        "bce": float(torch.nn.BCELoss()(r[kept].abs(), target)),
        "l0_rate": float((a != 0).double().sum(1).mean()) / n,
        "dead_rate": float(((a != 0).sum(0) == 0).double().mean()),
    }


def subset_of(frame: pd.DataFrame, seed: int | None) -> pd.DataFrame:
    rows = frame.iloc[40:]  # those that the store has
    rows = rows if seed is None else rows.iloc[np.random.default_rng(seed).permutation(len(rows))]
    labels = rows[list(OBSERVATIONS)].fillna(0).to_numpy()
    return rows.iloc[paper.greedy_subset(labels, 15)]


@pytest.mark.parametrize("seed", [None, 3])
def test_the_figures_are_those_of_plain_torch(case, tmp_path, monkeypatch, capsys, seed):
    folder, store, frame, rows, saes = case
    monkeypatch.setattr(paper, "PER_CLASS", 15)
    arguments = ["evaluate", store.path, *saes, "--table", folder / "labels.csv", "--out", tmp_path, "--quiet"]
    arguments += ["--protocol", "medsae-paper", *([] if seed is None else ["--seed", seed])]
    assert main([*map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "metrics.json").read_text())
    chosen = subset_of(frame, seed)
    assert found["images"] == len(chosen) and found["table_images"] == N + 10 and found["without_activations"] == 40
    assert found["positives"] == {name: int((chosen[name] == 1).sum()) for name in OBSERVATIONS}
    assert set(store.images.set_index("path").loc[chosen["Path"], "split"]) == {"train", "val", "test"}
    y = torch.tensor(chosen[list(paper.LABELS)].fillna(0).to_numpy())
    assert (y == -1).any()
    x = torch.from_numpy(rows[store.images.set_index("path").loc[chosen["Path"], "image_id"]])
    columns = {path.name: SAE.load_from_disk(path).encode(x).detach() for path in saes}
    columns["neurons of hook_embedding_unit"] = x
    assert {c["name"] for c in found["candidates"]} == set(columns)
    expected = {name: reference_figures(a, y) for name, a in columns.items()}
    for c in found["candidates"]:
        e = expected[c["name"]]
        assert c["latents"] == columns[c["name"]].shape[1] and c["kept"] == e["kept"]
        assert [o["latent"] for o in c["observations"]] == e["top"]
        np.testing.assert_allclose([o["r"] for o in c["observations"]], e["r"], atol=1e-6)
        np.testing.assert_allclose([o["entropy"] for o in c["observations"]], e["h"], atol=1e-6)
        assert c["mean_top_r"] == pytest.approx(np.mean(e["r"]), abs=1e-6)
        assert c["mean_top_entropy"] == pytest.approx(np.mean(e["h"]), abs=1e-6)
        for name in ("bce", "l0_rate", "dead_rate"):
            assert c[name] == pytest.approx(e[name], abs=1e-6), name
        assert f"{np.mean(e['r']):.2f} ({np.mean(e['h']):.2f})" in printed
    assert "OPTIMISTIC" in printed
    ranked_by_hand(found["candidates"], expected)


def ranked_by_hand(candidates: list, expected: dict) -> None:
    """Of three columns the best of a label has 1, the second 0.5, the last 0; the order is that of H's mean rank."""
    for field, of in (("rank_r", "r"), ("rank_entropy", "h")):
        for c in candidates:
            beaten = [
                sum(other[of][k] < expected[c["name"]][of][k] - 1e-12 for other in expected.values()) for k in range(8)
            ]
            assert c[field] == pytest.approx(np.mean(beaten) / 2), field
    assert [c["rank_entropy"] for c in candidates] == sorted(c["rank_entropy"] for c in candidates)


def test_other_orders_are_other_seeds_and_validation_is_the_references(case, tmp_path, monkeypatch):
    folder, store, _frame, rows, saes = case
    monkeypatch.setattr(paper, "PER_CLASS", 15)
    table = read_table(folder / "labels.csv", uncertain="keep")
    found = paper.evaluate_as_paper(store, saes, table, progress=False)
    assert len(found.order_images) == 20
    other = paper.evaluate_as_paper(store, saes, table, seed=7, progress=False)
    assert found.order_images[7] == other.images and len(set(found.order_images)) > 1
    by_name = {c.name: c for c in other.candidates}
    for c in found.candidates:
        assert c.order_mean_top_r[7] == by_name[c.name].mean_top_r
        assert c.order_mean_top_entropy[7] == by_name[c.name].mean_top_entropy
    x = torch.from_numpy(rows[(store.images["split"] == "val").to_numpy()]).double()
    for path in saes:
        left = x - SAE.load_from_disk(path)(x.float()).detach().double()
        explained = 1 - float(left.var(0).sum()) / float(x.var(0).sum())
        entry = next(c for c in found.candidates if c.name == path.name)
        assert entry.explained_variance == pytest.approx(explained, abs=1e-6)
    assert next(c for c in found.candidates if c.kind == "neurons").explained_variance is None
    assert "neurons" in str(found) and f"{min(found.order_images)} to {max(found.order_images)} images" in str(found)
    found.save(tmp_path)
    assert paper.PaperEvaluation.open(tmp_path) == found


def test_one_that_keeps_nothing_has_no_rank_and_comes_last(case):
    folder, store, _frame, _rows, saes = case
    silent = relu_sae("hook_embedding_unit", torch.zeros(3, D), b_enc=-1.0, name="silent")
    table = read_table(folder / "labels.csv", uncertain="keep")
    found = paper.evaluate_as_paper(store, {"silent": silent, "sparse": saes[0]}, table, progress=False)
    last = found.candidates[-1]
    assert (last.name, last.kept, last.dead_rate, last.mean_top_r, last.rank_r) == ("silent", 0, 1.0, None, None)
    assert {c.rank_r for c in found.candidates[:2]} <= {x / 8 for x in range(9)}


def test_what_the_protocol_cannot_read_is_refused(case, tmp_path, capsys):
    folder, store, _frame, _rows, saes = case
    with pytest.raises(MedSAEError, match="counts CheXpert's 14 observations, and the table lacks No Finding"):
        narrow = read_table(folder / "labels.csv", label_columns=["Edema"], uncertain="keep")
        paper.evaluate_as_paper(store, saes, narrow, progress=False)
    with pytest.raises(MedSAEError, match="read with uncertain='ignore'; read it with uncertain='keep'"):
        paper.evaluate_as_paper(store, saes, read_table(folder / "labels.csv"), progress=False)
    arguments = ["evaluate", store.path, *saes, "--table", folder / "labels.csv", "--out", tmp_path / "x", "--quiet"]
    arguments += ["--protocol", "medsae-paper", "--report-split", "val", "--uncertain", "ones"]
    assert main([*map(str, arguments)]) == 1
    assert "--report-split, --uncertain says nothing to --protocol medsae-paper" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
