"""What becomes a label, what its cells mean, and what is said of it."""

import numpy as np
import pytest

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.data.tables import OBSERVATIONS

UNKNOWN = np.nan


def read(folder, text, **options):
    (folder / "t.csv").write_text(text)
    return read_table(folder / "t.csv", **options)


def test_indices_folds_visits_and_covariates_are_no_findings(tmp_path):
    text = (
        ",path,patient,Follow-up #,fold,ImageDir,index,male,ap_view,smoker,Finding Labels,Nodule,score,empty\n"
        "0,a.png,1,0,0,0,0,1,1,0,Mass|Nodule,1,0.5,\n1,b.png,2,1,1,1,1,0,0,1,No Finding,0,0.7,\n"
    )
    table = read(tmp_path, text)
    assert table.label_names == ("Nodule",) and table.reading is not None
    aside = table.reading.aside
    for name in ("", "Follow-up #", "fold", "ImageDir", "index", "male", "ap_view", "smoker"):
        assert "0 and 1 alone" in aside[name]
    assert "which are not read" in aside["Finding Labels"] and aside["score"] == "numbers" and aside["empty"] == "empty"
    assert all(name in table.describe() for name in ("Follow-up #", "dialect plain", "Finding Labels", "2 images of 2"))
    assert read(tmp_path, text, label_columns=["male", "nodule"]).label_names == ("male", "Nodule")


@pytest.mark.parametrize(
    ("cells", "expected", "said"),
    [
        (("NA", "1"), [UNKNOWN, 1], "'NA' read as unknown in 1 cells"),
        (("nan", "1.0"), [UNKNOWN, 1], "'nan' read as unknown"),
        (("True", "False"), [1, 0], "'True' read as 1"),
        (("yes", "absent"), [1, 0], "'absent' read as 0"),
        (("u", "0"), [UNKNOWN, 0], "'u' read as -1, uncertain"),
        (("-1.0", " 1 "), [UNKNOWN, 1], ""),
        (("1,0", "-1,0"), [1, UNKNOWN], ""),
    ],
)
def test_words_for_labels_are_understood_and_said(tmp_path, cells, expected, said):
    table = read(tmp_path, f"path;patient;nodule;mass\na.png;1;{cells[0]};1\nb.png;2;{cells[1]};0\n")
    assert table.label_names == ("nodule", "mass")
    np.testing.assert_array_equal(table.labels[:, 0], expected)
    assert said in table.describe()


@pytest.mark.parametrize("cell", ["2", "0.5", "none", "left", "-2", "inf", "?"])
def test_a_cell_that_is_no_label_is_an_error_with_its_place(tmp_path, cell):
    with pytest.raises(MedSAEError, match=r"line 3, column 'nodule': .* is not 0, 1, -1 or empty.*--labels"):
        read(tmp_path, f"path,patient,nodule,mass\na.png,1,1,1\nb.png,2,{cell},0\n")


FIVE = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
HEADERS = {
    "cut": (["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"], ["Edema", "Fracture"], ""),
    "lower case": (["path", "sex", "age", "frontal/lateral", "ap/pa"], [name.lower() for name in OBSERVATIONS], ""),
    "underscores": (["Path"], [name.replace(" ", "_") for name in OBSERVATIONS], ""),
    "the five of the competition": (["Path"], FIVE, ""),
    "two, known by their paths": (["Path"], ["Edema", "Fracture"], "CheXpert-v1.0-small/train/"),
}


@pytest.mark.parametrize("header", HEADERS)
def test_chexpert_is_known_though_cut_or_renamed(tmp_path, header):
    about, labels, start = HEADERS[header]
    blank = [""] * (len(about) - 1)
    rows = [[f"{start}patient{i}/a.jpg", *blank, str(i), "", *"1" * (len(labels) - 2)] for i in range(2)]
    text = "\n".join(",".join(row) for row in ([*about, *labels], *rows))
    table = read(tmp_path, text)
    spelled = {name.casefold().replace("_", " ") for name in labels}
    assert table.label_names == tuple(name for name in OBSERVATIONS if name.casefold() in spelled)
    of = dict(zip(map(str.casefold, table.label_names), table.labels.T, strict=True))
    first, second = (of[name.casefold().replace("_", " ")] for name in labels[:2])
    assert first.tolist() == [0, 1] and second.tolist() == [0, 0]
    assert "dialect chexpert" in table.describe() and "an empty label is 0" in table.describe()
    assert "an empty label is unknown" in read(tmp_path, text, dialect="plain").describe()


def test_findings_that_other_data_sets_share_do_not_make_a_table_chexperts(tmp_path):
    names = "Atelectasis,Cardiomegaly,Consolidation,Edema,Pneumonia,Pneumothorax,Effusion,Mass,Infiltration"
    table = read(tmp_path, f"path,patient,{names}\na.png,1,1{',' * 8}\n")
    assert "dialect plain" in table.describe() and np.isnan(table.labels[0, 1:]).all()


