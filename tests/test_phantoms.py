"""Phantoms: what is drawn, where, and that it is what the labels say."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medsae_plugin import MedSAEError
from medsae_plugin.phantoms import FINDINGS, Case, draw_case, draw_phantom, sample_case
from medsae_plugin.phantoms.draw import paint
from medsae_plugin.phantoms.exposure import expose
from medsae_plugin.phantoms.generate import sample_rows

SIZE = 96
VIEWS = [
    {"view": "Frontal", "projection": "PA", "sex": "Male"},
    {"view": "Frontal", "projection": "AP", "sex": "Female"},
    {"view": "Lateral"},
]
VIEW_NAMES = ["PA", "AP", "lateral"]


def pixels(seed, findings, view, size=SIZE):
    return draw_phantom(seed, size=size, findings=findings, **view).image.astype(float)


def test_same_bytes_in_another_process():
    code = (
        "import hashlib; from medsae_plugin.phantoms import draw_phantom as draw; "
        "print(hashlib.sha256(b''.join(draw(s, size=64).image.tobytes() for s in range(6))).hexdigest())"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}
        )
        for s in ("1", "2")
    )
    assert first.stdout == second.stdout != ""
    assert (draw_phantom(0, size=64).image != draw_phantom(1, size=64).image).mean() > 0.5


@pytest.mark.parametrize("view", VIEWS, ids=VIEW_NAMES)
@pytest.mark.parametrize("name", FINDINGS)
def test_mask_covers_the_change(name, view):
    """With and without the finding, the picture differs inside the mask and hardly outside it."""
    for seed in (3, 4):
        phantom = draw_phantom(seed, size=SIZE, findings={name: 0.8}, **view)
        change = np.abs(phantom.image - pixels(seed, {}, view))
        mask = phantom.masks[name]
        assert 0 < mask.mean() < 0.6
        inside, outside = change[mask].mean(), change[~mask].mean()
        assert inside > 4, f"{name} is not to be seen"
        assert inside > 5 * outside


@pytest.mark.parametrize("view", VIEWS, ids=VIEW_NAMES)
@pytest.mark.parametrize("name", FINDINGS)
def test_severity_grades_the_change(name, view):
    """Of fractures on the mean of three chests, for a rib's fallen end may lie over the next rib and hide there."""
    seeds, total = (7, 8, 9) if name == "Fracture" else (7,), np.zeros(4)
    for seed in seeds:
        healthy = pixels(seed, {}, view)
        total += [np.abs(pixels(seed, {name: s}, view) - healthy).sum() for s in (0.25, 0.5, 0.75, 1.0)]
    assert np.all(np.diff(total) > 0), total


@pytest.mark.parametrize(
    ("name", "sign"),
    [(name, -1 if name == "Pneumothorax" else 1) for name in FINDINGS if name not in ("Fracture", "Lung Opacity")],
)
def test_opacities_brighten_and_free_air_darkens(name, sign):
    """A radiograph is bright where rays are stopped: of all the findings, only a pneumothorax lets more through."""
    changes = []
    for seed in range(6):
        phantom = draw_phantom(seed, size=SIZE, findings={name: 0.5}, view="Frontal", projection="PA")
        difference = phantom.image.astype(float) - pixels(seed, {}, VIEWS[0] | {"sex": phantom.case.sex})
        changes.append(difference[phantom.masks[name]].mean())
    assert sign * np.mean(changes) > 2


@pytest.mark.parametrize("view", VIEWS, ids=VIEW_NAMES)
def test_boxes_enclose_masks_tightly(view):
    findings = {name: 0.7 for name in FINDINGS}
    phantom = draw_phantom(11, size=SIZE, findings=findings, **view)
    assert list(phantom.masks) == list(phantom.boxes) == list(findings)
    for name, mask in phantom.masks.items():
        assert mask.shape == phantom.image.shape and mask.dtype == bool
        covered = np.zeros_like(mask)
        for left, top, right, bottom in phantom.boxes[name]:
            part = mask[top:bottom, left:right]
            assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
            covered[top:bottom, left:right] = True
        assert covered[mask].all()


def test_one_finding_leaves_the_others_where_they_are():
    alone = draw_phantom(5, size=SIZE, findings={"Lung Lesion": 0.6}, **VIEWS[0])
    among = draw_phantom(
        5, size=SIZE, findings={"Lung Lesion": 0.6, "Fracture": 0.9, "Support Devices": 0.5}, **VIEWS[0]
    )
    assert np.array_equal(alone.masks["Lung Lesion"], among.masks["Lung Lesion"])


def test_lung_opacity_stands_for_the_opacities_present():
    findings = {"Lung Opacity": 0.7, "Edema": 0.7, "Lung Lesion": 0.4}
    phantom = draw_phantom(2, size=SIZE, findings=findings, **VIEWS[0])
    assert np.array_equal(phantom.masks["Lung Opacity"], phantom.masks["Edema"] | phantom.masks["Lung Lesion"])
    without = draw_phantom(2, size=SIZE, findings={"Edema": 0.7, "Lung Lesion": 0.4}, **VIEWS[0])
    assert np.array_equal(phantom.image, without.image)


