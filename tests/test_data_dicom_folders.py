"""Folders of DICOM files as an archive gives them."""

import numpy as np
import pydicom
import pytest
from helpers.pictures import drawn
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.data.dicom_folders import scan_dicom
from medsae_plugin.data.images import read_image


def write(path, pixels=None, **tags):
    """A radiograph whose header says what `tags` do; None takes a tag away."""
    data = Dataset()
    defaults = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "PatientID": "MRN4711",
        "PatientName": "Doe^Jane",
        "PatientSex": "F",
        "PatientAge": "058Y",
        "PatientBirthDate": "19500102",
        "StudyDate": "20100101",
        "AccessionNumber": "ACC99",
        "Modality": "DX",
        "ViewPosition": "PA",
        "Manufacturer": "Maker",
        "InstitutionName": "Ward 3",
        "SeriesDescription": "Chest PA",
    }
    pixels = drawn() if pixels is None else pixels
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = pixels.astype("<u2").tobytes()
    for name, value in (defaults | tags).items():
        if value is not None:
            setattr(data, name, value)
        elif name in data:
            delattr(data, name)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return data


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / "export"
    first = write(root / "0001" / "a" / "IM01", StudyInstanceUID="1.1")
    write(root / "0001" / "a" / "IM02", StudyInstanceUID="1.1", ViewPosition="LL", ImageLaterality="L")
    write(
        root / "0002" / "IM01.dcm",
        PatientID="MRN4712",
        PatientName="Roe^Richard",
        PatientSex="M",
        PatientAge=None,
        StudyInstanceUID="1.2",
        ViewPosition="AP",
        SeriesDescription="Chest mobile",
        Laterality="R",
        Manufacturer="Other",
        InstitutionName="",
    )
    write(root / "0003" / "IM01", PatientID="MRN4713", PatientAge="094Y", Modality="CR", StudyInstanceUID="1.3")
    write(root / "x" / "again", SOPInstanceUID=first.SOPInstanceUID)
    write(root / "x" / "ct", Modality="CT")
    write(root / "x" / "report", Modality="SR", Rows=None, Columns=None, PixelData=None)
    write(root / "x" / "cine", NumberOfFrames=3)
    write(root / "x" / "nobody", PatientID="")
    (root / "x" / "readme.txt").write_text("no image")
    (root / "DICOMDIR").write_bytes(b"\0" * 200)
    return root


def test_radiographs_with_what_their_headers_say(archive):
    table = scan_dicom(archive, salt="s")
    assert table.frame["path"].tolist() == ["0001/a/IM01", "0001/a/IM02", "0002/IM01.dcm", "0003/IM01"]
    patients = table.frame["patient"]
    assert patients[0] == patients[1] and patients.nunique() == 3 and "MRN" not in "".join(patients)
    covariates = table.covariates
    assert covariates["sex"].tolist() == ["F", "F", "M", "F"]
    assert covariates["age"].tolist() == [58, 58, 59, 90]  # the second patient's birthday is on the day after the study
    assert covariates["projection"].tolist() == ["PA", "LL", "AP", "PA"]
    assert covariates["view"].tolist() == ["Frontal", "Lateral", "Frontal", "Frontal"]
    assert covariates["laterality"].tolist() == ["", "L", "R", ""]
    assert covariates["device"].tolist() == ["Maker", "Maker", "Other", "Maker"]
    assert covariates["site"].tolist() == ["Ward 3", "Ward 3", "", "Ward 3"]
    said = table.describe()
    for part in (
        "4 images of 3 studies",
        "1 files left aside: modality CT",
        "1 files left aside: no image (SR)",
        "1 files left aside: several frames",
        "1 files left aside: no Patient ID",
        "1 files left aside: the same image again",
        "1 files left aside: no DICOM file",
        "1 files left aside: a DICOMDIR",
    ):
        assert part in said
    assert np.asarray(read_image(table.image_path(0))).shape == drawn().shape


def test_pseudonyms_depend_on_the_salt_alone(archive, tmp_path, monkeypatch):
    one, other = (scan_dicom(archive, salt=salt).frame["patient"].tolist() for salt in ("s", "t"))
    assert one == scan_dicom(archive, salt="s", workers=1).frame["patient"].tolist() and not set(one) & set(other)
    monkeypatch.delenv("MEDSAE_SALT", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    drawn_salt = scan_dicom(archive).frame["patient"].tolist()
    assert drawn_salt == scan_dicom(archive).frame["patient"].tolist() and drawn_salt not in (one, other)
    assert (tmp_path / "config" / "medsae" / "salt").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("MEDSAE_SALT", "s")
    assert scan_dicom(archive).frame["patient"].tolist() == one
    kept = scan_dicom(archive, keep_ids=True)
    assert kept.frame["patient"].tolist() == ["MRN4711", "MRN4711", "MRN4712", "MRN4713"]
    assert kept.frame["age"].tolist() == [58, 58, 59, 94]


def test_series_by_their_description(archive):
    assert scan_dicom(archive, salt="s", series_description="MOBILE").frame["path"].tolist() == ["0002/IM01.dcm"]
    with pytest.raises(MedSAEError, match=r"holds no radiograph in DICOM; .*another series description"):
        scan_dicom(archive, salt="s", series_description="abdomen")
    with pytest.raises(MedSAEError, match=r"'\(' is no regular expression"):
        scan_dicom(archive, salt="s", series_description="(")


@pytest.mark.parametrize("name", ["MRN4711/IM", "doe_jane/IM", "b19500102/IM", "export-ACC99.dcm"])
def test_paths_that_tell_who_it_is_are_refused(tmp_path, name):
    write(tmp_path / "e" / name)
    with pytest.raises(MedSAEError, match="1 of 1 paths hold their patient's name, ID") as caught:
        scan_dicom(tmp_path / "e", salt="s")
    assert "4711" not in str(caught.value) and "Jane" not in str(caught.value)
    assert scan_dicom(tmp_path / "e", keep_ids=True).frame["patient"].tolist() == ["MRN4711"]


def test_nothing_that_the_commands_write_or_print_tells_who_it_is(archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MEDSAE_SALT", "s")
    tags = ["--images", str(archive), "--dicom-tags", "--workers", "0", "--quiet"]
    assert main(["table", *tags, "--where", "view == 'Frontal'", "--out", str(tmp_path / "t.csv")]) == 0
    splits = ["--splits", "train=0.5,test=0.5", "--out", str(tmp_path / "store")]
    assert main(["extract", "phantom-swin", *tags, *splits]) == 0
    said = "".join(capsys.readouterr())
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    written = said.encode() + b"".join(path.read_bytes() for path in [tmp_path / "t.csv", *files])
    for secret in ("MRN47", "Doe", "Jane", "Roe", "Richard", "19500102", "ACC99"):
        assert secret.encode() not in written
    assert "3 of 4 images" in said and len((tmp_path / "t.csv").read_text().splitlines()) == 4
    assert main(["table", "--images", str(archive), "--keep-ids"]) == 1
    assert "--dicom-tags" in capsys.readouterr().err
    assert pydicom.dcmread(archive / "0001" / "a" / "IM01").PatientID == "MRN4711"