def test_a_missing_word_where_empty_has_a_meaning_is_not_guessed(tmp_path):
    text = f"Path,{','.join(OBSERVATIONS)}\npatient1/a.jpg,nan{',' * 13}\n"
    with pytest.raises(MedSAEError, match=r"line 2, column 'No Finding': 'nan' .*--dialect plain"):
        read(tmp_path, text)
    filled = text.replace(",,", ",1,", 1)
    np.testing.assert_array_equal(read(tmp_path, filled, dialect="plain").labels, [[UNKNOWN, 1]])
    with pytest.raises(MedSAEError, match="no dialect 'mimic'; there are chexpert, plain"):
        read(tmp_path, text, dialect="mimic")


def test_two_columns_of_one_label_are_an_error(tmp_path):
    with pytest.raises(MedSAEError, match="'edema' and 'EDEMA' are both of the label 'Edema'"):
        read(tmp_path, "Path,Frontal/Lateral,AP/PA,edema,EDEMA\npatient1/a.jpg,x,y,1,0\n")


@pytest.mark.parametrize("cell", ["nan", "NA", "", "None"])
def test_no_patient_is_an_error(tmp_path, cell):
    with pytest.raises(MedSAEError, match=r"line 3: 'b\.png' has no patient in column 'patient'"):
        read(tmp_path, f"path,patient,nodule\na.png,1,1\nb.png,{cell},0\n")


def test_numbers_of_patients_are_one_whether_written_whole_or_not(tmp_path):
    table = read(tmp_path, "path,patient,nodule\na.png,12.0,1\nb.png,12,0\n")
    assert table.frame["patient"].tolist() == ["12", "12"] and "without their '.0'" in table.describe()


def test_ages_as_dicom_writes_them(tmp_path):
    table = read(
        tmp_path, "path,patient,Patient Age,nodule\na.png,1,058Y,1\nb.png,2,006M,0\nc.png,3,old,0\nd.png,4,61,1\n"
    )
    np.testing.assert_array_equal(table.frame["age"], [58, 0.5, np.nan, 61])
    assert "1 ages are not understood and left unknown, such as 'old'" in table.describe()
    table = read(tmp_path, "path,patient,Patient Age,nodule\na.png,1,-5,1\nb.png,2,6e1,0\nc.png,3,061Y,0\n")
    np.testing.assert_array_equal(table.frame["age"], [np.nan, 60, 61])
    assert "1 ages are none that a patient has, such as -5, and left unknown" in table.describe()
    table = read(tmp_path, "path,patient,Patient Age,nodule\na.png,1,-1,1\nb.png,2,121,0\nc.png,3,0,0\nd.png,4,120,0\n")
    np.testing.assert_array_equal(table.frame["age"], [np.nan, np.nan, 0, 120])
    table = read(tmp_path, 'path,patient,Patient Age,nodule\na.png,1,"60,5",1\nb.png,2,"1,5Y",0\n')
    np.testing.assert_array_equal(table.frame["age"], [60.5, 1.5])
    table = read(tmp_path, "path,patient,Patient Age,nodule\na.png,1,052W,1\nb.png,2,100D,0\nc.png,3,018m,0\n")
    np.testing.assert_allclose(table.frame["age"].astype(float), [52 * 7 / 365.25, 100 / 365.25, 1.5])


def test_the_tables_own_split_is_read_and_said(tmp_path):
    body = "a.png,1,1,{0}\nb.png,2,0,{1}\nc.png,3,0,{2}\n"
    rows = body.format("train", "validate", "Test")
    table = read(tmp_path, "path,patient,nodule,split\n" + rows)
    assert table.frame["split"].tolist() == ["train", "val", "test"]
    assert "split: column split (train 1, val 1, test 1)" in table.describe()
    assert read(tmp_path, "path,patient,nodule,Set Id\n" + rows).frame["split"].tolist() == ["train", "val", "test"]
    folds = "path,patient,nodule,split\n" + body.format("0", "1", "2")
    assert (
        read(tmp_path, folds).frame["split"].tolist() == ["", "", ""]
        and "split: numbers" in read(tmp_path, folds).describe()
    )
    assert read(tmp_path, folds, split_column="split").frame["split"].tolist() == ["0", "1", "2"]
    two = "path,patient,nodule,set,phase\n" + body.format("train,test", "test,train", "test,test")
    with pytest.raises(MedSAEError, match="'set', 'phase' each name splits; say which with --split-column"):
        read(tmp_path, two)
    rows = "a.png,1,1,train\nb.png,1,0,test\nc.png,2,0,train\nd.png,2,0,test\ne.png,3,0,test\n"
    same = read(tmp_path, f"path,patient,nodule,split\n{rows}")
    assert "2 patients are in more than one split, such as '1'" in same.describe()


def test_names_that_a_terminal_may_not_show_are_quoted(tmp_path):
    table = read(tmp_path, "path,patient,nodule,\x1b[31mred\na.png,1,1,x\n")
    assert "\x1b" not in table.describe() and "'\\x1b[31mred'" in table.describe()
