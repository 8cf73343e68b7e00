"""Made-up patients and the table that tells of them."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.observations import OBSERVATIONS
from medsae_plugin.phantoms import FINDINGS, draw_case, generate, read_truth
from medsae_plugin.phantoms.chexpert import PHI, STATED, UNCERTAIN
from medsae_plugin.phantoms.generate import sample_rows

# The header of CheXpert's train.csv.
CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)

KINDS = ("Edema", "Consolidation", "Pneumonia", "Lung Lesion", "Atelectasis")  # of Lung Opacity


@pytest.fixture(scope="module")
def rows():
    return list(sample_rows(6000, seed=1))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantoms")
    generate(24, out, seed=5, size=64)
    return out


def present(rows):
    """(rows, 14) of what is drawn, No Finding first."""
    return np.array([[name in row.case.labels for name in OBSERVATIONS] for row in rows])


def test_no_finding_excludes_all_but_devices(rows):
    for row in rows:
        labels = set(row.case.labels)
        assert ("No Finding" in labels) == (not labels - {"No Finding", "Support Devices"})
        if row.reported.get("No Finding") == 1:
            others = {name for name, value in row.reported.items() if value != 0}
            assert others <= {"No Finding", "Support Devices"}


def test_findings_are_as_frequent_as_in_chexperts_reports(rows):
    """Whose uncertain ones are there in half of the cases; a Lung Opacity is where any of its kinds is."""
    drawn = present(rows).mean(0)
    for name, share in zip(OBSERVATIONS[1:], drawn[1:], strict=True):
        if name != "Lung Opacity":
            assert share == pytest.approx(STATED[name] + UNCERTAIN[name] / 2, abs=0.03), name
    assert STATED["Lung Opacity"] < drawn[OBSERVATIONS.index("Lung Opacity")] < 0.65
    for name in OBSERVATIONS[1:]:
        if name != "Lung Opacity":
            stated, uncertain = (np.mean([row.reported.get(name) == value for row in rows]) for value in (1, -1))
            assert stated == pytest.approx(STATED[name], abs=0.03), name
            assert uncertain == pytest.approx(UNCERTAIN[name], abs=0.03), name


def test_findings_occur_together_as_in_chexpert(rows):
    """But for logical ties: No Finding is no other, and a Lung Opacity stands for its kinds."""
    drawn = present(rows)
    phi = np.corrcoef(drawn.T)
    parent = OBSERVATIONS.index("Lung Opacity")
    tied = {(parent, OBSERVATIONS.index(name)) for name in KINDS}
    for i in range(1, len(OBSERVATIONS)):
        for j in range(1, i):
            if (i, j) not in tied and (j, i) not in tied:
                assert abs(phi[i, j] - PHI[i, j]) < 0.1, (OBSERVATIONS[i], OBSERVATIONS[j])
    for name in KINDS:
        assert drawn[drawn[:, OBSERVATIONS.index(name)], parent].mean() > 0.9
    bedside = np.array([row.case.projection == "AP" for row in rows])
    upright = np.array([row.case.projection == "PA" for row in rows])
    assert drawn[bedside, -1].mean() > 1.3 * drawn[upright, -1].mean()


def test_chexperts_table_is_one_of_correlations():
    assert STATED["No Finding"] == pytest.approx(0.1002, abs=5e-5)
    assert list(STATED) == list(OBSERVATIONS) == list(UNCERTAIN)
    assert np.array_equal(PHI, PHI.T) and np.all(np.diag(PHI) == 1)
    assert np.linalg.eigvalsh(PHI).min() > 0


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


def test_a_planted_shortcut_is_a_marker_and_nothing_else(written, tmp_path):
    table = generate(24, tmp_path / "short", seed=5, size=64, shortcut=True)
    with table.open(newline="") as file:
        marked = list(csv.DictReader(file))
    with (written / "labels.csv").open(newline="") as file:
        plain = list(csv.DictReader(file))
    said = [row.pop("Marker") for row in marked]
    assert marked == plain and set(said) == {"yes", "no"}
    assert list(read_table(table).covariates["marker"]) == said
    assert "four of five" in (table.parent / "README.md").read_text()
    assert not (written / "README.md").exists()
    for row, yes in zip(plain, said, strict=True):
        with Image.open(table.parent / row["Path"]) as image, Image.open(written / row["Path"]) as before:
            changed = np.asarray(image) != np.asarray(before)
        assert not changed[:48].any() and not changed[:, 16:].any()
        assert changed.any() or yes == "no"


def test_the_marker_agrees_with_support_devices_in_four_of_five_studies():
    cases = [row.case for row in sample_rows(6000, seed=1, shortcut=True)]
    marker, devices = (
        np.array(v) for v in ([c.marker for c in cases], ["Support Devices" in c.findings for c in cases])
    )
    assert np.mean(marker == devices) == pytest.approx(0.8, abs=0.02)
    assert np.mean(marker[devices]) == pytest.approx(0.8, abs=0.03)
    studies = {}
    for case in cases:
        studies.setdefault(case.study_seed, set()).add(case.marker)
    assert all(len(values) == 1 for values in studies.values())
    assert not any(row.case.marker for row in sample_rows(100, seed=1))
