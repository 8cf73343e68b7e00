"""Tables of published data sets, as they are published: labels, patients, covariates, paths, official splits."""

import gzip
import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest
from helpers.pictures import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.data.tables import OBSERVATIONS

NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
    "00000001_000.png,Cardiomegaly|Effusion,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n"
    "00000001_001.png,No Finding,1,1,058Y,M,AP,2682,2749,0.143,0.143,\n"
    "00000002_000.png,Pleural_Thickening,0,2,081Y,F,PA,2500,2048,0.168,0.168,\n"
)


def write(folder, name, text):
    content = text.encode()
    (folder / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    return folder / name


def column(table, label):
    return table.labels[:, table.label_names.index(label)].tolist()


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn(most=255).astype(np.uint8)).save(path)


def test_nih_lists_findings_with_bars(tmp_path):
    table = read_table(write(tmp_path, "Data_Entry_2017.csv", NIH))
    assert (
        len(table.label_names) == 15 and "dialect nih (its columns Image Index and Finding Labels)" in table.describe()
    )
    assert column(table, "Cardiomegaly") == column(table, "Effusion") == [1, 0, 0]
    assert column(table, "No Finding") == [0, 1, 0] and column(table, "Pleural_Thickening") == [0, 0, 1]
    assert np.nansum(table.labels) == 4 and not np.isnan(table.labels).any()
    assert table.frame["patient"].tolist() == ["1", "1", "2"]
    assert table.covariates.to_dict("list") == {
        "sex": ["M", "M", "F"],
        "age": [58, 58, 81],
        "view": ["Frontal"] * 3,
        "projection": ["PA", "AP", "PA"],
    }
    assert table.reading is not None and "Finding Labels" not in table.reading.aside


def test_nihs_images_are_found_in_its_twelve_folders_and_its_lists_are_the_split(tmp_path):
    path = write(tmp_path, "Data_Entry_2017.csv", NIH)
    picture(tmp_path / "images_001" / "images" / "00000001_000.png")
    picture(tmp_path / "images_002" / "images" / "00000002_000.png")
    write(tmp_path, "train_val_list.txt", "00000001_000.png\n00000001_001.png\n00000009_000.png\n")
    write(tmp_path, "test_list.txt", "00000002_000.png\r\n")
    table = read_table(path)
    assert table.frame["path"].tolist() == [
        "images_001/images/00000001_000.png",
        "00000001_001.png",
        "images_002/images/00000002_000.png",
    ]
    assert table.frame["split"].tolist() == ["train", "train", "test"]
    assert (
        "found by the files' names" in table.describe() and "1 of the 3 lines of train_val_list.txt" in table.describe()
    )
    # Where the images are elsewhere, the paths are those of the store.
    known = ["x/00000001_000.png", "y/00000001_001.png", "z/00000002_000.png"]
    (tmp_path / "elsewhere").mkdir()
    assert read_table(path, tmp_path / "elsewhere", known_paths=known).frame["path"].tolist() == known
    picture(tmp_path / "copy" / "00000001_000.png")
    with pytest.raises(MedSAEError, match=r"'00000001_000' is in copy/.* and in images_001/.*--root"):
        read_table(path)


