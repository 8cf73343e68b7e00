"""Hugging Face data sets as tables: here of skin, none of chests; local, saved, and streamed."""

import datasets
import numpy as np
import pytest
from PIL import Image

from medsae_plugin import MedSAEError, read_dataset
from medsae_plugin.cli import main
from medsae_plugin.data.images import read_image

CLASSES = ["nevus", "melanoma", "keratosis"]


def pictures(n=12, side=40):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)) for _ in range(n)]


def skin(images=None, **more):
    images = pictures() if images is None else images
    n = len(images)
    columns = {
        "image": (images, datasets.Image()),
        "dx": ([i % 3 for i in range(n - 1)] + [-1], datasets.ClassLabel(names=CLASSES)),
        "lesion_id": ([f"L{i // 2}" for i in range(n)], datasets.Value("string")),
        "age": ([30 + i for i in range(n)], datasets.Value("int32")),
        "sex": (["male", "female"] * (n // 2), datasets.Value("string")),
    } | more
    features = datasets.Features({name: feature for name, (_, feature) in columns.items()})
    return datasets.Dataset.from_dict({name: values for name, (values, _) in columns.items()}, features=features)


def grey(image):
    return np.asarray(image.convert("L"))


def test_a_class_label_is_a_label_a_class(tmp_path):
    table = read_dataset(skin(), patient_column="lesion_id")
    assert table.label_names == tuple(CLASSES)
    expected = np.eye(3)[[i % 3 for i in range(12)]]
    expected[-1] = np.nan
    np.testing.assert_array_equal(table.labels, expected)
    assert table.frame["patient"].tolist() == [f"L{i // 2}" for i in range(12)]
    assert table.covariates["age"].tolist() == list(range(30, 42)) and table.covariates["sex"][1] == "female"
    for row, image in enumerate(pictures()):
        np.testing.assert_array_equal(np.asarray(read_image(table.image_path(row))), grey(image))
    assert (
        read_dataset(skin(), patient_column="lesion_id", where="age >= 40").frame["path"].tolist()[0].endswith("10.png")
    )


def test_labels_of_sequences_words_yes_and_no_and_numbers():
    n = 12
    more = {
        "signs": ([[0, 1], [], None] * 4, datasets.Sequence(datasets.ClassLabel(names=["ulcer", "scale"]))),
        "sites": ([["arm"], ["arm", "leg"], []] * 4, datasets.Sequence(datasets.Value("string"))),
        "biopsy": ([0, 1, -1] * 4, datasets.ClassLabel(names=["no", "yes"])),
        "origin": (["Vienna", "Queensland", ""] * 4, datasets.Value("string")),
        "Nodule": ([1, 0, 0] * 4, datasets.Value("int8")),
        "ulcer": ([0, 1, 1] * 4, datasets.Value("int8")),
    }
    dataset = skin(**more)
    columns = ["signs", "sites", "biopsy", "origin", "Nodule"]
    table = read_dataset(dataset, patient_column="lesion_id", label_columns=columns)
    nan = np.nan
    expected = {
        "Nodule": [1, 0, 0],
        "ulcer": [1, 0, nan],
        "scale": [1, 0, nan],
        "arm": [1, 1, 0],
        "leg": [0, 1, 0],
        "biopsy": [0, 1, nan],
        "Queensland": [0, 1, nan],
        "Vienna": [1, 0, nan],
    }
    assert set(table.label_names) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(table.labels[:, table.label_names.index(name)], values * (n // 3))
    by_default = read_dataset(dataset, patient_column="lesion_id")
    assert {"nevus", "ulcer", "biopsy", "Nodule"} <= set(by_default.label_names) and "arm" not in by_default.label_names
    assert by_default.reading is not None and by_default.reading.aside["origin"] == "text"


def test_what_is_not_said_is_refused():
    with pytest.raises(MedSAEError, match=r"names no patient in its columns \(dx, lesion_id.*patients_are_images"):
        read_dataset(skin())
    assert read_dataset(skin(), patients_are_images=True).frame["patient"].nunique() == 12
    with pytest.raises(MedSAEError, match="no image column"):
        read_dataset(skin().remove_columns("image"), patients_are_images=True)
    two = skin(second=(pictures(), datasets.Image()))
    with pytest.raises(MedSAEError, match=r"several image columns \(image, second\)"):
        read_dataset(two, patients_are_images=True)
    assert len(read_dataset(two, image_column="second", patients_are_images=True)) == 12
    with pytest.raises(MedSAEError, match="no label column 'dxx'"):
        read_dataset(skin(), label_columns=["dxx"], patients_are_images=True)
    with pytest.raises(MedSAEError, match=r"is a list, and no datasets\.Dataset"):
        read_dataset([1, 2])
    with pytest.raises(MedSAEError, match="streamed, and can be read once"):
        read_dataset(skin().to_iterable_dataset(), patients_are_images=True)
    ids = skin(uid=([f"u{i}" for i in range(300)], datasets.Value("string")), **_repeated(300))
    with pytest.raises(MedSAEError, match="300 different words"):
        read_dataset(ids, label_columns=["uid"], patients_are_images=True)


def _repeated(n):
    image = pictures(1, 4)[0]
    return {
        "image": ([image] * n, datasets.Image()),
        "dx": ([0] * n, datasets.ClassLabel(names=CLASSES)),
        "lesion_id": (["L"] * n, datasets.Value("string")),
        "age": ([1] * n, datasets.Value("int32")),
        "sex": (["male"] * n, datasets.Value("string")),
    }


def test_a_stream_is_read_once_and_its_images_are_kept(tmp_path):
    stream = datasets.IterableDatasetDict(
        train=skin().select(range(8)).to_iterable_dataset(),
        validation=skin().select(range(8, 12)).to_iterable_dataset(),
    )
    table = read_dataset(stream, patient_column="lesion_id", keep=tmp_path / "kept")
    assert table.frame["split"].tolist() == ["train"] * 8 + ["val"] * 4
    for row, image in enumerate(pictures()):
        np.testing.assert_array_equal(np.asarray(read_image(table.image_path(row))), grey(image))


def test_images_that_are_files_are_read_where_they_are(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for path, image in zip(paths, pictures(), strict=True):
        image.save(path)
    table = read_dataset(skin(list(map(str, paths))), patient_column="lesion_id")
    np.testing.assert_array_equal(np.asarray(read_image(table.image_path(3))), grey(pictures()[3]))
    paths[5].unlink()
    with pytest.raises(MedSAEError, match="no such file or directory"):
        read_image(table.image_path(5))


def test_a_saved_data_set_goes_from_the_command_line_to_scores(tmp_path, monkeypatch, capsys):
    parts = datasets.DatasetDict(train=skin(pictures(24)), test=skin(pictures(24)))
    parts["test"] = parts["test"].map(lambda row: {"lesion_id": "T" + row["lesion_id"]})
    parts.save_to_disk(tmp_path / "skin")
    (tmp_path / "recipe.yaml").write_text(
        "saes: [{name: a, hook: hook_embedding, architecture: topk, expansion: 1, options: {k: 4}}]\n"
        "training: {total_training_samples: 512, batch_size: 16}\n"
    )
    table = ["--table", f"hf:{tmp_path}/skin", "--patient-column", "lesion_id"]
    commands = [
        ["extract", "phantom-swin", *table, "--workers", "1", "--out", "store"],
        ["train", "store", "--recipe", "recipe.yaml", "--out", "saes"],
        ["evaluate", "store", "saes/a", *table, "--data-set", "Skin", "--permutations", "19", "--out", "scores"],
    ]
    monkeypatch.chdir(tmp_path)
    for words in commands:
        assert main(["--quiet", *words]) == 0, capsys.readouterr().err
    scores = (tmp_path / "scores" / "metrics.json").read_text()
    assert "Skin is not among what phantom-swin is known to be trained on" in scores
    assert all(f'"{name}"' in scores for name in CLASSES)
