"""CheXpert and plain tables, patients and splits."""

import inspect
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae_plugin import MedSAEError
from medsae_plugin.data.splits import split_by_patient
from medsae_plugin.data.tables import OBSERVATIONS, read_table, scan_folder

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(OBSERVATIONS)


def chexpert(*rows: tuple[str, str, str]) -> str:
    """A table of (path, labels of Edema and Fracture) rows, the other observations empty."""
    lines = [HEADER]
    for path, edema, fracture in rows:
        labels = {"Edema": edema, "Fracture": fracture}
        lines.append(f"{path},Female,61,Frontal,AP," + ",".join(labels.get(name, "") for name in OBSERVATIONS))
    return "\n".join(lines) + "\n"


def write(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


ROWS = (("patient00001/study1/view1.jpg", "1.0", ""), ("patient00001/study2/view1.jpg", "-1.0", "0.0"))


@pytest.mark.parametrize(("uncertain", "expected"), [("ignore", np.nan), ("zeros", 0), ("ones", 1), ("keep", -1)])
def test_chexpert_labels_and_details(tmp_path, uncertain, expected):
    table = read_table(write(tmp_path, chexpert(*ROWS)), uncertain=uncertain)
    assert table.label_names == OBSERVATIONS and table.labels.dtype == np.float32
    edema, fracture = (table.labels[:, OBSERVATIONS.index(name)] for name in ("Edema", "Fracture"))
    np.testing.assert_array_equal(edema, np.array([1, expected], np.float32))
    np.testing.assert_array_equal(fracture, [0, 0])  # not mentioned is 0
    assert table.frame["patient"].tolist() == ["patient00001"] * 2
    first = table.frame.iloc[0]
    assert (first["sex"], first["age"], first["view"], first["projection"]) == ("Female", 61, "Frontal", "AP")
    assert table.image_path(1) == tmp_path / "patient00001/study2/view1.jpg"


def test_the_roots_own_name_is_taken_off_chexperts_paths(tmp_path):
    root = tmp_path / "CheXpert-v1.0-small"
    (root / "train").mkdir(parents=True)
    rows = [("CheXpert-v1.0-small/train/" + path, a, b) for path, a, b in ROWS]
    inside = read_table(write(root, chexpert(*rows)))
    assert inside.frame["path"].iloc[0] == "train/patient00001/study1/view1.jpg"
    beside = read_table(root / "t.csv", root=tmp_path)
    assert beside.image_path(0) == inside.image_path(0)


def test_a_plain_table(tmp_path):
    text = "filename;subject_id;nodule;score;sure\na.png;p1;1;0.5;0\nsub\\b.png;p2;;0.1;-1\n"
    table = read_table(write(tmp_path, b"\xef\xbb\xbf" + text.encode()))
    assert table.label_names == ("nodule",) and table.frame["path"].tolist() == ["a.png", "sub/b.png"]
    np.testing.assert_array_equal(table.labels, [[1], [np.nan]])  # empty is unknown here
    assert (
        table.reading and table.reading.aside["score"] == "numbers" and "0 and 1 alone" in table.reading.aside["sure"]
    )
    sure = read_table(tmp_path / "t.csv", label_columns=["nodule", "sure"])
    np.testing.assert_array_equal(sure.labels, [[1, 0], [np.nan, np.nan]])
    assert table.frame["patient"].tolist() == ["p1", "p2"]
    named = read_table(tmp_path / "t.csv", path_column="filename", patient_column="score", label_columns=["nodule"])
    assert named.label_names == ("nodule",) and named.frame["patient"].tolist() == ["0.5", "0.1"]


WRONG = {
    "there is no table": None,
    "is empty": "",
    "a header and no rows": HEADER + "\n",
    "no path column; it has id, x": "id,x\n1,0\n",
    "outside the image root": "path,patient_id\n../a.png,p\n",
    "outside the image root ": "path,patient_id\n/etc/passwd,p\n",
    "outside the image root  ": "path,patient_id\nC:\\a.png,p\n",
    "without a path": "path,patient_id\n ,p\n",
    "names 'a.png' twice": "path,patient_id\na.png,p\n./a.png,p\n",
    "no patient column, and none in the path 'a.png'": "path,x\na.png,1\n",
    "has no patient in column": "path,patient_id\na.png,\n",
    "a row of 3 cells under 2": "path,patient_id\na.png,p,q\n",
    "two columns of the name x": "path,x,x\na.png,1,1\n",
    "not UTF-8": b"path,patient_id\n\xff\xfe.png,p\n",
    "'2' is not 0, 1, -1 or empty": chexpert(("patient1/a.jpg", "2", "")),
    "line 2, column 'Edema': 'maybe' is not 0, 1": chexpert(("patient1/a.jpg", "maybe", "")),
    "'nan' is not 0, 1": chexpert(("patient1/a.jpg", "nan", "")),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_a_table_is_said(tmp_path, message):
    if WRONG[message] is not None:
        write(tmp_path, WRONG[message])
    with pytest.raises(MedSAEError, match=message.strip()):
        read_table(tmp_path / "t.csv")


def test_a_named_column_that_is_not_there_suggests_one(tmp_path):
    path = write(tmp_path, chexpert(*ROWS))
    with pytest.raises(MedSAEError, match="no label column 'Edeme'; did you mean 'Edema'"):
        read_table(path, label_columns=["Edeme"])
    with pytest.raises(MedSAEError, match="no patient column 'subject'"):
        read_table(path, patient_column="subject")
    with pytest.raises(MedSAEError, match=r"root .* is not a folder"):
        read_table(path, root=tmp_path / "absent")


def test_scanning_a_folder(tmp_path):
    for name in ("patient2/b.png", "patient1/a.JPG", "patient1/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    table = scan_folder(tmp_path)
    assert table.frame["path"].tolist() == ["patient1/a.JPG", "patient2/b.png"] and table.label_names == ()
    assert table.frame["patient"].tolist() == ["patient1", "patient2"]
    with pytest.raises(MedSAEError, match="holds no image"):
        (tmp_path / "none").mkdir()
        scan_folder(tmp_path / "none")


@pytest.mark.parametrize(("read", "in_place"), [(read_table, ["csv_path", "root"]), (scan_folder, ["root"])])
def test_options_are_given_by_name_alone(read, in_place):
    kinds = {name: parameter.kind for name, parameter in inspect.signature(read).parameters.items()}
    assert {name for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD} == set(in_place)
    assert set(kinds.values()) == {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


def test_the_content_hash_knows_images_and_splits_but_not_the_root(tmp_path):
    (tmp_path / "other").mkdir()
    one, two = (read_table(write(folder, chexpert(*ROWS))) for folder in (tmp_path, tmp_path / "other"))
    assert one.content_hash() == two.content_hash()
    hashes = {one.content_hash(), one.with_splits(["train", "train"]).content_hash()}
    for column, value in (("patient", "patient9"), ("path", "elsewhere.jpg"), ("image_id", 7)):
        frame = one.frame.copy()
        frame.loc[1, column] = value
        hashes.add(replace(one, frame=frame).content_hash())
    assert len(hashes) == 5, "each is of other images, patients or splits"


@settings(max_examples=80, deadline=None)
@given(
    patients=st.lists(st.integers(0, 60).map(lambda i: f"p{i}"), min_size=40, max_size=120),
    seed=st.integers(0, 5),
    shuffle=st.randoms(use_true_random=False),
)
def test_no_patient_is_in_two_splits_and_order_does_not_matter(patients, seed, shuffle):
    if len(set(patients)) < 3:
        return
    splits = split_by_patient(patients, seed=seed)
    of = dict(zip(patients, splits, strict=True))
    assert [of[p] for p in patients] == splits
    shuffled = patients.copy()
    shuffle.shuffle(shuffled)
    assert split_by_patient(shuffled, seed=seed) == [of[p] for p in shuffled]
    n, counts = len(of), Counter(of.values())
    for split, share in {"train": 0.7, "val": 0.1, "test": 0.2}.items():
        assert counts[split] >= 1 and abs(counts[split] - share * n) <= 1.5


def test_the_seed_matters_and_another_process_agrees():
    patients = [f"p{i}" for i in range(30)]
    assert split_by_patient(patients, seed=0) != split_by_patient(patients, seed=1)
    code = "from medsae_plugin.data.splits import *; print(split_by_patient([f'p{i}' for i in range(30)]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(split_by_patient(patients))


def test_splits_that_cannot_be_made_are_refused():
    with pytest.raises(MedSAEError, match="positive and add up to 1"):
        split_by_patient(["a", "b", "c"], {"train": 1.0, "val": -0.5})
    with pytest.raises(MedSAEError, match="add up to 1"):
        split_by_patient(["a", "b"], {"train": 0.5, "test": 0.6})
    with pytest.raises(MedSAEError, match="2 patients cannot be split into train, val, test"):
        split_by_patient(["a", "b", "b"])
    with pytest.raises(MedSAEError, match="has no patient"):
        split_by_patient(["a", ""])
    assert split_by_patient(["a", "b"], {"train": 1.0, "test": 0.0}) == ["train", "train"]


@pytest.mark.parametrize("n", [3, 4, 5, 9])
def test_no_split_that_is_asked_for_is_empty(n):
    for fractions in ({"train": 0.98, "val": 0.01, "test": 0.01}, {"val": 0.01, "test": 0.01, "train": 0.98}):
        assert set(split_by_patient([f"p{i}" for i in range(n)], fractions)) == {"train", "val", "test"}


def test_the_real_table(shared):
    table = read_table(shared / "realcxr" / "labels.csv")
    assert len(table) == 185 and table.frame["patient"].nunique() == 135
    assert table.labels[:, OBSERVATIONS.index("Pneumonia")].sum() == 163
    assert all(table.image_path(i).is_file() for i in range(185))


def test_some_rows_of_a_table_are_a_table(tmp_path):
    (tmp_path / "t.csv").write_text("path,patient,Edema,text\na.png,p1,1,wet\nb.png,p2,0,dry\nc.png,p1,,\n")
    table = read_table(tmp_path / "t.csv", report_column="text")
    some = table.take(np.array([2, 0]))
    assert some.frame["path"].tolist() == ["c.png", "a.png"] and some.frame["image_id"].tolist() == [0, 1]
    assert some.frame["report"].tolist() == ["", "wet"] and some.label_names == ("Edema",)
    np.testing.assert_array_equal(some.labels, [[np.nan], [1]])
    assert len(table) == 3 and list(some.frame) == list(table.frame)


def test_a_table_that_was_written_is_read_as_it_was(tmp_path):
    (tmp_path / "t.csv").write_text("path,patient,split,Edema\na.png,p1,test,1\nb.png,p2,train,\nc.png,p3,train,0\n")
    table = read_table(tmp_path / "t.csv")
    for k, one in enumerate((table, table.with_splits([""] * 3))):
        one.write(tmp_path / f"again{k}.csv")
        again = read_table(tmp_path / f"again{k}.csv")
        pd.testing.assert_frame_equal(again.frame, one.frame)
        np.testing.assert_array_equal(again.labels, one.labels)
        header = (tmp_path / f"again{k}.csv").read_text().splitlines()[0]
        assert header == ("path,patient,split,Edema" if k == 0 else "path,patient,Edema")
