"""Whole tables as they were published, read and counted by pandas beside. None is in the repository.

MEDSAE_TABLES names a folder that holds them by the names that torchxrayvision's wheel has them under
(`pip download --no-deps torchxrayvision`, `torchxrayvision/data`).
"""

import ast
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from helpers.published import published

from medsae_plugin import read_table


def ones(table):
    return dict(zip(table.label_names, (table.labels == 1).sum(0).tolist(), strict=True))


def test_nih_as_published_without_an_option(shared):
    table = read_table(shared / "nih1000" / "Data_Entry.csv")
    assert (len(table), table.frame["patient"].nunique(), len(table.label_names)) == (654, 184, 15)
    assert {"No Finding", "Effusion"} <= set(table.label_names)
    assert (ones(table)["Effusion"], ones(table)["No Finding"]) == (134, 322)
    assert {"sex", "age", "projection"} <= set(table.covariates)
    assert all((table.root / path).is_file() for path in table.frame["path"])


@pytest.mark.parametrize("name", ["Data_Entry_2017_v2020.csv.gz", "google2019_nih-chest-xray-labels.csv.gz"])
def test_nih(name):
    table, frame = read_table(published(name)), pd.read_csv(published(name))
    assert len(table) == len(frame) and table.frame["patient"].nunique() == frame["Patient ID"].nunique()
    expected = Counter(finding for cell in frame["Finding Labels"] for finding in cell.split("|"))
    own = [column for column in ("Fracture", "Pneumothorax", "Airspace opacity", "Nodule or mass") if column in frame]
    expected |= {column: int((frame[column] == "YES").sum()) for column in own}
    assert ones(table) == {label: expected.get(label, 0) for label in table.label_names}
    assert set(expected) <= set(table.label_names)
    assert table.covariates["projection"].value_counts().to_dict() == frame["View Position"].value_counts().to_dict()
    if own:
        assert table.frame["split"].value_counts().to_dict() == frame["Set Id"].value_counts().to_dict()


def test_chexpert():
    path = published("chexpert_train.csv.gz")
    table, frame = read_table(path), pd.read_csv(path)
    assert len(table) == len(frame) == 223414
    assert table.frame["patient"].nunique() == frame["Path"].str.extract(r"(patient\d+)")[0].nunique()
    for k, label in enumerate(table.label_names):
        cells, values = frame[label], table.labels[:, k]
        assert (values == 1).sum() == (cells == 1).sum() and np.isnan(values).sum() == (cells == -1).sum()
        assert (values == 0).sum() == (cells == 0).sum() + cells.isna().sum()


def test_padchest():
    path = published("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz")
    table, frame = read_table(path), pd.read_csv(path, low_memory=False)
    assert len(table) == len(frame) == 160861 and table.frame["patient"].nunique() == frame["PatientID"].nunique()
    lists = [[] if cell != cell else [x.strip() for x in ast.literal_eval(cell)] for cell in frame["Labels"]]
    expected = Counter(finding for found in lists for finding in set(found))
    aside = {"", "exclude", "unchanged"}
    assert ones(table) == {finding: n for finding, n in expected.items() if finding not in aside}
    silent = [not set(found) - {""} for found in lists]
    open_ended = [bool(set(found) & {"exclude", "unchanged"}) for found in lists]
    k = table.label_names.index("cardiomegaly")
    unknown = [s or (o and "cardiomegaly" not in f) for s, o, f in zip(silent, open_ended, lists, strict=True)]
    np.testing.assert_array_equal(np.isnan(table.labels[:, k]), unknown)
    assert table.covariates["projection"].value_counts().to_dict() == frame["Projection"].value_counts().to_dict()


@pytest.mark.parametrize("readers", ["majority", "any", "all"])
def test_vindr(readers):
    path = published("vinbigdata-train.csv.gz")
    table, frame = read_table(path, readers=readers), pd.read_csv(path)
    votes = frame.groupby(["image_id", "class_name"])["rad_id"].nunique().unstack(fill_value=0)
    least = {"majority": 2, "any": 1, "all": 3}[readers]
    assert ones(table) == (votes >= least).sum().to_dict() and len(table) == 15000


def test_rsna():
    path = published("kaggle_stage_2_train_labels.csv.zip")
    table, frame = read_table(path), pd.read_csv(path)
    assert len(table) == frame["patientId"].nunique()
    assert ones(table)["Lung Opacity"] == frame.groupby("patientId")["Target"].max().sum()
    headers = pd.read_csv(published("kaggle_stage_2_train_images_dicom_headers.csv.gz"))
    assert table.covariates["projection"].value_counts().to_dict() == headers["ViewPosition"].value_counts().to_dict()


def test_siim():
    path = published("siim-pneumothorax-train-rle.csv.gz")
    table, frame = read_table(path), pd.read_csv(path, skipinitialspace=True)
    masks = (frame["EncodedPixels"].str.strip() != "-1").groupby(frame["ImageId"]).any()
    assert len(table) == len(masks) and ones(table) == {"Pneumothorax": int(masks.sum())}


def test_openi():
    path = published("nlmcxr_dicom_metadata.csv.gz")
    table, frame = read_table(path), pd.read_csv(path, low_memory=False)
    assert len(table) == len(frame) and table.frame["patient"].nunique() == frame["Patient ID"].nunique()
    expected: Counter[str] = Counter()
    images = set(frame["imageid"])
    with tarfile.open(published("NLMCXR_reports.tgz")) as archive:
        for member in archive:
            if not member.name.endswith(".xml"):
                continue
            report = ElementTree.parse(archive.extractfile(member))  # type: ignore[arg-type]
            heads = {" ".join((heading.text or "").split("/")[0].split()) for heading in report.iter("major")}
            shown = sum(image.attrib["id"] in images for image in report.iter("parentImage"))
            expected.update({head: shown for head in heads})
    assert ones(table) == {label: expected[label] for label in table.label_names}
    assert table.label_names and expected["normal"] > 2000
