"""Attribution and edits on phantoms: against formulas in float64, single passes, and scipy."""

import json

import numpy as np
import pytest
import torch
from extraction_case import one_thread  # noqa: F401
from scipy import stats
from torch.nn import functional as F

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.data.prompts import load_prompts
from medsae_plugin.encoders import ZeroShot, ablate, clamp, steer
from medsae_plugin.evaluation import (
    Attribution,
    attribute,
    contrast_with_random,
    effect_of_edits,
    load_saes,
    summarise_attribution,
)
from medsae_plugin.evaluation.passes import PixelBatches
from medsae_plugin.evaluation.resampling import PatientBootstrap


@pytest.fixture(scope="module")
def zero_shot(demo_saes) -> ZeroShot:
    return ZeroShot(demo_saes.encoder, load_prompts("phantoms"))


@pytest.fixture(scope="module")
def saes(demo_saes):
    return load_saes(demo_saes.encoder, [*demo_saes.folders.values()])


@pytest.fixture(scope="module")
def of_embedding(demo_saes, zero_shot, saes) -> Attribution:
    """Of the SAE on the embedding, over the test images."""
    batches = PixelBatches(demo_saes.encoder, demo_saes.split("test"), progress=False)
    return attribute(demo_saes.encoder, saes["embedding"], zero_shot, batches)


@pytest.fixture(scope="module")
def pixels(demo_saes) -> torch.Tensor:
    table = demo_saes.split("test")
    return demo_saes.encoder.preprocess([table.image_path(i) for i in range(len(table))])


def scores_of(zero_shot: ZeroShot, x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=-1) @ (zero_shot.stated - zero_shot.denied).double().T


def test_at_the_embedding_both_estimates_are_their_formulas(demo_saes, zero_shot, saes, of_embedding, pixels):
    """The score is s(x) = x / |x| . w, and latent j adds a_j d_j to x: s(x) - s(x - a_j d_j), and a_j d_j . ds/dx."""
    sae = saes["embedding"]
    with torch.no_grad():
        x = demo_saes.encoder(pixels)
        a, x = sae.encode(x).double(), x.double()
    image, latent = torch.from_numpy(of_embedding.image), torch.from_numpy(of_embedding.latent)
    assert set(zip(image.tolist(), latent.tolist(), strict=True)) == set(map(tuple, (a != 0).nonzero().tolist()))
    moved = a[image, latent][:, None] * sae.W_dec.detach().double()[latent]
    ablation = scores_of(zero_shot, x[image]) - scores_of(zero_shot, x[image] - moved)
    np.testing.assert_allclose(of_embedding.ablation, ablation, atol=2e-6)
    norm = x.norm(dim=-1, keepdim=True)[image]
    unit, w = x[image] / norm, (zero_shot.stated - zero_shot.denied).double()
    gradient = (moved @ w.T - (moved * unit).sum(-1, keepdim=True) * (unit @ w.T)) / norm
    np.testing.assert_allclose(of_embedding.gradient, gradient, atol=2e-6)
    np.testing.assert_allclose(of_embedding.activation, a[image, latent], rtol=1e-5)
    np.testing.assert_array_equal(of_embedding.rows, np.arange(len(pixels)))


def test_at_patches_ablation_is_a_pass_without_the_latent_and_the_gradient_its_slope(
    demo_saes, zero_shot, saes, pixels
):
    encoder, sae = demo_saes.encoder, saes["patches"]
    table = demo_saes.split("test").take(np.arange(4))
    got = attribute(encoder, sae, zero_shot, PixelBatches(encoder, table, batch_size=3, progress=False))
    pairs = np.random.default_rng(0).choice(len(got.latent), 12, replace=False)
    for pair in pairs:
        image, j = int(got.image[pair]), int(got.latent[pair])
        effect = effect_of_edits(encoder, zero_shot, pixels[image : image + 1], {sae: {j: ablate()}})
        np.testing.assert_allclose(got.ablation[pair], -effect.scores[0], atol=2e-6)
    # A latent scaled by 1 + h: its slope at h = 0, by central differences in float64.
    double, sae64 = encoder.to(torch.float64), sae.to(torch.float64)
    try:
        for pair in pairs[:3]:
            image, j = int(got.image[pair]), int(got.latent[pair])
            x = pixels[image : image + 1].double()
            with torch.no_grad():
                latents = double.run_with_cache_with_saes(x, saes=[sae64], use_error_term=True)[1]
                a = latents["stages.2.blocks.3.hook_resid_post.hook_sae_acts_post"][..., j]
                h = 1e-5
                with double.latent_edits({sae64: {j: steer(h * a)}}):
                    up = scores_of(zero_shot, double(x))
                with double.latent_edits({sae64: {j: steer(-h * a)}}):
                    down = scores_of(zero_shot, double(x))
            np.testing.assert_allclose(got.gradient[pair], ((up - down) / (2 * h))[0], atol=1e-5)
            assert got.activation[pair] == pytest.approx(float(a.max()), rel=1e-4)
    finally:
        encoder.to(torch.float32)
        sae.to(torch.float32)


