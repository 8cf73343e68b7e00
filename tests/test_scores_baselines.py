"""Baselines set beside their SAE by `evaluate` and `compare`, with the figures that SAEs get; a random encoder's."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import made_up_images, planted_rows, reading_weights, relu_sae, save_sae, write_store
from scipy import stats

from medsae_plugin import HookedVisionEncoder, extract, read_table
from medsae_plugin.cli import main
from medsae_plugin.encoders.cards import load_card
from medsae_plugin.encoders.loading import build_encoder
from medsae_plugin.errors import MedSAEError
from medsae_plugin.phantoms import generate
from medsae_plugin.scores import Evaluation, LabelledImages, open_units
from medsae_plugin.scores.matrix import latent_matrix
from medsae_plugin.scores.protocols import fidelity_of
from medsae_plugin.store import ActivationStore
from medsae_plugin.training.baselines import Images, Like, make_baselines

N, D, FEATURES, HOOK = 240, 8, 4, "hook_embedding"
FEW = ["--permutations", "19", "--bootstrap", "50", "--quiet"]
LABELS = ("Edema", "Fracture", "Nodule", "Mass")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    rows, codes = planted_rows(N, D, FEATURES)
    store = write_store(folder / "store", {HOOK: rows})
    table = pd.DataFrame((codes > 0).astype(int), columns=list(LABELS))
    table.insert(0, "Path", store.images["path"])
    table.to_csv(folder / "labels.csv", index=False)
    sae = save_sae(folder / "planted", relu_sae(HOOK, encoder_sha256="0" * 64, **reading_weights(D, FEATURES)))
    make_baselines(Like.of(sae, store), folder / "baselines" / "planted", ("random", "pca", "k-means"), progress=False)
    return folder, store, sae


def test_they_get_the_figures_that_saes_get(planted, tmp_path, capsys):
    folder, store, sae = planted
    job = [str(store.path), str(sae), "--table", str(folder / "labels.csv"), "--baselines", str(folder / "baselines")]
    assert main(["evaluate", *job, "--out", str(tmp_path / "out"), *FEW]) == 0
    text = capsys.readouterr().out
    evaluation = Evaluation.open(tmp_path / "out")
    scores = evaluation.saes[0]
    assert [c.kind for c in scores.beside] == ["neurons", "untrained", "random", "pca", "k-means"]
    images, labels = store.readable_images, pd.read_csv(folder / "labels.csv")
    rows = torch.cat([batch for _, batch in store.image_batches(HOOK)])
    test, train = ((images["split"] == split).to_numpy() for split in ("test", "train"))
    for units in open_units(store, sae, baselines=[folder / "baselines"]):
        if units.kind not in ("random", "pca", "k-means"):
            continue
        found = evaluation[units.name]
        a = units.encode(rows).detach().numpy()
        assert found.d_sae == units.n and found.baseline_of == "planted"
        assert (found.fidelity is None) == (units.kind == "k-means")
        for o in found.observations:  # chosen on train, its r on test
            y = labels[o.label].to_numpy()
            r = [stats.pearsonr(a[train, j], y[train])[0] for j in range(units.n)]
            assert o.latent == np.argmax(r)
            assert o.r == pytest.approx(stats.pearsonr(a[test, o.latent], y[test])[0], abs=1e-5)
            assert o.p_holm is not None and o.auroc is not None and o.r_low is not None
        assert found.value("mean_monosemanticity") is not None and found.value("live") == units.n
        gain = next(g for g in scores.gains if g.over == units.name)
        assert gain.mean_top_r == pytest.approx(scores.mean_top_r - found.mean_top_r)
        assert (gain.candidates, gain.kind) == (units.n, units.kind) and gain.low <= gain.mean_top_r <= gain.high
        assert gain.at_live == pytest.approx(found.mean_top_r)  # as many are alive in the SAE: all are drawn
    best = scores.headline
    assert best.over in ("random planted", "pca planted", "k-means planted")
    assert best.mean_top_r == min(g.mean_top_r for g in scores.gains if g.kind != "untrained")
    assert f"mean r over the best baseline of as many candidates ({best.kind}, 4): {best.mean_top_r:+.3f}" in text
    assert all(line in text for line in ("Beside it, over all observations", "this SAE", "mean r of as many"))
    assert set(evaluation.frame()["name"]) == {c.name for c in evaluation.candidates}
    assert main(["evaluate", *job, "--out", str(tmp_path / "paper"), "--protocol", "medsae-paper"]) == 1
    assert "--baselines says nothing to --protocol medsae-paper" in capsys.readouterr().err


def test_without_a_baseline_of_as_many_candidates_no_gain_is_claimed(planted, tmp_path, capsys):
    folder, store, sae = planted
    job = [str(store.path), str(sae), "--table", str(folder / "labels.csv"), "--out", str(tmp_path / "out"), *FEW]
    assert main(["evaluate", *job]) == 0
    text = capsys.readouterr().out
    assert "no gain is claimed: no baseline chose from as many candidates (4); medsae baselines makes some" in text
    assert "over the raw neurons' (16 candidates)" in text


def test_a_comparison_has_them_beside_their_sae(planted, tmp_path, capsys):
    folder, store, sae = planted
    job = [str(store.path), str(sae), "--table", str(folder / "labels.csv"), "--baselines", str(folder / "baselines")]
    assert main(["compare", *job, "--out", str(tmp_path / "out"), *FEW]) == 0
    text = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [e["kind"] for e in content["saes"]] == ["sae", "random", "pca", "k-means", "neurons"]
    pairs = {(d["a"], d["b"]) for d in content["differences"] if d["figure"] == "mean_top_r"}
    assert {("planted", f"{kind} planted") for kind in ("random", "pca", "k-means")} <= pairs
    scores = Evaluation.open(tmp_path / "out" / "scores").saes[0]
    row = next(d for d in content["differences"] if d["figure"] == "mean_top_r" and d["b"] == scores.headline.over)
    assert row["difference"] == pytest.approx(scores.headline.mean_top_r)
    assert (row["low"], row["high"]) == pytest.approx((scores.headline.low, scores.headline.high))
    assert f"planted: mean r over the best baseline of as many candidates ({scores.headline.kind}, 4)" in text
    other = save_sae(tmp_path / "other", relu_sae(HOOK, torch.eye(D), encoder_sha256="0" * 64))
    assert (
        main(["compare", *[str(other) if x == str(sae) else x for x in job], "--out", str(tmp_path / "x"), *FEW]) == 1
    )
    assert "which is not scored here" in capsys.readouterr().err


def test_a_random_encoders_latents_are_of_its_own_activations_of_the_same_images(tmp_path):
    table = read_table(generate(12, tmp_path / "phantoms", seed=0, size=96, progress=False))
    table = table.split_by_patient(0, {"train": 0.5, "test": 0.5})
    store = extract(
        HookedVisionEncoder.from_pretrained("phantom-swin"), table, HOOK, tmp_path / "store", progress=False
    )
    d = store.hooks[HOOK].d
    sae = save_sae(tmp_path / "sae", relu_sae(HOOK, torch.eye(d), encoder_sha256=store.weights_sha256))
    like = Like.of(sae, store, seed=3)
    path = make_baselines(like, tmp_path / "out", ("random-encoder",), images=Images(table.root), progress=False)
    own = ActivationStore(path["random-encoder"] / "store")
    torch.manual_seed(3)
    drawn = build_encoder(load_card("phantom-swin"))
    pixels = drawn.preprocess(table.image_path(0))
    expected = drawn.activations(pixels, [HOOK])[HOOK][0].detach()
    torch.testing.assert_close(own.rows_of(HOOK, [0])[0, 0], expected, atol=1e-4, rtol=1e-4)
    assert own.weights_sha256 != store.weights_sha256 and own.images.equals(store.images)
    one = next(u for u in open_units(store, sae, baselines=[tmp_path / "out"]) if u.kind == "random-encoder")
    assert (one.n, one.baseline_of, one.encoder_sha256) == (d, "sae", own.weights_sha256) and one.fits(store)
    matrix = latent_matrix(store, one, tmp_path / "matrix", progress=False)
    activations = one.encode(own.image_rows(HOOK, slice(None))).detach().numpy()
    np.testing.assert_allclose(matrix.columns(0, d).toarray(), activations, atol=1e-5)
    assert matrix.manifest.encoder.weights_sha256 == own.weights_sha256
    fidelity, x = fidelity_of(store, one, LabelledImages.of(store, table).held_out()), own.image_rows(HOOK, slice(None))
    assert fidelity.n == store.n_rows(HOOK, "test")
    torch.testing.assert_close(fidelity.mean, x[(store.images["split"] == "test").to_numpy()].double().mean(0))
    others = write_store(tmp_path / "others", {HOOK: np.ones((12, d), np.float32)}, images=made_up_images(12, 0))
    with pytest.raises(MedSAEError, match="is of other images than those of"):
        one.rows_from(others)
