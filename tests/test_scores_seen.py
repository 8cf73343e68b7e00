"""What an SAE and its encoder have seen: remembered by training, said beside figures, refused or left out."""

import shutil
from dataclasses import replace

import pytest
from helpers.planted import planted_rows, reading_weights, relu_sae, save_sae, write_store
from safetensors import safe_open

from medsae_plugin.cli import main
from medsae_plugin.data.data_sets import data_set_of
from medsae_plugin.data.tables import read_table
from medsae_plugin.encoders import list_cards, load_card
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores import Resampling, evaluate
from medsae_plugin.scores.images import Folds
from medsae_plugin.scores.seen import encoder_has_seen
from medsae_plugin.training import SAESpec, TrainingConfig, train_saes
from medsae_plugin.training.memory import DIGESTS, TrainingPatients

N, D, FEATURES = 240, 8, 6
FEW = {"resampling": Resampling(9, 20), "progress": False}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A store, the same images split otherwise, a table, and an SAE that was trained on the first."""
    folder = tmp_path_factory.mktemp("seen")
    rows, codes = planted_rows(N, D, FEATURES)
    store = write_store(folder / "store", {"hook_embedding": rows}, seed=0)
    other = write_store(folder / "other", {"hook_embedding": rows}, seed=1)
    table = store.images[["path", "patient"]].assign(Edema=(codes[:, 0] > 0) * 1, Fracture=(codes[:, 1] > 0) * 1)
    table.to_csv(folder / "labels.csv", index=False)
    spec = SAESpec("trained", "hook_embedding", "topk", expansion=2, options={"k": 3})
    train_saes(store, [spec], TrainingConfig(1280, batch_size=64), folder / "run", progress=False)
    return folder, store, other, read_table(folder / "labels.csv", label_columns=["Edema", "Fracture"])


def patients(store, split):
    return set(store.images.loc[store.images["split"] == split, "patient"])


def test_training_leaves_its_split_and_salted_digests_of_its_patients(case):
    folder, store, other, _ = case
    sae = folder / "run" / "trained"
    kept = TrainingPatients.load(sae)
    everyone = sorted(set(store.images["patient"]))
    assert {p for p, there in zip(everyone, kept.among(everyone), strict=True) if there} == patients(store, "train")
    assert store.split_sha256 != other.split_sha256
    assert store.split_sha256 in (sae / "cfg.json").read_text()
    with safe_open(sae / DIGESTS, "np") as file:  # no name, and no digest that another SAE's salt would give
        assert len(file.get_tensor("digests")) == len(patients(store, "train")) and [*file.keys()] == ["digests"]
    again = TrainingPatients.of(patients(store, "train"), store.split_sha256, "another", "hook_embedding", 0)
    assert not set(again.digests) & set(kept.digests)
    assert b"patient" not in (sae / DIGESTS).read_bytes()[8:]


def test_a_store_that_was_split_otherwise_is_refused_or_its_seen_patients_left_out(case, tmp_path):
    folder, store, other, table = case
    sae = folder / "run" / "trained"
    seen, tested = patients(store, "train") & patients(other, "test"), patients(other, "test")
    assert 0 < len(seen) < len(tested)
    with pytest.raises(MedSAEError, match=rf"{len(seen)} of the {len(tested)} patients to report on are among its"):
        evaluate(other, sae, table, **FEW)
    found = evaluate(other, sae, table, leave_out_trained=True, **FEW)
    rest = other.with_splits(
        [("" if p in seen else s) if s == "test" else s for p, s in zip(
            other.images["patient"], other.images["split"], strict=True)]
    )  # fmt: skip
    by_hand = evaluate(rest, sae, table, **FEW)
    assert found.report.left_out == len(seen) and found.report.patients == len(tested - seen)
    assert f"Left out: {len(seen)} patients that an SAE was trained on." in str(found)
    for mine, theirs in zip(found.candidates, by_hand.candidates, strict=True):
        assert mine.observations == theirs.observations and mine.fidelity == theirs.fidelity
    assert "Held out from the SAE" in str(found)


def test_on_its_own_split_an_sae_is_held_out_and_where_it_is_not_that_is_said(case):
    folder, store, _, table = case
    sae = folder / "run" / "trained"
    assert "Held out from the SAE" in str(evaluate(store, sae, table, **FEW))
    n = len(patients(store, "train"))
    everyone = evaluate(store, sae, table, folds=Folds(3, ("all",)), **FEW)
    assert f"NOT held out from the SAE: it was trained on {n} of {N // 3} patients" in str(everyone)
    trained = evaluate(store, sae, table, select="test", report="train", **FEW)
    assert f"NOT held out from the SAE: it was trained on {n} of {n} patients" in str(trained)


def test_an_sae_without_that_memory_is_said_to_be_unknown(case, tmp_path):
    folder, store, other, table = case
    foreign = save_sae(tmp_path / "foreign", relu_sae("hook_embedding", **reading_weights(D, FEATURES)))
    assert "It is not known what the SAE was trained on" in str(evaluate(other, foreign, table, **FEW))
    shutil.copytree(folder / "run" / "trained", published := tmp_path / "published")
    (published / DIGESTS).unlink()  # as a release has it: its split is known, its patients are not
    assert "It is not known what the SAE was trained on" in str(evaluate(other, published, table, **FEW))
    assert "Held out from the SAE" in str(evaluate(store, published, table, **FEW))
    (published / DIGESTS).write_bytes(b"rubbish")
    with pytest.raises(MedSAEError, match=r"patients.safetensors is damaged"):
        evaluate(other, published, table, **FEW)


def test_the_command_line_refuses_and_leaves_out(case, tmp_path, capsys):
    folder, *_ = case
    arguments = ["evaluate", folder / "other", folder / "run" / "trained", "--table", folder / "labels.csv"]
    arguments += ["--labels", "Edema,Fracture", "--permutations", "9", "--out", tmp_path / "out", "--quiet"]
    assert main([*map(str, arguments)]) == 1
    assert "are among its training patients" in capsys.readouterr().err
    assert main([*map(str, arguments), "--leave-out-trained", "--data-set", "chexpert"]) == 0
    assert "Left out:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("encoder", "data_set", "words"),
    [
        ("medclip-swin", "CheXpert", "seen by the encoder: medclip-swin was trained on CheXpert"),
        ("medclip-swin", "mimic cxr", "seen by the encoder: medclip-swin was trained on mimic cxr"),
        ("dinov2-base", "NIH ChestX-ray14", "not among what dinov2-base is known to be trained on (LVD-142M)"),
        ("medclip-swin", "", "not known: the table's data set is not known"),
        ("my-own", "CheXpert", "not known: there is no word of what my-own was trained on"),
    ],
)
def test_what_an_encoder_has_seen_is_said(encoder, data_set, words):
    assert words in encoder_has_seen(encoder, data_set)


def test_data_sets_are_told_by_dialect_and_not_by_columns_alone(case, tmp_path):
    assert data_set_of("chexpert", ["CheXpert-v1.0/train/patient1/study1/view1_frontal.jpg"]) == "CheXpert"
    assert data_set_of("chexpert", ["images/patient00001/study1/view1_frontal.png"]) == ""  # phantoms
    assert data_set_of("nih", ["00000001_000.png"]) == "NIH ChestX-ray14" and data_set_of("plain", ["a.png"]) == ""
    table = read_table(case[0] / "labels.csv", data_set="VinDr-CXR")
    assert (table.data_set, replace(table, data_set="").data_set) == ("VinDr-CXR", "")


def test_every_card_of_the_package_says_what_its_encoder_was_trained_on():
    said = {name: load_card(name).trained_on for name in list_cards()}
    assert {"CheXpert", "MIMIC-CXR"} <= set(said["medclip-swin"]) and said["dinov2-base"] == ["LVD-142M"]
    assert all(said.values())
