"""Whose images a folder's are, and where a table's paths start from."""

import os
from pathlib import Path

import numpy as np
import pytest

from medsae_plugin import MedSAEError, read_table, scan_folder


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def patients(table) -> dict[str, str]:
    return dict(zip(table.frame["path"], table.frame["patient"], strict=True))


LAYOUTS = {
    "CheXpert": {
        "train/patient00001/study1/view1_frontal.jpg": "patient00001",
        "valid/patient2/study1/v.jpg": "patient2",
    },
    "CheXpert, flat": {"patient00001_study1.png": "patient00001", "patient00001_study2.png": "patient00001"},
    "MIMIC-CXR": {
        "files/p10/p10000001/s50000001/0a.jpg": "p10000001",
        "files/p10/p10000001/s50000002/0b.jpg": "p10000001",
        "files/p11/p11000001/s50000003/0c.jpg": "p11000001",
    },
    "NIH ChestX-ray14": {
        "images_001/images/00000001_000.png": "00000001",
        "images_001/images/00000001_001.png": "00000001",
        "images_002/images/00001336_000.png": "00001336",
    },
    "a folder a patient": {"train/sub-01/ses-1/a.png": "sub-01", "test/sub-02/b.png": "sub-02"},
    "a folder a patient, such as P0001": {"P0001/a.png": "P0001", "P0001/b.png": "P0001", "P0002/a.png": "P0002"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_layouts_give_their_patients_and_say_so(tmp_path, layout):
    table = scan_folder(touch(tmp_path, *LAYOUTS[layout]))
    assert patients(table) == LAYOUTS[layout] and layout.partition(",")[0] in table.describe()
    assert f"{len(table)} images of {len(set(LAYOUTS[layout].values()))} patients" in table.describe()


UNKNOWN = {
    "classes": ("NORMAL/a.png", "PNEUMONIA/b.png"),
    "numbered classes": ("0/a.png", "1/b.png"),
    "years": ("2019/a.png", "2020/b.png"),
    "days": ("20190131/a.png", "20200131/b.png"),
    "parts": ("images_001/a.png", "images_002/b.png"),
    "flat": ("a.png", "b.png"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_patients_are_never_guessed(tmp_path, what):
    touch(tmp_path, *UNKNOWN[what])
    with pytest.raises(MedSAEError, match=r"no patient column, and none in the path .*--patients-from.*-are-images"):
        scan_folder(tmp_path)
    every = scan_folder(tmp_path, patients_are_images=True)
    assert patients(every) == {path: path for path in UNKNOWN[what]} and "every image is of another" in every.describe()


@pytest.mark.parametrize("layout", ["CheXpert", "MIMIC-CXR", "NIH ChestX-ray14"])
def test_a_stray_picture_is_an_error_that_names_it(tmp_path, layout):
    touch(tmp_path, *LAYOUTS[layout], "example.png")
    with pytest.raises(MedSAEError, match=r"1 of \d paths name no patient as the others do .*example\.png"):
        scan_folder(tmp_path)


def test_patients_by_a_pattern(tmp_path):
    touch(tmp_path, "x/17-a.png", "y/17-b.png", "y/18-a.png")
    assert list(patients(scan_folder(tmp_path, patients_from=r"(\d+)-")).values()) == ["17", "17", "18"]
    assert list(patients(scan_folder(tmp_path, patients_from=r"^[^/]+")).values()) == ["x", "y", "y"]
    with pytest.raises(MedSAEError, match=r"finds no patient in 'x/17-a\.png'"):
        scan_folder(tmp_path, patients_from=r"b(\d)")
    with pytest.raises(MedSAEError, match="is no regular expression"):
        scan_folder(tmp_path, patients_from="(")
    (tmp_path / "t.csv").write_text("path,nodule\nx/17-a.png,1\ny/18-a.png,0\n")
    assert list(patients(read_table(tmp_path / "t.csv", patients_from=r"(\d+)-")).values()) == ["17", "18"]
    assert list(patients(read_table(tmp_path / "t.csv", patients_are_images=True)).values()) == [
        "x/17-a.png",
        "y/18-a.png",
    ]


def test_links_are_followed_once_and_loops_end(tmp_path):
    touch(tmp_path / "disk", "patient1/a.png", "patient2/b.png")
    root = touch(tmp_path / "root", "patient3/c.png")
    (root / "more").symlink_to(tmp_path / "disk")
    (root / "again").symlink_to(tmp_path / "disk")
    (root / "patient3/loop").symlink_to(root)
    (root / "patient3/same.png").symlink_to(root / "patient3/c.png")
    (root / "patient3/one.png").symlink_to(tmp_path / "disk/patient1/a.png")
    (root / "patient3/gone.png").symlink_to(tmp_path / "nothing")
    table = scan_folder(root)
    found = [os.path.realpath(table.image_path(i)) for i in range(len(table))]
    assert sorted(found) == sorted(
        str((tmp_path / p).resolve()) for p in ("disk/patient1/a.png", "disk/patient2/b.png", "root/patient3/c.png")
    )
    for said in ("links to images that were read already", "links to folders that were", "links that lead nowhere"):
        assert said in table.describe()


def test_a_name_that_is_not_utf8_is_an_error_that_can_be_printed(tmp_path):
    touch(tmp_path, "patient1/a.png")
    (tmp_path / os.fsdecode(b"patient1/aufn\xe4hme.png")).touch()
    with pytest.raises(MedSAEError, match=r"1 file names are not UTF-8.*\\\\xe4hme") as error:
        scan_folder(tmp_path)
    str(error.value).encode()


def table_at(folder: Path, prefix: str, name: str = "train.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{prefix}train/patient{i}/study1/view1_frontal.jpg,{i % 2}" for i in (1, 2)]
    (folder / name).write_text("\n".join(["Path,Edema", *rows]) + "\n")
    return folder / name


IMAGES = tuple(f"train/patient{i}/study1/view1_frontal.jpg" for i in (1, 2))


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0-small/", "CheXpert-v1.0/", "data/CheXpert-v1.0/", ""])
@pytest.mark.parametrize("name", ["CheXpert-v1.0-small", "chexpert", "archive"])
def test_images_are_found_whatever_their_folder_is_called(tmp_path, prefix, name):
    root = touch(tmp_path / name, *IMAGES)
    for table in (read_table(table_at(root, prefix)), read_table(table_at(tmp_path / "labels", prefix), root=root)):
        assert table.frame["path"].tolist() == list(IMAGES) and table.image_path(0).is_file()
        assert not prefix or f"without '{prefix}'" in table.describe()
    beside = read_table(table_at(tmp_path / "labels", prefix), root=tmp_path, known_paths=None)
    assert beside.image_path(1).is_file()


def test_a_link_called_as_the_data_set_is_its_folder(tmp_path, monkeypatch):
    disk = touch(tmp_path / "disk7", *IMAGES)
    table_at(disk, "CheXpert-v1.0-small/")
    (tmp_path / "CheXpert-v1.0-small").symlink_to(disk)
    assert read_table(tmp_path / "CheXpert-v1.0-small/train.csv").frame["path"].tolist() == list(IMAGES)
    monkeypatch.chdir(tmp_path / "CheXpert-v1.0-small")
    assert read_table("train.csv").frame["path"].tolist() == list(IMAGES)


def test_images_that_could_be_in_two_places_are_not_guessed(tmp_path):
    for name in ("chexpert", "CheXpert-v1.0-small-old"):
        touch(tmp_path / name, *IMAGES)
    with pytest.raises(MedSAEError, match=r"could be those in .*/train or .*/train; say which with --root"):
        read_table(table_at(tmp_path, "CheXpert-v1.0/"))


def test_one_splits_images_are_never_taken_for_anothers(tmp_path):
    root = touch(tmp_path / "test", "0001.png", "0002.png")
    (tmp_path / "t.csv").write_text("path,patient,nodule\ntrain/0001.png,1,1\ntrain/0002.png,2,0\n")
    assert read_table(tmp_path / "t.csv", root=root).frame["path"].tolist() == ["train/0001.png", "train/0002.png"]
    (tmp_path / "test").rename(tmp_path / "train")
    assert read_table(tmp_path / "t.csv", root=tmp_path / "train").frame["path"].tolist() == ["0001.png", "0002.png"]


def test_paths_are_fitted_to_a_stores_where_no_image_is_at_hand(tmp_path):
    table = read_table(table_at(tmp_path, "CheXpert-v1.0/"), known_paths=IMAGES)
    assert table.frame["path"].tolist() == list(IMAGES) and "without 'CheXpert-v1.0/'" in table.describe()
    other = read_table(tmp_path / "train.csv", known_paths=["elsewhere/a.png"])
    assert other.frame["path"].tolist() == [f"CheXpert-v1.0/{path}" for path in IMAGES]
    np.testing.assert_array_equal(table.labels, other.labels)
