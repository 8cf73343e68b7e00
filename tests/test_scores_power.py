"""Power: the least r that a table could detect, against simulation, combinatorics and Kish's formula."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medsae_plugin.cli import main
from medsae_plugin.scores.power import design_effect, least_r, log_least_p, power_of


def made_latent(rng, y, patients, rho, alike):
    """Noise of a patient (alike) or of an image, and what makes its true r with the label rho."""
    noise = rng.normal(size=patients.max() + 1)[patients] if alike else rng.normal(size=len(y))
    p = y.mean()
    return noise + y * rho / math.sqrt(1 - rho**2) / math.sqrt(p * (1 - p))


def permutation_p(rng, x, y, patients, n):
    """One-sided, of patients that have as many images each."""
    by_patient = y.reshape(patients.max() + 1, -1)
    shuffled = np.stack([rng.permutation(by_patient).ravel() for _ in range(n)])
    centred = x - x.mean()
    return (1 + (shuffled @ centred >= y @ centred).sum()) / (1 + n)


@pytest.mark.parametrize(
    ("n_patients", "images_each", "share", "alike"), [(300, 1, 0.1, False), (100, 3, 0.3, True), (100, 3, 0.3, False)]
)
def test_the_least_r_is_found_as_often_as_said(n_patients, images_each, share, alike):
    """By permutation of patients' labels, which know nothing of t: 80 %, within three standard errors of 300 trials and
    two points more for what the model leaves out."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(n_patients), images_each)
    y = np.repeat(np.arange(n_patients) < share * n_patients, images_each).astype(float)
    effect = design_effect(y, patients) if alike else 1.0
    rho = least_r(len(y) / effect, 0.01, 0.8)
    found = [
        permutation_p(rng, made_latent(rng, y, patients, rho, alike), y, patients, 399) <= 0.01 for _ in range(300)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 300) + 0.02)


def test_the_design_effect_is_kishs_where_patients_are_of_one_size():
    rng = np.random.default_rng(1)
    size, n = 4, 60
    y = (rng.random((n, size)) < rng.beta(0.5, 1.5, (n, 1))).astype(float)
    centred = y - y.mean()
    pairs = (centred.sum(1) ** 2 - (centred**2).sum(1)).sum() / (n * size * (size - 1))
    rho = pairs / (centred**2).mean()  # Fisher's intraclass correlation
    patients = np.repeat([f"p{k}" for k in range(n)], size)
    assert design_effect(y.ravel(), patients) == pytest.approx(1 + (size - 1) * rho)
    order = rng.permutation(n * size)
    assert design_effect(y.ravel()[order], patients[order]) == pytest.approx(1 + (size - 1) * rho)


@pytest.mark.parametrize(("patients", "positive"), [(10, 1), (74, 2), (30, 15), (30, 29)])
def test_the_least_p_counts_the_ways_to_choose_patients(patients, positive):
    assert math.exp(log_least_p(patients, positive)) == pytest.approx(1 / math.comb(patients, positive))
    assert math.exp(log_least_p(5, 5)) == pytest.approx(1 / 120)


def test_the_least_r_is_that_of_the_noncentral_t():
    r = least_r(80.0, 0.005, 0.9)
    critical = stats.t.isf(0.005, 78)
    assert stats.nct.sf(critical, 78, math.sqrt(80) * r / math.sqrt(1 - r**2)) == pytest.approx(0.9)
    assert math.isnan(least_r(3.0, 0.05, 0.8)) and least_r(200.0, 0.005, 0.9) < r < least_r(80.0, 0.001, 0.9)


def test_labels_that_can_never_be_significant_are_said_and_holm_counts_the_others():
    patients = np.array([f"p{i // 2}" for i in range(40)])
    y = np.zeros((40, 4))
    y[:16, 0] = 1  # eight patients
    y[:2, 1] = 1  # one: p is 1/20 at least
    y[:, 2] = np.nan
    y[:5, 3], y[30:, 3] = 1, np.nan
    power = power_of(y, ("Edema", "Fracture", "Nodule", "Mass"), patients, "test")
    edema, fracture, nodule, mass = power.labels
    assert power.tested == 3 and (power.split.images, power.split.patients) == (40, 20)
    assert (edema.positives, edema.images, edema.positive_patients, edema.patients) == (16, 40, 8, 20)
    assert edema.design_effect == pytest.approx(2) and edema.never == ""
    assert edema.unlike == pytest.approx(least_r(40.0, 0.05 / 3, 0.8))
    assert edema.alike == pytest.approx(least_r(20.0, 0.05 / 3, 0.8))
    assert fracture.never == "too few patients: p is 0.05 at least" and fracture.unlike is None
    assert nodule.never == "on no image"
    assert (mass.images, mass.patients, mass.positive_patients) == (30, 15, 3)
    assert power_of(y, ("a", "b", "c", "d"), patients, "test", alpha=0.3).labels[1].never == ""


def test_the_command_splits_a_table_as_extraction_does(tmp_path, capsys):
    frame = pd.DataFrame({"path": [f"p{i}/a.png" for i in range(100)], "patient": [f"p{i}" for i in range(100)]})
    frame["Edema"] = (np.arange(100) % 3 == 0).astype(int)
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = ["--table", str(tmp_path / "t.csv")]
    assert main(["power", *table]) == 0
    told = capsys.readouterr()
    assert "on test (20 images, 20 patients)" in told.out and "as medsae extract makes" not in told.out
    assert "the splits are those that medsae extract makes by default" in told.err
    edema = next(line for line in told.out.splitlines() if line.startswith("Edema"))
    assert edema.split()[2] == "20" and edema.split()[-1] == f"{least_r(20.0, 0.05, 0.8):.2f}"
    assert main(["power", *table, "--alpha", "1.5"]) == 1
    assert "--alpha should be above 0 and below 1" in capsys.readouterr().err
    assert main(["power", *table, "--report-split", "elsewhere"]) == 1
    assert main(["power", str(tmp_path / "none"), *table]) == 1
