"""Concept heads: planted log-odds are found again, parts sum to predictions, nothing is chosen on `report`."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import planted_rows, reading_weights, relu_sae, save_sae, write_store
from sae_lens import SAE
from safetensors.numpy import load_file, save_file
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.cli import main
from medsae_plugin.naming.names import NamedUnit, Names
from medsae_plugin.patients import ConceptHead, fit_head
from medsae_plugin.patients.calibration import brier, calibration_error, curve
from medsae_plugin.patients.rules import rules_of
from medsae_plugin.sae_folders import sae_sha256
from medsae_plugin.scores.logistic import fit_head_tried

N, D, FEATURES = 1200, 10, 6
LABELS = ("line", "bend", "never")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Latents read six features; `line` is drawn by -3 + 4 a0 + 3 a1, `bend` by -2 + 8 a2 to 0.8 and down again."""
    folder = tmp_path_factory.mktemp("planted")
    rows, codes = planted_rows(N, D, FEATURES)
    store = write_store(folder / "store", {"h": rows})
    sae = save_sae(folder / "sae", relu_sae("h", **reading_weights(D, FEATURES), encoder_sha256="0" * 64))
    a = np.maximum(codes - 0.5, 0)
    rng = np.random.default_rng(0)
    odds = np.stack([-3 + 4 * a[:, 0] + 3 * a[:, 1], -2 + 8 * a[:, 2] - 20 * np.maximum(a[:, 2] - 0.8, 0)], 1)
    labels = np.concatenate([rng.random((N, 2)) < expit(odds), np.zeros((N, 1))], 1).astype(float)
    labels[rng.random(labels.shape) < 0.05] = np.nan
    frame = pd.DataFrame(labels, columns=list(LABELS))
    frame.insert(0, "Path", store.images["path"])
    frame.to_csv(folder / "labels.csv", index=False)
    latents = SAE.load_from_disk(sae).encode(torch.from_numpy(rows)).detach().double().numpy()
    return folder, store, sae, latents, labels


def table(folder):
    return read_table(folder / "labels.csv", label_columns=LABELS)


def split(store, name):
    return np.flatnonzero(store.images["split"] == name)


@pytest.fixture(scope="module", params=["l1", "top-k", "additive"])
def head(planted, request):
    folder, store, sae, _, _ = planted
    return fit_head(store, sae, table(folder), kind=request.param, progress=False)


def test_planted_parts_are_found_and_told_on_others(planted, head):
    _, store, _, latents, labels = planted
    test = split(store, "test")
    line, bend, never = head.report.labels
    assert {0, 1} <= set(head.latents_of("line")) and 2 in head.latents_of("bend")
    slopes = {j: head.curve("line", j, np.array([1.0]))[0] for j in (0, 1, 3)}
    assert slopes[0] > 2 and slopes[1] > 1.5 and abs(slopes[3]) < 1
    odds = head.log_odds(latents[test])
    for c, one in ((0, line), (1, bend)):
        known = ~np.isnan(labels[test, c])
        y, p = labels[test, c][known], expit(odds[known, c])
        assert one.auroc == pytest.approx(roc_auc_score(y, p)) and one.positives == y.sum() and one.known == len(y)
        assert one.brier == pytest.approx(brier_score_loss(y, p))
        assert one.brier < one.brier_of_share and one.interval[0] < one.auroc < one.interval[1]
        assert one.recovered == pytest.approx((one.auroc - 0.5) / (one.probe - 0.5))
    assert never.auroc is None and never.strength is None and head.latents_of("never") == []
    assert head.log_odds(latents)[:, 2].tolist() == [0.0] * N


def test_an_additive_head_bends_where_the_odds_do(planted):
    folder, store, sae, _, _ = planted
    bent = fit_head(store, sae, table(folder), kind="additive", progress=False)
    straight = fit_head(store, sae, table(folder), kind="top-k", progress=False)
    top, end = bent.curve("bend", 2, np.array([0.8, 1.4]))
    assert top > 2 and top > end + 1, "up to 0.8, and down again"
    assert len(set(bent.knot[bent.latent == 2])) > 1 and set(straight.knot) == {0.0}


def test_parts_sum_to_the_prediction_and_the_silent_add_nothing(planted, head):
    _, _, _, latents, _ = planted
    for i in (0, 7, 40):
        for c, label in enumerate(head.labels):
            parts = head.parts(latents[i], label)
            assert head.bias[c] + sum(parts.values()) == pytest.approx(head.log_odds(latents[[i]])[0, c], abs=1e-12)
            assert all(latents[i, j] > 0 for j in parts)


def test_an_edit_is_the_part_that_goes(planted, head):
    _, _, _, latents, _ = planted
    edited = latents.copy()
    edited[:, 0] = 0
    np.testing.assert_allclose(head.without([0]).log_odds(latents), head.log_odds(edited), atol=1e-12)
    assert 0 not in head.without([0]).latents_of("line")


def test_what_is_told_of_report_is_chosen_without_it(planted):
    """With the labels of `report` turned round, and those of no split but it, the head is the same."""
    folder, store, sae, _, labels = planted
    other = labels.copy()
    test = split(store, "test")
    other[test] = 1 - other[test]
    frame = pd.DataFrame(other, columns=list(LABELS))
    frame.insert(0, "Path", store.images["path"])
    frame.to_csv(folder / "turned.csv", index=False)
    mine = fit_head(store, sae, table(folder), progress=False)
    turned = fit_head(store, sae, read_table(folder / "turned.csv", label_columns=LABELS), progress=False)
    for key in ("bias", "label", "latent", "knot", "slope"):
        assert np.array_equal(getattr(mine, key), getattr(turned, key))
    assert turned.report.labels[0].auroc == pytest.approx(1 - mine.report.labels[0].auroc)