def test_patients_share_anatomy_between_images():
    """The same patient taken twice is more alike than two patients."""
    exposure = 99

    def picture(patient):
        return draw_case(Case(patient, 1, exposure, "Male", 60, "Frontal", "PA"), size=SIZE).image.astype(float)

    def taken_again(patient):
        return draw_case(Case(patient, 2, exposure, "Male", 60, "Frontal", "PA"), size=SIZE).image.astype(float)

    assert np.array_equal(picture(1), taken_again(1))
    assert np.abs(picture(1) - picture(2)).mean() > 3


def test_ap_enlarges_the_heart_and_women_have_breasts():
    def heart_width(projection):
        """Columns of the heart's row that are brighter than halfway between lung and spine."""
        widths = []
        for seed in range(12):
            image = draw_phantom(seed, size=SIZE, findings={}, projection=projection, sex="Male", age=50).image
            row = image[60:64].mean(0)
            widths.append((row[20:76] > (row[20:76].min() + row[46:50].mean()) / 2).sum())
        return np.mean(widths)

    assert heart_width("AP") > heart_width("PA") + 2

    def lower_lung(sex):
        draws = [draw_phantom(s, size=SIZE, findings={}, projection="PA", sex=sex, age=50).image for s in range(12)]
        return np.mean([image[56:66, 20:28].mean() for image in draws])

    assert lower_lung("Female") > lower_lung("Male") + 5


def test_a_phantom_looks_the_same_at_any_size():
    small = draw_phantom(8, size=64, **VIEWS[0])
    large = draw_phantom(8, size=256, **VIEWS[0])
    shrunk = large.image.reshape(64, 4, 64, 4).mean((1, 3))
    assert np.corrcoef(shrunk.ravel(), small.image.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"findings": {"Cancer": 0.5}}, "Cancer"),
        ({"findings": {"Edema": 1.5}}, "Edema"),
        ({"findings": {"Edema": 0.0}}, "Edema"),
        ({"view": "Oblique"}, "Oblique"),
        ({"view": "Lateral", "projection": "AP"}, "Lateral"),
        ({"sex": "male"}, "male"),
        ({"size": 8}, "8 pixels"),
    ],
)
def test_what_cannot_be_drawn_is_named(arguments, said):
    with pytest.raises(MedSAEError, match=said):
        draw_phantom(0, **arguments)


def test_given_parts_of_a_case_are_kept():
    case = sample_case(4, projection="AP", sex="Female", age=33, findings={"Edema": 0.5})
    assert (case.view, case.projection, case.sex, case.age) == ("Frontal", "AP", "Female", 33)
    assert case.labels == {"Edema": 0.5}
    assert sample_case(4, findings={"Support Devices": 1.0}).labels == {"No Finding": 1.0, "Support Devices": 1.0}


def test_what_is_labelled_is_seen():
    """With a finding and without it, all else the same, a picture changes more than from one draw of noise to another;
    where it does lie its mask and its boxes."""
    for row in sample_rows(30, seed=8):
        canvas, masks, exposure = paint(row.case, SIZE)
        shown = [
            expose(canvas.density, canvas.grid, replace(exposure, noise_seed=seed)).astype(float) for seed in (1, 2)
        ]
        noise = shown[0] - shown[1]
        drawn = draw_case(row.case, size=SIZE)
        for name, mask in masks.items():
            left = {other: severity for other, severity in row.case.findings.items() if other != name}
            without = draw_case(replace(row.case, findings=left), size=SIZE).image
            change = drawn.image - without.astype(float)
            if name == "Lung Opacity" and not change.any():
                continue  # it stands for others
            assert np.square(change[mask]).mean() > np.square(noise[mask]).mean(), (name, row.case)
            assert drawn.boxes[name]


def test_thumbnails_do_not_tell_findings():
    """Held-out patients' common findings, by a logistic regression on 8 x 8 pixels: chance is 0.5."""
    rows = list(sample_rows(450, seed=9))
    tiny = np.stack([draw_case(row.case, size=32).image for row in rows]).reshape(-1, 8, 4, 8, 4).mean((2, 4))
    x, half = tiny.reshape(len(rows), -1), np.array([int(row.patient[-1]) % 2 == 0 for row in rows])
    found = []
    for name in ("Pleural Effusion", "Lung Opacity", "Edema", "Atelectasis", "Cardiomegaly", "Consolidation"):
        y = np.array([name in row.case.findings for row in rows])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=1000)).fit(x[half], y[half])
        found.append(roc_auc_score(y[~half], model.predict_proba(x[~half])[:, 1]))
    assert np.mean(found) < 0.75


def test_neither_a_corner_nor_a_file_name_tells_findings():
    rows = list(sample_rows(450, seed=10))
    corners = np.stack([draw_case(row.case, size=32).image[[0, 0, -1, -1], [0, -1, 0, -1]] for row in rows])
    number = np.array([int(row.patient[7:]) for row in rows])
    for name in ("Pleural Effusion", "Lung Opacity", "Edema", "Atelectasis", "Support Devices"):
        y = np.array([name in row.case.findings for row in rows])
        for values in (*corners.T, number):
            assert abs(roc_auc_score(y, values) - 0.5) < 0.12, name