def test_means_and_agreement_are_those_of_the_full_matrix(of_embedding):
    n, c = len(of_embedding.rows), len(of_embedding.labels)
    full = {}
    for kind in ("gradient", "ablation"):
        full[kind] = np.zeros((n, of_embedding.n_latents, c))
        full[kind][of_embedding.image, of_embedding.latent] = getattr(of_embedding, kind)
    live = of_embedding.live
    assert 10 < len(live) < of_embedding.n_latents
    some = np.arange(n) % 3 == 0
    np.testing.assert_allclose(of_embedding.mean(of_embedding.ablation), full["ablation"].mean(0)[live], atol=1e-9)
    np.testing.assert_allclose(
        of_embedding.mean(of_embedding.gradient, some), full["gradient"][some].mean(0)[live], atol=1e-9
    )
    agreement = of_embedding.agreement()
    for k, label in enumerate(of_embedding.labels):
        rho = stats.spearmanr(full["gradient"].mean(0)[live, k], full["ablation"].mean(0)[live, k]).statistic
        assert agreement[label] == pytest.approx(rho)
    assert np.mean([*agreement.values()]) > 0.8  # the score is nearly linear where one latent is small


def test_ablating_a_findings_latent_lowers_its_score_more_than_ablating_a_random_one(demo_saes, saes, of_embedding):
    """Of every finding that some latent stands for, by r > 0.7 on training patients: the effect on test patients."""
    train, test = demo_saes.split("train"), demo_saes.split("test")
    with torch.no_grad():
        batches = demo_saes.store.by_image("hook_embedding", split="train", batch_images=64)
        latents = saes["embedding"].encode(torch.cat([rows for _, rows, _ in batches])).double().numpy()
    stand_for = {}
    for label, y in zip(train.label_names, train.labels.T, strict=True):
        known = ~np.isnan(y)
        r = [stats.pearsonr(a[known], y[known]).statistic if np.ptp(a[known]) else -1 for a in latents.T]
        if max(r) > 0.7:
            stand_for[label] = int(np.argmax(r))
    assert len(stand_for) >= 4
    for label, latent in stand_for.items():
        present = test.labels[:, test.label_names.index(label)] == 1
        contrast = contrast_with_random(of_embedding, latent, label, test.frame["patient"].to_numpy(), present)
        assert contrast.images == present.sum() and contrast.patients >= 5
        assert 0 < contrast.low < contrast.difference < contrast.high, (label, contrast)
        assert contrast.fall > 10 * abs(contrast.random_fall), (label, contrast)


