"""`LabelledImages`: a store's images joined with a table by their paths, and the two roles of its splits."""

import numpy as np
import pandas as pd
import pytest
from helpers.planted import write_store

from medsae_plugin.data.tables import read_table
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores import LabelledImages

N = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rows = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    return write_store(tmp_path_factory.mktemp("planted") / "store", {"hook_embedding": rows, "h": rows[:, :2]})


def table_of(store, folder, kept=slice(None), **options):
    """Label "odd" of an image is whether its number is odd; "maybe" is uncertain of each fifth and empty of each
    third."""
    maybe = np.where(np.arange(N) % 5 == 0, "-1", np.where(np.arange(N) % 3 == 0, "", "1"))
    frame = pd.DataFrame({"Path": store.images["path"], "odd": np.arange(N) % 2, "maybe": maybe})
    frame["text"] = [f"Report {i}." for i in range(N)]
    frame.iloc[::-1].iloc[kept].to_csv(folder / "labels.csv", index=False)
    return read_table(folder / "labels.csv", label_columns=["odd", "maybe"], **options)


def test_rows_are_the_stores_and_labels_the_tables_whatever_its_order(store, tmp_path):
    images = LabelledImages.of(store, table_of(store, tmp_path, report_column="text"))
    assert list(images.frame["path"]) == list(store.readable_images["path"])
    np.testing.assert_array_equal(images.labels[:, 0], np.arange(N) % 2)
    assert images.reports == tuple(f"Report {i}." for i in range(N))
    assert images.path(3) == tmp_path / store.images["path"][3]
    np.testing.assert_array_equal(
        images.embeddings(slice(7, 9)), store.image_rows("hook_embedding", slice(7, 9)).numpy()
    )
    assert images.d_embedding == 4 and images.without_embeddings().embeddings is None
    unit = write_store(
        tmp_path / "unit", {"h": np.ones((N, 2), np.float32), "hook_embedding_unit": np.eye(N, dtype="f")}
    )
    np.testing.assert_array_equal(
        LabelledImages.of(unit, table_of(store, tmp_path)).embeddings(slice(2, 4)), np.eye(N)[2:4]
    )
    same = LabelledImages.of(store.readable_images, table_of(store, tmp_path))
    np.testing.assert_array_equal(same.labels, images.labels)
    assert same.embeddings is None and same.reports is None


def test_covariates_are_joined_and_unknown_where_the_table_has_no_row(store, tmp_path):
    frame = pd.DataFrame({"Path": store.images["path"], "odd": "1", "Sex": ["F", "M"] * (N // 2), "Age": range(N)})
    frame.iloc[10:].iloc[::-1].to_csv(tmp_path / "labels.csv", index=False)
    images = LabelledImages.of(store, read_table(tmp_path / "labels.csv", label_columns=["odd"]))
    assert list(images.covariates) == ["sex", "age"] and len(images.covariates) == N
    assert images.covariates["sex"].tolist() == [""] * 10 + ["F", "M"] * 25
    np.testing.assert_array_equal(images.covariates["age"], [np.nan] * 10 + list(range(10, N)))
    assert list(LabelledImages.of(store, table_of(store, tmp_path)).covariates) == []


def test_uncertain_labels_are_unknown_are_told_and_are_not_scored(store, tmp_path):
    images = LabelledImages.of(store, table_of(store, tmp_path, uncertain="keep"))
    uncertain = np.arange(N) % 5 == 0
    assert np.isnan(images.labels[uncertain, 1]).all()
    np.testing.assert_array_equal(images.uncertain, np.stack([np.zeros(N, bool), uncertain], 1))
    assert (images.as_told()[uncertain, 1] == -1).all() and not (images.as_told()[~uncertain] == -1).any()
    with pytest.raises(MedSAEError, match=r"keeps uncertain ones as -1.*uncertain='ignore'"):
        images.held_out()
    ones = LabelledImages.of(store, table_of(store, tmp_path, uncertain="ones")).held_out()
    assert (ones.labels[uncertain, 1] == 1).all()


def test_roles_are_splits_and_leave_out_images_without_a_row(store, tmp_path):
    images = LabelledImages.of(store, table_of(store, tmp_path, slice(None, None, 2))).held_out("train", "test")
    split, told = store.images["split"].to_numpy(), np.arange(N) % 2 == 1
    for role, name in (("select", "train"), ("report", "test")):
        here = split == name
        np.testing.assert_array_equal(images.rows(role), np.flatnonzero(here & told))
        assert images.without_row(role) == (here & ~told).sum() > 0
        known = images.labels[images.rows(role), 1]
        patients = store.images["patient"].to_numpy()[images.rows(role)][~np.isnan(known)]
        assert images.count_patients(role)[1] == len(set(patients))
    assert (images.roles[~told] == "").all() and np.isnan(images.labels[~told]).all()
    assert (images.roles[split == "val"] == "").all()
    np.testing.assert_array_equal(images.rows_in(["val", "test"]), np.flatnonzero(np.isin(split, ["val", "test"])))


def test_what_cannot_be_joined_or_held_out_is_said(store, tmp_path):
    images = LabelledImages.of(store, table_of(store, tmp_path))
    with pytest.raises(MedSAEError, match=r"no readable images in split 'dev' \(it has: test, train, val\)"):
        images.held_out("train", "dev")
    with pytest.raises(MedSAEError, match="nothing is held out"):
        images.held_out("test", "test")
    with pytest.raises(MedSAEError, match=r"no images in split 'dev' \(there are: test, train, val\)"):
        images.rows_in(["dev"])
    with pytest.raises(MedSAEError, match="patients are in both 'test' and 'test'"):
        images.check_apart("test", "test")
    images.check_apart("train", "test")
    unlabelled = read_table(tmp_path / "labels.csv", label_columns=[])
    with pytest.raises(MedSAEError, match="no label columns"):
        LabelledImages.of(store, unlabelled).held_out()
    pd.DataFrame({"Path": ["elsewhere.png"], "patient": ["p"], "odd": [1]}).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(MedSAEError, match=r"no image of the store is in the table.*'elsewhere\.png'.*--root"):
        LabelledImages.of(store, read_table(tmp_path / "other.csv", label_columns=["odd"]))
    mixed = store.readable_images.assign(patient="p1")
    with pytest.raises(MedSAEError, match="1 patients are in both 'train' and 'test'"):
        LabelledImages.of(mixed, table_of(store, tmp_path)).held_out()
