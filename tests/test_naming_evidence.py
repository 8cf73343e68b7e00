"""Which images a latent's evidence and trials show, and what is told of them."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medsae_plugin.data.tables import read_table
from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.evidence import (
    Counts,
    Sample,
    TooSeldom,
    format_shares,
    label_shares,
    report_sentences,
    sample_evidence,
    told_labels,
)
from medsae_plugin.naming.heatmaps import PICTURE_SIZE, heatmap_picture, picture
from medsae_plugin.naming.trials import sample_trial
from medsae_plugin.scores import LabelledImages
from medsae_plugin.statistics.score_test import PatientLabel, score_p

PREPROCESSING = {"mode": "L", "size": 64, "fit": "pad", "resample": "bicubic", "mean": [0.5], "std": [0.25]}


@st.composite
def columns(draw):
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    column = np.where(rng.random(n) < draw(st.floats(0, 1)), np.round(rng.random(n), 1), 0.0).astype(np.float32)
    return column, rng.integers(0, draw(st.integers(1, 30)), n), draw(st.integers(0, 5))


@given(columns(), st.integers(1, 4), st.integers(0, 4), st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_a_sample_shows_each_patient_once(case, strongest, spread, silent):
    column, patients, seed = case
    counts = Counts(strongest, spread, silent)
    sample = sample_evidence(column, patients, counts, seed)
    n_firing = len(set(patients[column > 0]))
    if isinstance(sample, TooSeldom):
        assert n_firing < counts.patients and str(counts.patients) in str(sample)
        return
    assert n_firing >= counts.patients
    shown = [*sample.strongest, *sample.spread, *sample.silent]
    assert len(set(patients[shown])) == len(shown)
    assert (len(sample.strongest), len(sample.spread)) == (strongest, spread) and len(sample.silent) <= silent
    assert (column[[*sample.strongest, *sample.spread]] > 0).all() and (column[list(sample.silent)] <= 0).all()
    # The strongest are the maxima of the patients with the highest maxima.
    maxima = sorted((column[(patients == p) & (column > 0)].max() for p in set(patients[column > 0])), reverse=True)
    np.testing.assert_array_equal(column[list(sample.strongest)], np.array(maxima[:strongest], np.float32))
    assert list(column[list(sample.spread)]) == sorted(column[list(sample.spread)], reverse=True)
    assert sample == sample_evidence(column, patients, counts, seed), "the seed decides"


def test_the_spread_covers_the_firing_range():
    column = np.linspace(1, 0.01, 200).astype(np.float32)
    sample = sample_evidence(column, np.arange(200), Counts(5, 5, 0), 0)
    assert sample.strongest == (0, 1, 2, 3, 4)
    assert [place // 39 for place in np.array(sample.spread) - 5] == [0, 1, 2, 3, 4], "one from each fifth"
    assert isinstance(sample, Sample) and sample.silent == ()


def test_one_patient_does_not_fill_the_evidence():
    column = np.r_[np.full(50, 10.0), np.linspace(1, 0.1, 20), np.zeros(10)].astype(np.float32)
    patients = np.r_[np.zeros(50), np.arange(1, 31)].astype(int)
    sample = sample_evidence(column, patients, Counts(3, 3, 3), 0)
    assert sum(patients[place] == 0 for place in (*sample.strongest, *sample.spread, *sample.silent)) == 1


@given(columns(), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_a_trial_is_half_firing_half_silent_and_of_different_patients(case, each):
    column, patients, seed = case
    rows = np.arange(len(column)) + 100
    trial = sample_trial(column, rows, patients, each, seed)
    if trial is None:
        return
    places = np.array(trial.rows) - 100
    assert len(set(patients[places])) == len(places) <= 2 * each
    assert trial.truth.sum() * 2 == len(places)
    assert (column[places[trial.truth == 0]] <= 0).all()
    weakest = column[places[trial.truth == 1]].min()
    assert weakest >= np.quantile(column[column > 0], 0.7)


def test_shares_and_r_are_those_of_pandas():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (300, 3)).astype(float)
    column = (y[:, 1] * rng.random(300) + (rng.random(300) < 0.2)).astype(np.float32)
    y[rng.random((300, 3)) < 0.2] = np.nan
    y[:, 2] = np.nan
    patients = np.arange(300) // 2
    shares = label_shares(column, y, ["a", "b", "c"], patients)
    assert shares[0].label == "b"
    for share in shares[:2]:
        frame = pd.DataFrame({"a": column.astype(float), "y": y[:, ["a", "b"].index(share.label)]}).dropna()
        assert share.r == pytest.approx(frame["a"].corr(frame["y"]))
        assert share.firing == pytest.approx(frame.loc[frame["a"] > 0, "y"].mean())
        assert share.silent == pytest.approx(frame.loc[frame["a"] <= 0, "y"].mean())
        label = PatientLabel.of(y[:, ["a", "b"].index(share.label)], patients)
        assert share.p == pytest.approx(score_p(scipy.sparse.csr_array(column[:, None]), label)[0])
    assert np.isnan(shares[2].r)
    words = format_shares(shares)
    assert f"- b: {shares[0].firing:.0%} where it responds, {shares[0].silent:.0%} elsewhere" in words
    assert "- c" not in words


def test_a_label_at_chance_is_not_told_to_a_namer():
    """r 0.1 over 200 images is p 0.16; over the 20 patients that they are of, with 14 labels, it is nothing."""
    rng = np.random.default_rng(0)
    column, y = rng.random(200).astype(np.float32), rng.integers(0, 2, (200, 14)).astype(float)
    names = [f"label {c}" for c in range(14)]
    shares = label_shares(column, y, names, np.arange(200) // 10)
    assert abs(shares[0].r) < 0.3 and told_labels(shares) == []
    assert "than chance" in format_shares(shares) and "label" not in format_shares(shares).removeprefix("No label")
    y[:, 3] = column > 0.5
    shares = label_shares(column, y, names, np.arange(200) // 10)
    assert [share.label for share in told_labels(shares)] == ["label 3"]
    assert "- label 3: 56% where it responds (r = 0.87)" in format_shares(shares), "it responds everywhere"
    assert format_shares([]) == ""


def test_report_sentences_come_from_a_tables_report_column(tmp_path):
    rows = [
        ("a.png", "p1", 'Heart is big. Lungs, "clear".\nNo effusion.\n\nIMPRESSION: cardiomegaly'),
        ("b.png", "p2", ""),
        ("c.png", "p3", "x" * 1000),
    ]
    pd.DataFrame(rows, columns=["path", "patient", "text"]).to_csv(tmp_path / "t.csv", index=False)
    table = read_table(tmp_path / "t.csv", report_column="text", label_columns=[])
    assert "report" not in read_table(tmp_path / "t.csv").frame
    with pytest.raises(MedSAEError, match="no report column 'texts'; did you mean 'text'"):
        read_table(tmp_path / "t.csv", report_column="texts")
    data = LabelledImages.of(table.frame.iloc[::-1], table)
    assert report_sentences(data, [2, 1], most=3) == ["Heart is big.", 'Lungs, "clear".', "No effusion."]
    assert [len(s) for s in report_sentences(data, [0])] == [300]


def test_an_overlay_lies_where_the_latent_fires(tmp_path):
    Image.fromarray(np.full((80, 160), 100, np.uint8)).save(tmp_path / "x.png")
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[1, 3] = 2.0
    overlay = _pixels(heatmap_picture(tmp_path / "x.png", PREPROCESSING, heatmap, "overlay", peak=2.0))
    plain = _pixels(picture(tmp_path / "x.png", PREPROCESSING))
    assert overlay.shape == plain.shape == (160, 160, 3), "padded to a square, as the encoder sees it"
    assert (plain[:30] == 0).all() and (plain[60:100] == 100).all()
    colour = overlay[..., 0].astype(int) - overlay[..., 2]
    row, column = np.unravel_index(colour.argmax(), colour.shape)
    assert 40 <= row < 80 and 120 <= column < 160
    assert colour[100:, :80].max() == 0
    weaker = _pixels(heatmap_picture(tmp_path / "x.png", PREPROCESSING, heatmap, "overlay", peak=8.0))
    assert (weaker[..., 0].astype(int) - weaker[..., 2]).max() < colour.max()


def test_a_crop_shows_where_the_latent_fires(tmp_path):
    image = np.zeros((256, 256), np.uint8)
    image[160:176, 32:48] = 255
    Image.fromarray(image).save(tmp_path / "x.png")
    heatmap = np.zeros((8, 8), np.float32)
    heatmap[5, 1] = 1.0
    crop = _pixels(heatmap_picture(tmp_path / "x.png", PREPROCESSING, heatmap, "crop", peak=1.0))
    assert max(crop.shape) == PICTURE_SIZE // 2
    assert (crop > 128).mean() > 3 * (image > 128).mean()
    nothing = heatmap_picture(tmp_path / "x.png", PREPROCESSING, heatmap * 0, "crop", peak=1.0)
    assert _pixels(nothing).shape == (256, 256, 3)


def test_a_large_image_is_shown_small(tmp_path):
    Image.fromarray(np.zeros((900, 1200), np.uint8)).save(tmp_path / "x.png")
    assert max(_pixels(picture(tmp_path / "x.png", PREPROCESSING)).shape) == PICTURE_SIZE


def _pixels(shown):
    import io

    return np.asarray(Image.open(io.BytesIO(shown.png)).convert("RGB"))