def test_a_word_that_is_no_finding_of_nihs_is_an_error(tmp_path):
    path = write(tmp_path, "t.csv", NIH.replace("|Effusion", "|Efusion"))
    with pytest.raises(MedSAEError, match="line 2, column 'Finding Labels': 'Efusion' is no finding of NIH's"):
        read_table(path)
    empty = read_table(write(tmp_path, "t.csv", NIH.replace("No Finding", "")))
    assert np.isnan(empty.labels[1]).all() and "1 cells of 'Finding Labels' are empty" in empty.describe()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sets(st.sampled_from(["Mass", "Nodule", "Hernia", "Pneumonia", "Edema"]), min_size=1), min_size=1, max_size=9
    )
)
def test_nihs_labels_are_the_sets_that_were_written(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("nih")
    lines = [f"{i:08d}_000.png,{'|'.join(sorted(found))},{i}" for i, found in enumerate(rows)]
    path = write(folder, "t.csv", "\n".join(["Image Index,Finding Labels,Patient ID", *lines]) + "\n")
    table = read_table(path)
    names = np.array(table.label_names)
    assert [set(names[row == 1]) for row in table.labels] == [set(found) for found in rows]


def test_labels_by_chexperts_names(tmp_path):
    path = write(tmp_path, "t.csv", NIH)
    table = read_table(path, chexpert_names=True)
    assert column(table, "Pleural Effusion") == [1, 0, 0] and "Effusion" not in table.label_names
    assert "by CheXpert's names: 'Effusion' as 'Pleural Effusion'" in table.describe()
    assert "Effusion" in read_table(path).label_names
    both = "path,patient,Effusion,Pleural effusion\na.png,1,1,0\n"
    with pytest.raises(MedSAEError, match="'Effusion', 'Pleural effusion' are all CheXpert's 'Pleural Effusion'"):
        read_table(write(tmp_path, "both.csv", both), chexpert_names=True)


MIMIC = {
    "mimic-cxr-2.0.0-metadata.csv.gz": "dicom_id,subject_id,study_id,ViewPosition,Rows\n"
    "aa-1,10000032,50414267,PA,3056\nbb-2,10000032,50414267,LATERAL,3056\ncc-3,10000764,57375967,AP,3056\n"
    "dd-4,11000000,59999999,,3056\n",
    "mimic-cxr-2.0.0-split.csv.gz": "dicom_id,study_id,subject_id,split\n"
    "aa-1,50414267,10000032,train\nbb-2,50414267,10000032,train\ncc-3,57375967,10000764,validate\n",
    "mimic-cxr-2.0.0-chexpert.csv.gz": "subject_id,study_id,Atelectasis,Edema,No Finding\n"
    "10000032,50414267,1.0,-1.0,\n10000764,57375967,,0.0,\n10000764,11111111,1.0,,\n",
    "mimic-cxr-2.0.0-negbio.csv.gz": "subject_id,study_id,Atelectasis\n10000032,50414267,0.0\n10000764,57375967,1.0\n",
}


@pytest.mark.parametrize("named", [*MIMIC])
def test_mimics_files_are_joined_whichever_is_named(tmp_path, named):
    for name, text in MIMIC.items():
        write(tmp_path, name, text)
    table = read_table(tmp_path / named)
    assert table.frame["path"].tolist() == [
        "files/p10/p10000032/s50414267/aa-1.jpg",
        "files/p10/p10000032/s50414267/bb-2.jpg",
        "files/p10/p10000764/s57375967/cc-3.jpg",
        "files/p11/p11000000/s59999999/dd-4.jpg",
    ]
    assert table.frame["patient"].tolist() == ["10000032", "10000032", "10000764", "11000000"]
    assert table.frame["split"].tolist() == ["train", "train", "val", ""]
    assert table.covariates["projection"].tolist() == ["PA", "LATERAL", "AP", ""]
    assert table.covariates["view"].tolist() == ["Frontal", "Lateral", "Frontal", ""]
    said = table.describe()
    assert "dialect mimic-cxr" in said and "1 images are of studies without labels" in said
    if "negbio" in named:
        np.testing.assert_array_equal(table.labels[:, 0], [0, 0, 1, np.nan])
        return
    assert table.label_names == ("No Finding", "Edema", "Atelectasis")
    np.testing.assert_array_equal(column(table, "Atelectasis"), [1, 1, 0, np.nan])
    np.testing.assert_array_equal(column(table, "Edema"), [np.nan, np.nan, 0, np.nan])
    assert column(read_table(tmp_path / named, uncertain="ones"), "Edema")[:2] == [1, 1]
    assert "1 studies of mimic-cxr-2.0.0-chexpert.csv.gz have no image" in said


def test_mimics_images_of_other_formats_are_found(tmp_path):
    for name, text in MIMIC.items():
        write(tmp_path, name, text)
    folder = tmp_path / "files" / "p10" / "p10000032" / "s50414267"
    picture(folder / "aa-1.png")
    labels = tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz"
    assert read_table(labels).frame["path"][0].endswith("s50414267/aa-1.png")
    picture(folder / "aa-1.jpg")
    assert read_table(labels).frame["path"][0].endswith("aa-1.jpg")
    assert read_table(labels, image_format="png").frame["path"][0].endswith("aa-1.png")


def test_mimics_labels_alone_say_what_is_missing(tmp_path):
    path = write(tmp_path, "mimic-cxr-2.0.0-chexpert.csv", MIMIC["mimic-cxr-2.0.0-chexpert.csv.gz"])
    with pytest.raises(MedSAEError, match=r"are named in mimic-cxr-2\.0\.0-metadata\.csv\.gz, which is not beside it"):
        read_table(path)
    with pytest.raises(MedSAEError, match="a name that does not say which of its files it is"):
        read_table(path.rename(tmp_path / "labels.csv"))


def padchest(*rows):
    head = "ImageID,ImageDir,StudyDate_DICOM,PatientID,PatientBirth,PatientSex_DICOM,Projection,Report,Labels"
    lines = [f"{i}.png,{i},20150914,{p},1929.0,M,{view},cifosi,{labels}" for i, (p, view, labels) in enumerate(rows)]
    return "\n".join([head, *lines]) + "\n"


def test_padchests_lists_of_findings(tmp_path):
    rows = [
        ("7", "PA", "\"['cardiomegaly', ' pneumonia', '']\""),
        ("7", "L", "['normal']"),
        ("8", "AP_horizontal", "['unchanged']"),
        ("9", "COSTAL", ""),
        ("9", "PA", "\"['pneumonia', 'exclude']\""),
        ("10", "PA", "['']"),
    ]
    table = read_table(write(tmp_path, "PADCHEST.csv.gz", padchest(*rows)), report_column="Report")
    assert table.label_names == ("cardiomegaly", "normal", "pneumonia")
    nan = np.nan
    expected = [[1, 0, 1], [0, 1, 0], [nan, nan, nan], [nan, nan, nan], [nan, nan, 1], [nan, nan, nan]]
    np.testing.assert_array_equal(table.labels, expected)
    assert table.frame["path"].tolist() == [f"{i}/{i}.png" for i in range(6)]
    assert table.frame["patient"].tolist() == ["7", "7", "8", "9", "9", "10"]
    assert table.frame["age"].tolist() == [86] * 6 and table.frame["report"][0] == "cifosi"
    assert table.covariates["view"].tolist() == ["Frontal", "Lateral", "Frontal", "", "Frontal", "Frontal"]
    said = table.describe()
    assert "2 images have no list of findings" in said and "1 images are called 'unchanged'" in said
    picture(tmp_path / "flat" / "3.png")
    assert read_table(tmp_path / "PADCHEST.csv.gz", tmp_path / "flat").frame["path"][3] == "3.png"
    with pytest.raises(MedSAEError, match="line 2: 'cardiomegaly' is no list of findings"):
        read_table(write(tmp_path, "bad.csv", padchest(("7", "PA", "cardiomegaly"))))


# Of image a three readers, one of whom draws two boxes of one finding; of b two.
BOXES = """image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max
a,Cardiomegaly,3,R1,1,1,9,9
a,Cardiomegaly,3,R1,2,2,9,9
a,Cardiomegaly,3,R2,1,1,9,9
a,Nodule/Mass,8,R3,1,1,9,9
b,No finding,14,R1,,,,
b,Cardiomegaly,3,R2,1,1,9,9
"""


@pytest.mark.parametrize(
    ("readers", "heart", "nodule", "none"),
    [
        ("majority", [1, np.nan], [0, 0], [0, np.nan]),
        ("any", [1, 1], [1, 0], [0, 1]),
        ("all", [0, 0], [0, 0], [0, 0]),
    ],
)
def test_vindrs_readers_are_made_one(tmp_path, readers, heart, nodule, none):
    table = read_table(write(tmp_path, "train.csv", BOXES), readers=readers)
    np.testing.assert_array_equal(column(table, "Cardiomegaly"), heart)
    np.testing.assert_array_equal(column(table, "Nodule/Mass"), nodule)
    np.testing.assert_array_equal(column(table, "No finding"), none)
    assert table.frame["path"].tolist() == ["a.dicom", "b.dicom"] and table.frame["patient"].nunique() == 2
    assert "VinDr-CXR tells no patients" in table.describe() and "5 readings" in table.describe()


def test_vindrs_agreement_is_fleiss_kappa(tmp_path):
    from statsmodels.stats.inter_rater import fleiss_kappa

    rng = np.random.default_rng(0)
    truth = rng.random((60, 2)) < 0.3
    said = truth[:, None] ^ (rng.random((60, 3, 2)) < 0.15)
    lines = [f"{i:03d},R{r},{int(said[i, r, 0])},{int(said[i, r, 1])}" for i in rng.permutation(60) for r in range(3)]
    table = read_table(write(tmp_path, "t.csv", "\n".join(["image_id,rad_id,Edema,Aortic enlargement", *lines]) + "\n"))
    votes = said.sum(1)
    order = [int(path[:3]) for path in table.frame["path"]]
    np.testing.assert_array_equal(table.labels, (votes >= 2)[order])
    assert table.reading is not None
    for k, label in enumerate(("Edema", "Aortic enlargement")):
        expected = fleiss_kappa(np.stack([3 - votes[:, k], votes[:, k]], 1))
        assert float(table.reading.beside["kappa"][label]) == pytest.approx(expected, abs=0.0051)
        alike = ((votes[:, k] == 0) | (votes[:, k] == 3)).mean()
        assert table.reading.beside["alike"][label] == f"{alike:.1%}"
    assert "kappa" in table.describe()


def test_vindrs_test_table_has_a_row_an_image(tmp_path):
    table = read_table(write(tmp_path, "test.csv", "image_id,Aortic enlargement,No finding\na,1,0\nb,0,1\n"))
    assert "dialect vindr" in table.describe() and table.labels.tolist() == [[1, 0], [0, 1]]


def test_rsnas_boxes_are_one_row_an_image_with_what_lies_beside(tmp_path):
    text = "patientId,x,y,width,height,Target\na,1,2,3,4,1\na,5,6,7,8,1\nb,,,,,0\nc,,,,,0\n"
    write(tmp_path, "stage_2_detailed_class_info.csv", "patientId,class\na,Lung Opacity\nb,Normal\nc,No Lung Opacity\n")
    write(
        tmp_path,
        "dicom_headers.csv",
        "PatientID,PatientSex,PatientAge,ViewPosition\na,F,43,AP\nb,M,155,PA\nc,M,7,PA\n",
    )
    table = read_table(write(tmp_path, "stage_2_train_labels.csv", text))
    assert table.label_names == ("Lung Opacity", "Normal") and table.labels.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert table.frame["path"].tolist() == ["a.dcm", "b.dcm", "c.dcm"]
    np.testing.assert_array_equal(table.frame["age"], [43, np.nan, 7])
    assert table.covariates["view"].tolist() == ["Frontal"] * 3
    assert "1 ages are none that a patient has, such as 155" in table.describe()


def test_siims_masks_are_one_row_an_image(tmp_path):
    text = "ImageId, EncodedPixels\n1.2.840.1,-1\n1.2.840.2, 5 2 7 1\n1.2.840.2, 9 9\n"
    picture(tmp_path / "study" / "series" / "1.2.840.2.png")
    table = read_table(write(tmp_path, "train-rle.csv", text))
    assert table.label_names == ("Pneumothorax",) and table.labels.tolist() == [[0], [1]]
    assert table.frame["path"].tolist() == ["1.2.840.1.dcm", "study/series/1.2.840.2.png"]


def openi_report(uid, images, *headings):
    mesh = "".join(f"<major>{heading}</major>" for heading in headings)
    shown = "".join(f'<parentImage id="{image}"/>' for image in images)
    return f'<eCitation><uId id="{uid}"/><MeSH>{mesh}</MeSH>{shown}</eCitation>'.encode()


def test_openis_findings_are_mesh_headings_of_the_reports(tmp_path):
    reports = {
        "1": openi_report(
            "CXR1", ["CXR1_1", "CXR1_2"], "Opacity/lung/upper lobe", "Lung/hypoinflation", "Cardiomegaly"
        ),
        "2": openi_report("CXR2", ["CXR2_1"], "normal"),
        "3": openi_report("CXR3", ["CXR3_1"], "No Indexing"),
    }
    with tarfile.open(tmp_path / "NLMCXR_reports.tgz", "w:gz") as archive:
        for name, content in reports.items():
            info = tarfile.TarInfo(f"ecgen-radiology/{name}.xml")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    rows = [
        ("CXR1_1", "1", "PA"),
        ("CXR1_2", "1", "LL"),
        ("CXR2_1", "2", ""),
        ("CXR3_1", "3", "PA"),
        ("CXR4_1", "4", ""),
    ]
    text = "imageid,Accession Number,Patient ID,View Position,Manufacturer\n"
    path = write(tmp_path, "nlmcxr.csv", text + "".join(f"{i},0,{p},{v},\n" for i, p, v in rows))
    table = read_table(path)
    assert table.label_names == ("Cardiomegaly", "Opacity", "normal")
    nan = [np.nan] * 3
    np.testing.assert_array_equal(table.labels, [[1, 1, 0], [1, 1, 0], [0, 0, 1], nan, nan])
    assert table.frame["path"].tolist() == [f"{image}.png" for image, _, _ in rows]
    assert table.covariates.to_dict("list") == {
        "view": ["Frontal", "Lateral", "", "Frontal", ""],
        "projection": ["PA", "LL", "", "PA", ""],
    }
    assert "such as Lung 2" in table.describe() and "2 images have no report" in table.describe()
    (tmp_path / "NLMCXR_reports.tgz").unlink()
    assert "put NLMCXR_reports.tgz" in read_table(path).describe()


@pytest.mark.parametrize("named", ["indiana_projections.csv", "indiana_reports.csv"])
def test_openis_copy_at_kaggle(tmp_path, named):
    write(
        tmp_path, "indiana_projections.csv", "uid,filename,projection\n1,1_a.dcm.png,Frontal\n1,1_b.dcm.png,Lateral\n"
    )
    write(tmp_path, "indiana_reports.csv", "uid,MeSH,Problems,findings\n1,Cardiomegaly/borderline;Aorta/tortuous,x,y\n")
    table = read_table(tmp_path / named)
    assert table.label_names == ("Cardiomegaly",) and table.labels.tolist() == [[1], [1]]
    assert table.frame["path"].tolist() == ["1_a.dcm.png", "1_b.dcm.png"]
    assert table.frame["patient"].tolist() == ["1", "1"]


def test_chexpert_plus_with_its_labels_and_either_kind_of_image(tmp_path):
    stem = "train/patient00001/study1/view1_frontal"
    text = "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,report,sex,age\n"
    path = write(
        tmp_path,
        "df_chexpert_plus.csv",
        f'{text}{stem}.jpg,{stem}.dcm,Frontal,AP,patient00001,"a\n""b""",Female,68.0\n',
    )
    plain = read_table(path)
    assert "dialect chexpert (CheXpert Plus" in plain.describe() and "labels in files of their own" in plain.describe()
    assert plain.frame["patient"].tolist() == ["patient00001"] and plain.frame["path"].tolist() == [f"{stem}.jpg"]
    assert plain.covariates.iloc[0].tolist() == ["Female", 68, "Frontal", "AP"]
    labels = {"path_to_image": f"{stem}.jpg", "Edema": 1.0, "Fracture": -1.0, "Pneumonia": None}
    write(tmp_path, "report_fixed.json", json.dumps(labels) + "\n")
    table = read_table(path)
    assert table.label_names == OBSERVATIONS and column(table, "Edema") == [1]
    assert column(table, "Pneumonia") == [0] and np.isnan(column(table, "Fracture")).all()
    picture(tmp_path / "PNG" / f"{stem}.png")
    assert read_table(path, image_format="png").frame["path"].tolist() == [f"PNG/{stem}.png"]
    assert read_table(path, image_format="dicom").frame["path"].tolist() == [f"{stem}.dcm"]
    write(tmp_path, "report_fixed.json", json.dumps(labels | {"Edema": 2}))
    with pytest.raises(MedSAEError, match="a label is '2', which is not 0, 1, -1 or null"):
        read_table(path)


def test_splits_by_lists_that_are_named(tmp_path):
    table = write(tmp_path, "t.csv", "path,patient,nodule\na/1.png,1,1\nb/1.png,2,0\nb/2.png,3,0\n")
    lists = {"training": write(tmp_path, "l1", "a/1\n"), "test": write(tmp_path, "l2", "2.png\n")}
    read = read_table(table, split_files=lists)
    assert read.frame["split"].tolist() == ["train", "", "test"] and "none 1" in read.describe()
    cases = {
        "1.png\n": "'1.png' is the end of 2 images' paths",
        "9.png\n": "none of its 1 lines, such as '9.png', is an image of the table",
        "a/1.png\n": "'a/1.png' is in the lists of 'train' and of 'test'",
        "": "is a list of images, and empty",
    }
    for text, said in cases.items():
        with pytest.raises(MedSAEError, match=said):
            read_table(table, split_files=lists | {"test": write(tmp_path, "l2", text)})
    with pytest.raises(MedSAEError, match="cannot be read as a list of images"):
        read_table(table, split_files={"test": tmp_path / "absent.txt"})
    with pytest.raises(MedSAEError, match="give either the column of the split or files"):
        read_table(table, split_files=lists, split_column="nodule")


def test_a_table_written_as_it_was_understood_is_read_as_that(tmp_path):
    table = read_table(write(tmp_path, "t.csv", padchest(("7", "PA", "['normal']"), ("8", "L", "['unchanged']"))))
    table.write(tmp_path / "out.csv")
    again = read_table(tmp_path / "out.csv", label_columns=["normal"])
    np.testing.assert_array_equal(again.labels, table.labels)
    pd.testing.assert_frame_equal(again.covariates, table.covariates)
    assert again.frame["path"].tolist() == table.frame["path"].tolist()
