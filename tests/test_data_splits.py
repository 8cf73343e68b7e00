"""Splits and folds by patient: the old draw where there are no labels, every label's share where there are."""

import hashlib

import numpy as np
import pytest

from medsae_plugin.data.splits import DEFAULT_FRACTIONS, folds_by_patient, split_by_patient, split_hash
from medsae_plugin.errors import MedSAEError

SPLITS = tuple(DEFAULT_FRACTIONS)


def thirty_edemas(seed, n_patients=1000):
    """Patients of one to three images; Edema in 30 of them, Fracture in 8, Effusion in two fifths."""
    rng = np.random.default_rng(seed)
    of_patient = np.zeros((n_patients, 3))
    for c, n in enumerate((30, 8, 400)):
        of_patient[rng.choice(n_patients, n, replace=False), c] = 1
    code = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    return [f"patient{k:05d}" for k in code], of_patient[code]


def patients_with(patients, splits, labels):
    """Of each split how many patients have each label."""
    names = np.array(patients)
    return {s: [len(set(names[(np.array(splits) == s) & (y == 1)])) for y in labels.T] for s in SPLITS}


@pytest.mark.parametrize("seed", range(5))
def test_every_split_gets_its_share_of_every_label(seed):
    patients, labels = thirty_edemas(seed)
    splits = split_by_patient(patients, seed=seed, labels=labels)
    found = patients_with(patients, splits, labels)
    assert {s: of[:2] for s, of in found.items()} == {"train": [21, 6], "val": [3, 1], "test": [6, 1]}
    for split, share in DEFAULT_FRACTIONS.items():
        assert abs(found[split][2] - share * 400) <= 2
        assert len({p for p, s in zip(patients, splits, strict=True) if s == split}) == round(share * 1000)


def test_the_rarer_value_is_shared_out_and_what_is_neither_0_nor_1_is_not():
    patients = [f"p{k}" for k in range(100)]
    labels = np.ones((100, 2))
    labels[:10, 0], labels[10:90, 0], labels[:, 1] = 0, -1, np.nan  # ten without a finding, ten with it
    labels[40:, 0] = 1
    splits = np.array(split_by_patient(patients, {"train": 0.5, "test": 0.5}, labels=labels))
    assert [(splits[:10] == s).sum() for s in ("train", "test")] == [5, 5]


def test_without_labels_the_order_by_hash_is_cut_as_ever():
    for n, seed in ((3, 0), (10, 1), (333, 2)):
        patients = [f"p{k % n}" for k in range(2 * n)]
        order = sorted(set(patients), key=lambda p: hashlib.sha256(f"{seed}\0{p}".encode()).digest())
        splits = dict(zip(patients, split_by_patient(patients, seed=seed), strict=True))
        train, val = max(round(0.7 * n), 1), max(round(0.8 * n), 2)
        train, val = min(train, n - 2), min(val, n - 1)
        assert [splits[p] for p in order] == ["train"] * train + ["val"] * (val - train) + ["test"] * (n - val)
        nothing = split_by_patient(patients, seed=seed, labels=np.zeros((2 * n, 4)))
        assert nothing == split_by_patient(patients, seed=seed)


def test_a_draw_hangs_on_the_seed_and_not_on_the_order_of_images():
    patients, labels = thirty_edemas(0)
    splits = split_by_patient(patients, seed=3, labels=labels)
    other = np.random.default_rng(0).permutation(len(patients))
    moved = split_by_patient([patients[k] for k in other], seed=3, labels=labels[other])
    assert [splits[k] for k in other] == moved
    assert split_by_patient(patients, seed=4, labels=labels) != splits
    assert all(len({s for p, s in zip(patients, splits, strict=True) if p == one}) == 1 for one in set(patients[:50]))


def test_folds_are_of_whole_patients_and_alike():
    patients, labels = thirty_edemas(1)
    fold = folds_by_patient(patients, 5, 0, labels)
    names = np.array(patients)
    assert [len(set(names[fold == k])) for k in range(5)] == [200] * 5
    assert [len(set(names[(fold == k) & (labels[:, 0] == 1)])) for k in range(5)] == [6] * 5
    assert sum(len(set(names[fold == k])) for k in range(5)) == 1000
    with pytest.raises(MedSAEError, match="folds are 2 or more"):
        folds_by_patient(patients, 1)
    with pytest.raises(MedSAEError, match="3 patients cannot be split"):
        folds_by_patient(["a", "b", "c"], 4)


def test_a_split_is_known_by_its_patients_alone():
    one = split_hash(["a", "a", "b"], ["train", "train", "test"])
    assert one == split_hash(["b", "a"], ["test", "train"])
    assert one != split_hash(["a", "b"], ["test", "train"]) != split_hash(["a", "b"], ["train", ""])


def test_a_label_that_no_patient_has_is_shared_out_at_once():
    """Beside one that every patient has as many images with as without."""
    patients = [f"p{k // 2}" for k in range(20)]
    labels = np.column_stack([np.zeros(20), np.arange(20) % 2])
    splits = split_by_patient(patients, {"train": 0.5, "test": 0.5}, labels=labels)
    assert splits[::2] == splits[1::2] and sorted(splits) == ["test"] * 10 + ["train"] * 10


def test_a_split_of_one_patient_has_its_turn():
    """Of four patients with the label the last goes to a split of one, which wants it more than one that had three."""
    patients = [f"p{k}" for k in range(8)]
    labels = (np.arange(8) < 4).astype(float)[:, None]
    found = patients_with(
        patients, split_by_patient(patients, {"train": 0.75, "val": 0.125, "test": 0.125}, 0, labels), labels
    )
    assert found["train"] == [3] and found["val"][0] + found["test"][0] == 1