def test_the_contrast_is_the_formula_and_its_interval_resamples_patients():
    rng = np.random.default_rng(0)
    n, n_latents = 40, 6
    effects = rng.normal(size=(n, n_latents)) * (rng.random((n, n_latents)) < 0.6)
    effects[:, 4] = 0  # dead
    effects[:, 2] += 1.0
    image, latent = effects.nonzero()
    values = effects[image, latent][:, None]
    attribution = Attribution(("a",), n_latents, np.arange(n), image, latent, values[:, 0], values, values)
    patients = np.repeat([f"p{i}" for i in range(8)], 5)
    some = rng.random(n) < 0.7
    got = contrast_with_random(attribution, 2, "a", patients, some, seed=3)
    difference = effects[:, 2] - effects[:, [0, 1, 3, 5]].mean(1)
    assert got.fall == pytest.approx(effects[some, 2].mean())
    assert got.difference == pytest.approx(difference[some].mean()) == pytest.approx(got.fall - got.random_fall)
    bootstrap = PatientBootstrap(patients[some].tolist(), 1000, seed=3)
    replicates = bootstrap.mean(difference[some])
    by_patient = [difference[some & (patients == name)] for name in np.unique(patients)]
    by_hand = [np.concatenate([by_patient[i] for i in draw]).mean() for draw in bootstrap._draws]
    np.testing.assert_allclose(replicates, by_hand)
    assert (got.low, got.high) == pytest.approx(tuple(np.percentile(by_hand, [2.5, 97.5])))
    with pytest.raises(MedSAEError, match="no score of 'b'"):
        contrast_with_random(attribution, 2, "b", patients)
    with pytest.raises(MedSAEError, match="no image to average over"):
        contrast_with_random(attribution, 2, "a", patients, np.zeros(n))


def test_what_an_edit_does_to_the_embedding_and_the_findings(demo_saes, zero_shot, saes, of_embedding, pixels):
    encoder, sae = demo_saes.encoder, saes["embedding"]
    c = zero_shot.labels.index("Pleural Effusion")
    by_latent = of_embedding.mean(of_embedding.ablation)[:, c]
    j = int(of_embedding.live[by_latent.argmax()])
    only_first = torch.zeros(6)
    only_first[0] = 5.0
    raised = effect_of_edits(encoder, zero_shot, pixels[:6], {sae: {j: steer(only_first)}})
    assert raised.scores[0, c] > 0.05 and raised.cosine[0] < 0.99
    torch.testing.assert_close(raised.scores[1:], torch.zeros(5, 14), rtol=0, atol=1e-6)
    clamped = effect_of_edits(encoder, zero_shot, pixels[:6], {sae: {j: clamp(20.0)}})
    assert (clamped.scores[:, c] > 0).all() and clamped.cosine.shape == (6,)


def test_the_report_says_of_each_observation_what_holds(demo_saes, of_embedding, tmp_path, capsys):
    out = tmp_path / "a" / "attribution.json"
    command = ["attribute", "phantom-swin", str(demo_saes.folders["embedding"]), "--table", str(demo_saes.labels)]
    command += ["--store", str(demo_saes.store.path), "--workers", "0", "--quiet", "--out", str(out)]
    assert main(command) == 0
    printed, report = capsys.readouterr().out, json.loads(out.read_text())
    again = summarise_attribution(of_embedding, demo_saes.split("test"))
    assert [o["label"] for o in report["observations"]] == list(of_embedding.labels)
    assert report["live_latents"] == len(of_embedding.live) and report["sae"] == "embedding"
    for o, expected in zip(report["observations"], again["observations"], strict=True):
        assert o["strongest"] == sorted(o["strongest"], key=lambda s: -s["ablation"])
        assert o["agreement"] == pytest.approx(expected["agreement"], abs=1e-3)
        assert (o["top"] or {}).get("latent") == (expected["top"] or {}).get("latent")
        assert o["label"] in printed
    effusion = next(o for o in report["observations"] if o["label"] == "Pleural Effusion")
    assert f"{effusion['top']['fall']:+.3f}" in printed and effusion["top"]["images"] < effusion["positives"]
    assert str(tmp_path) not in out.read_text() and "patient0" not in out.read_text()
    with pytest.raises(MedSAEError, match="no label of the table"):
        table = demo_saes.split("test")
        summarise_attribution(of_embedding, table.__class__(table.root, table.frame, table.labels[:, :1], ("Cavity",)))


def test_latents_that_never_fire_are_an_error_not_an_empty_answer(demo_saes, zero_shot):
    encoder, table = demo_saes.encoder, demo_saes.split("test").take(np.arange(2))
    silent = load_saes(encoder, [demo_saes.folders["embedding"]])["embedding"]
    with torch.no_grad():
        silent.W_enc.zero_()
        silent.b_enc.zero_()
    with pytest.raises(MedSAEError, match="no latent of the SAE fires"):
        attribute(encoder, silent, zero_shot, PixelBatches(encoder, table, progress=False))
    assert encoder.acts_to_saes == {}
