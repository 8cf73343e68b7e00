"""Made-up patients and the table that tells of them."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from medsae_plugin import MedSAEError
from medsae_plugin.phantoms import FINDINGS, draw_case, generate, read_truth
from medsae_plugin.phantoms.generate import sample_rows

# The header of CheXpert's train.csv.
CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


@pytest.fixture(scope="module")
def rows():
    return list(sample_rows(4000, seed=1))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantoms")
    generate(24, out, seed=5, size=64)
    return out


def share(rows, name, given=None):
    chosen = [row for row in rows if given is None or given in row.case.findings]
    return np.mean([name in row.case.labels for row in chosen])


def test_no_finding_excludes_all_but_devices(rows):
    for row in rows:
        labels = set(row.case.labels)
        assert ("No Finding" in labels) == (not labels - {"No Finding", "Support Devices"})
        if row.reported.get("No Finding") == 1:
            others = {name for name, value in row.reported.items() if value != 0}
            assert others <= {"No Finding", "Support Devices"}


def test_every_observation_is_common_enough(rows):
    for name in ("No Finding", *FINDINGS):
        assert 0.06 <= share(rows, name) <= 0.6, name


def test_findings_occur_together_as_in_practice(rows):
    assert share(rows, "Cardiomegaly", "Edema") > 2 * share(rows, "Cardiomegaly")
    assert share(rows, "Pleural Effusion", "Edema") > 2 * share(rows, "Pleural Effusion")
    assert share(rows, "Atelectasis", "Pleural Effusion") > 1.5 * share(rows, "Atelectasis")
    assert share(rows, "Pneumothorax", "Fracture") > 1.5 * share(rows, "Pneumothorax")
    assert share(rows, "Support Devices", "Pneumothorax") > 1.5 * share(rows, "Support Devices")
    for row in rows:
        if "Pneumonia" in row.case.findings:
            assert {"Consolidation", "Lung Opacity"} & set(row.case.findings)
    for name in ("Edema", "Consolidation", "Pneumonia", "Lung Lesion", "Atelectasis"):
        assert 0.9 < share(rows, "Lung Opacity", name) <= 1
    bedside = [row for row in rows if row.case.projection == "AP"]
    upright = [row for row in rows if row.case.projection == "PA"]
    assert share(bedside, "Support Devices") > 1.5 * share(upright, "Support Devices")


def test_patients_have_studies_and_images_that_agree(rows):
    patients = {}
    for row in rows:
        patients.setdefault(row.patient, []).append(row)
    for images in patients.values():
        assert len({(r.case.patient_seed, r.case.sex, r.case.age) for r in images}) == 1
        studies = {}
        for row in images:
            studies.setdefault(row.path.split("/")[2], []).append(row)
        assert 1 <= len(studies) <= 4
        for views in studies.values():
            assert len({json.dumps([r.case.findings, r.reported]) for r in views}) == 1
    assert len({row.path for row in rows}) == len(rows)
    assert len({r.case.patient_seed for r in rows}) == len(patients)


def test_reports_are_uncertain_and_silent_at_times_but_seldom_wrong(rows):
    said = [(row.case.findings.get(n, 0), row.reported.get(n)) for row in rows for n in FINDINGS]
    positive = [value for severity, value in said if severity]
    assert 0.8 < np.mean([value == 1 for value in positive]) < 0.95
    assert 0 not in positive
    assert all(value != 1 for severity, value in said if not severity)
    mild = np.mean([value == -1 for severity, value in said if 0 < severity < 0.5])
    grave = np.mean([value == -1 for severity, value in said if severity > 0.75])
    assert mild > 3 * grave
    assert 0.5 < np.mean([value is None for severity, value in said if not severity]) < 0.95


def test_files_are_chexpert_and_match_the_truth(written):
    with (written / "labels.csv").open(newline="") as file:
        assert file.readline().rstrip("\n") == CHEXPERT
        file.seek(0)
        table = list(csv.DictReader(file))
    truth = read_truth(written / "truth.jsonl")
    assert [row["Path"] for row in table] == [path for path, _ in truth]
    assert len(table) == 24 == len(list(written.rglob("*.png")))
    for row, (path, case) in zip(table, truth, strict=True):
        assert path.startswith("images/patient0") and path.endswith(f"_{case.view.lower()}.png")
        assert (row["Sex"], int(row["Age"])) == (case.sex, case.age)
        assert (row["Frontal/Lateral"], row["AP/PA"]) == (case.view, case.projection)
        assert {row[name] for name in ("No Finding", *FINDINGS)} <= {"1.0", "0.0", "-1.0", ""}
        with Image.open(written / path) as image:
            assert image.mode == "L" and image.size == (64, 64)
    path, case = truth[3]
    record = json.loads((written / "truth.jsonl").read_text().splitlines()[3])
    again = draw_case(case, size=record["size"])
    assert np.array_equal(np.asarray(Image.open(written / path)), again.image)
    assert record["boxes"] == {name: [list(box) for box in boxes] for name, boxes in again.boxes.items()}
    assert record["findings"] == again.findings


def test_same_seed_same_bytes_and_more_images_go_on_from_fewer(written, tmp_path):
    generate(30, tmp_path / "more", seed=5, size=64)
    for path in sorted(written.rglob("*.png")):
        assert path.read_bytes() == (tmp_path / "more" / path.relative_to(written)).read_bytes()
    fewer, more = ((d / "labels.csv").read_bytes().splitlines() for d in (written, tmp_path / "more"))
    assert more[: len(fewer)] == fewer
    generate(3, tmp_path / "other", seed=6, size=64)
    assert (tmp_path / "other" / "truth.jsonl").read_bytes().splitlines()[0] not in (
        written / "truth.jsonl"
    ).read_bytes()


def test_bad_requests_are_refused(written, tmp_path):
    with pytest.raises(MedSAEError, match=r"labels\.csv is there already"):
        generate(1, written)
    with pytest.raises(MedSAEError, match="cannot draw 0"):
        generate(0, tmp_path)
    with pytest.raises(MedSAEError, match="10 pixels"):
        generate(1, tmp_path, size=10)
    assert not list(tmp_path.iterdir())