def test_the_strength_is_that_of_the_least_cross_entropy_on_the_others():
    rng = np.random.default_rng(1)
    x, others = rng.normal(size=(2, 300, 4))
    y, others_y = ((z[:, 0] + 0.5 * rng.normal(size=300) > 0).astype(float) for z in (x, others))
    head, strength, loss = fit_head_tried(x, y, others, others_y, (1e-3, 0.1, 10.0))
    mean, scale = x.mean(0), x.std(0)
    losses = {
        c: log_loss(others_y, LogisticRegression(C=c).fit((x - mean) / scale, y).predict_proba((others - mean) / scale))
        for c in (1e-3, 0.1, 10.0)
    }
    assert strength == min(losses, key=losses.get) and loss == pytest.approx(losses[strength], abs=1e-5)
    assert log_loss(others_y, expit(head(others))) == pytest.approx(loss)


def test_calibration_is_scikit_learns():
    rng = np.random.default_rng(2)
    p = rng.random(500)
    y = (rng.random(500) < p**2).astype(float)
    bins = curve(p, y)
    found, predicted = calibration_curve(y, p, n_bins=10, strategy="quantile")
    assert [b.predicted for b in bins] == pytest.approx(predicted, abs=0.01)
    assert [b.found for b in bins] == pytest.approx(found, abs=0.03) and sum(b.images for b in bins) == 500
    assert calibration_error(bins) == pytest.approx(np.mean(np.abs(predicted - found)), abs=0.01)
    assert brier(p, y) == pytest.approx(brier_score_loss(y, p))
    assert len(curve(np.full(50, 0.3), y[:50])) == 1, "images of one probability stay together"


def test_a_rule_says_what_holds_of_others():
    rng = np.random.default_rng(3)
    a, others = rng.random((2, 400, 2)) * (rng.random((2, 400, 2)) < 0.5)
    y, others_y = (((z[:, 0] > 0.3) & ~(z[:, 1] > 0)).astype(float) for z in (a, others))
    patients = np.arange(400) // 2
    (rule,) = rules_of(np.array([5, 9]), (a, y), (others, others_y, patients))
    said = {(c.latent, c.above) for c in rule.conditions}
    assert said == {(5, True), (9, False)}
    threshold = {c.latent: c.threshold for c in rule.conditions}
    meets = (others[:, 0] > threshold[5]) & ~(others[:, 1] > threshold[9])
    assert rule.images == meets.sum() and rule.patients == len(set(patients[meets]))
    assert rule.share == pytest.approx(others_y[meets].mean())


def test_it_opens_as_it_was_saved_and_plain_numpy_reads_it(planted, tmp_path):
    folder, store, sae, latents, _ = planted
    head = fit_head(store, sae, table(folder), tmp_path / "head", kind="additive", progress=False)
    opened = ConceptHead.open(tmp_path / "head")
    np.testing.assert_array_equal(opened.log_odds(latents), head.log_odds(latents))
    raw, told = load_file(tmp_path / "head" / "head.safetensors"), json.loads((tmp_path / "head/head.json").read_text())
    hinges = np.maximum(0, latents[:, raw["latent"]] - raw["knot"]) * raw["slope"]
    by_hand = np.stack([raw["bias"][c] + hinges[:, raw["label"] == c].sum(1) for c in range(3)], 1)
    np.testing.assert_allclose(by_hand, head.log_odds(latents), atol=1e-12)
    assert [one["label"] for one in told["labels"]] == list(LABELS)
    raw["latent"] = raw["latent"] + 100
    save_file(raw, tmp_path / "head" / "head.safetensors")
    with pytest.raises(MedSAEError, match="not of the head"):
        ConceptHead.open(tmp_path / "head")
    (tmp_path / "head" / "head.safetensors").write_bytes(b"no tensors")
    with pytest.raises(MedSAEError, match=r"head.safetensors cannot be read"):
        ConceptHead.open(tmp_path / "head")
    with pytest.raises(MedSAEError, match=r"there is no head.json"):
        ConceptHead.open(folder)


def test_the_command_prints_names_and_odds_and_refuses_others_names(planted, tmp_path, capsys):
    folder, store, sae, _, _ = planted
    named = NamedUnit(kind="latent", latent="0", status="named", concept="a pleural line")
    made = {"sae_sha256": sae_sha256(SAE.load_from_disk(sae)), "split": "train"}
    Names(made=made, units=(named,)).save(tmp_path / "names")
    command = ["head", str(store.path), str(sae), "--table", str(folder / "labels.csv"), "--labels", ",".join(LABELS),
               "--names", str(tmp_path / "names"), "--out", str(tmp_path / "head"), "--quiet"]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "#0 (a pleural line)" in out and "written:" in out and "line" in out
    Names(made=made | {"sae_sha256": "1" * 64}, units=(named,)).save(tmp_path / "names")
    assert main(command) == 1
    assert "names are of the latents of another SAE" in capsys.readouterr().err


def test_splits_that_share_patients_are_refused(planted):
    folder, store, sae, _, _ = planted
    with pytest.raises(MedSAEError, match="patients are in both"):
        fit_head(store, sae, table(folder), tune="test", progress=False)
    with pytest.raises(MedSAEError, match="no images in split"):
        fit_head(store, sae, table(folder), tune="other", progress=False)
