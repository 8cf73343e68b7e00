"""Attribution and edits on phantoms: against formulas in float64, single passes, and scipy."""

import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from medsae_plugin import MedSAEError
from medsae_plugin.causal import (
    Attribution,
    AttributionReport,
    attribute,
    contrast_with_random,
    effect_of_edits,
    load_saes,
)
from medsae_plugin.causal.passes import PixelBatches
from medsae_plugin.cli import main
from medsae_plugin.data.prompts import load_prompts
from medsae_plugin.data.splits import folds_by_patient
from medsae_plugin.encoders import ZeroShot, ablate, clamp, steer


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


def falls(sae, zero_shot: ZeroShot, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """s(x) - s(x - a_j d_j) of every image and latent, `(images, latents, labels)`."""
    without = x[:, None] - a[..., None] * sae.W_dec.detach().double()
    return scores_of(zero_shot, x)[:, None] - scores_of(zero_shot, without)


def test_at_the_embedding_both_estimates_are_their_formulas(demo_saes, zero_shot, saes, of_embedding, pixels):
    """The score is s(x) = x / |x| . w, and latent j adds a_j d_j to x: s(x) - s(x - a_j d_j), and a_j d_j . ds/dx."""
    sae = saes["embedding"]
    with torch.no_grad():
        x = demo_saes.encoder(pixels).double()
    a = (x @ sae.W_enc.detach().double() + sae.b_enc.detach().double()).relu()
    image, latent = torch.from_numpy(of_embedding.image), torch.from_numpy(of_embedding.latent)
    assert set(zip(image.tolist(), latent.tolist(), strict=True)) == set(map(tuple, a.nonzero().tolist()))
    np.testing.assert_allclose(of_embedding.ablation, falls(sae, zero_shot, x, a)[image, latent], atol=2e-6)
    moved = a[image, latent][:, None] * sae.W_dec.detach().double()[latent]
    norm = x.norm(dim=-1, keepdim=True)[image]
    unit, w = x[image] / norm, (zero_shot.stated - zero_shot.denied).double()
    gradient = (moved @ w.T - (moved * unit).sum(-1, keepdim=True) * (unit @ w.T)) / norm
    np.testing.assert_allclose(of_embedding.gradient, gradient, atol=2e-6)
    np.testing.assert_allclose(of_embedding.activation, a[image, latent], rtol=1e-5, atol=1e-6)
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
            assert got.activation[pair] == pytest.approx(float(a.max()), rel=1e-4, abs=1e-5)
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
    np.testing.assert_array_equal(live, np.flatnonzero(full["ablation"].any((0, 2))))
    some = np.arange(n) % 3 == 0
    np.testing.assert_allclose(of_embedding.mean(of_embedding.ablation), full["ablation"].mean(0)[live], atol=1e-9)
    np.testing.assert_allclose(
        of_embedding.mean(of_embedding.gradient, some), full["gradient"][some].mean(0)[live], atol=1e-9
    )
    agreement = of_embedding.agreement()
    for k, label in enumerate(of_embedding.labels):
        rho = stats.spearmanr(full["gradient"].mean(0)[live, k], full["ablation"].mean(0)[live, k]).statistic
        assert agreement[label] == pytest.approx(rho, abs=1e-3)


def test_ablating_a_findings_latent_lowers_its_score_as_the_formula_says(
    demo_saes, zero_shot, saes, of_embedding, pixels
):
    """A step against w lowers x / |x| . w unless x lies along w; a step at right angles to w only shrinks |x|."""
    sae, test = saes["embedding"], demo_saes.split("test")
    with torch.no_grad():
        x = demo_saes.encoder(pixels).double()
    a = (x @ sae.W_enc.detach().double() + sae.b_enc.detach().double()).relu()
    expected = falls(sae, zero_shot, x, a).numpy()
    for c, label in enumerate(zero_shot.labels):
        present = test.labels[:, test.label_names.index(label)] == 1
        contrast = contrast_with_random(of_embedding, c, label, test.frame["patient"].to_numpy(), present)
        others = np.delete(expected[present][:, of_embedding.live], np.searchsorted(of_embedding.live, c), axis=1)
        assert contrast.fall == pytest.approx(expected[present, c, c].mean(), abs=2e-6)
        assert contrast.fall > 0 or not (a[present, c] > 0).any()
        assert contrast.random_fall == pytest.approx(others[..., c].mean(), abs=2e-6)
        assert contrast.images == present.sum()
        assert contrast.patients == test.frame["patient"][present].nunique()
        assert contrast.no_interval is None if contrast.patients >= 10 else "10 patients" in contrast.no_interval
        assert contrast.patients < 10 or contrast.low <= contrast.difference <= contrast.high
    aside = (of_embedding.latent >= len(zero_shot.labels)).nonzero()[0]
    whole = scores_of(zero_shot, x)[torch.from_numpy(of_embedding.image[aside])].numpy()
    longer = x.norm(dim=1)[:, None] / (x[:, None] - a[..., None] * sae.W_dec.detach().double()).norm(dim=2)
    grows = longer.numpy()[of_embedding.image[aside], of_embedding.latent[aside], None] * whole - whole
    np.testing.assert_allclose(of_embedding.ablation[aside], -grows, atol=2e-6)


def by_hand(by_patient: list[np.ndarray], found: float, rng: np.random.Generator) -> tuple[float, float]:
    """The bootstrap-t interval, resample by resample, patient by patient."""
    n = len(by_patient)

    def error(values, mean):
        deviations = [(v - mean).sum() for v in values]
        return np.sqrt(n / (n - 1) * np.square(deviations).sum()) / sum(map(len, values))

    t = []
    for weights in rng.multinomial(n, np.full(n, 1 / n), size=1000):
        drawn = [v for v, w in zip(by_patient, weights, strict=True) for _ in range(w)]
        mean = np.concatenate(drawn).mean()
        t.append((mean - found) / error(drawn, mean))
    low, high = np.percentile(t, [2.5, 97.5])
    return found - high * error(by_patient, found), found - low * error(by_patient, found)


def test_the_contrast_is_the_formula_and_its_interval_resamples_patients():
    rng = np.random.default_rng(0)
    n, n_latents = 40, 6
    effects = rng.normal(size=(n, n_latents)) * (rng.random((n, n_latents)) < 0.6)
    effects[:, 4] = 0  # dead
    effects[:, 2] += 1.0
    image, latent = effects.nonzero()
    values = effects[image, latent][:, None]
    attribution = Attribution(("a",), n_latents, np.arange(n), image, latent, values[:, 0], values, values)
    patients = np.repeat([f"p{i:02d}" for i in range(12)], [5] * 6 + [2, 1, 1, 2, 2, 2])
    some = rng.random(n) < 0.8
    got = contrast_with_random(attribution, 2, "a", patients, some, seed=3)
    difference = effects[:, 2] - effects[:, [0, 1, 3, 5]].mean(1)
    assert got.fall == pytest.approx(effects[some, 2].mean())
    assert got.difference == pytest.approx(difference[some].mean()) == pytest.approx(got.fall - got.random_fall)
    by_patient = [difference[some & (patients == name)] for name in np.unique(patients[some])]
    expected = by_hand(by_patient, got.difference, np.random.default_rng(3))
    assert got.no_interval is None and (got.low, got.high) == pytest.approx(expected)
    few = some & (patients < "p09")
    got = contrast_with_random(attribution, 2, "a", patients, few)
    assert np.isnan([got.low, got.high]).all() and got.no_interval == "fewer than 10 patients with the finding"
    with pytest.raises(MedSAEError, match="no score of 'b'"):
        contrast_with_random(attribution, 2, "b", patients)
    with pytest.raises(MedSAEError, match="no image to average over"):
        contrast_with_random(attribution, 2, "a", patients, np.zeros(n))


def test_what_an_edit_does_to_the_embedding_and_the_findings(demo_saes, zero_shot, saes, pixels):
    """Steering by t moves x to x + t d, clamping to t moves it to x + (t - a) d: cosines and scores follow."""
    encoder, sae = demo_saes.encoder, saes["embedding"]
    j = zero_shot.labels.index("Pleural Effusion")
    with torch.no_grad():
        x = encoder(pixels[:6]).double()
    d = sae.W_dec[j].detach().double()
    a = (x @ sae.W_enc[:, j].detach().double() + sae.b_enc[j].detach().double()).relu()
    only_first = torch.zeros(6)
    only_first[0] = 5.0
    for edit, by in ((steer(only_first), only_first), (clamp(20.0), 20 - a)):
        got = effect_of_edits(encoder, zero_shot, pixels[:6], {sae: {j: edit}})
        moved = x + by[:, None] * d
        change = scores_of(zero_shot, moved) - scores_of(zero_shot, x)
        np.testing.assert_allclose(got.scores, change, atol=2e-6)
        np.testing.assert_allclose(got.cosine, F.cosine_similarity(x, moved), atol=2e-6)
        assert (change[by > 0, j] > 0).all()


def test_the_report_says_of_each_observation_what_holds(demo_saes, of_embedding, tmp_path, capsys):
    out = tmp_path / "a" / "attribution.json"
    command = ["attribute", "phantom-swin", str(demo_saes.folders["embedding"]), "--table", str(demo_saes.labels)]
    command += ["--store", str(demo_saes.store.path), "--workers", "0", "--quiet", "--out", str(out)]
    assert main(command) == 0
    printed, report = capsys.readouterr().out, json.loads(out.read_text())
    again = AttributionReport.of(of_embedding, demo_saes.split("test"))
    assert AttributionReport.open(out).to_json() == report and str(AttributionReport.open(out)) in printed
    assert [o["label"] for o in report["observations"]] == list(of_embedding.labels)
    assert report["live_latents"] == len(of_embedding.live) and report["sae"] == "embedding"
    for o, expected in zip(report["observations"], again.observations, strict=True):
        assert o["strongest"] == sorted(o["strongest"], key=lambda s: -s["ablation"])
        assert o["agreement"] == pytest.approx(expected.agreement, abs=1e-3)
        assert (o["top"] and o["top"]["latent"]) == (expected.top and expected.top.latent)
        assert o["label"] in printed
    effusion = next(o for o in report["observations"] if o["label"] == "Pleural Effusion")
    assert f"{effusion['top']['fall']:+.3f}" in printed and effusion["top"]["images"] < effusion["positives"]
    assert str(tmp_path) not in out.read_text() and "patient0" not in out.read_text()
    with pytest.raises(MedSAEError, match="no label of the table"):
        table = demo_saes.split("test")
        AttributionReport.of(of_embedding, table.__class__(table.root, table.frame, table.labels[:, :1], ("Cavity",)))


def test_with_folds_each_is_ablated_by_the_latent_that_the_others_chose(demo_saes, zero_shot, saes, pixels, tmp_path):
    out = tmp_path / "attribution.json"
    command = ["attribute", "phantom-swin", str(demo_saes.folders["embedding"]), "--table", str(demo_saes.labels)]
    command += ["--store", str(demo_saes.store.path), "--workers", "0", "--quiet", "--out", str(out), "--folds", "3"]
    assert main(command) == 0
    report, sae, test = json.loads(out.read_text()), saes["embedding"], demo_saes.split("test")
    with torch.no_grad():
        x = demo_saes.encoder(pixels).double()
    a = (x @ sae.W_enc.detach().double() + sae.b_enc.detach().double()).relu()
    expected, a, patients = falls(sae, zero_shot, x, a).numpy(), a.numpy(), test.frame["patient"].to_numpy()
    labels = [o["label"] for o in report["observations"]]
    y = test.labels[:, [test.label_names.index(label) for label in labels]].astype(np.float64)
    fold, differ = folds_by_patient(patients.tolist(), 3, 0, y), 0
    assert report["folds"] == 3 and all(len(set(fold[patients == p])) == 1 for p in patients)
    for c, o in enumerate(report["observations"]):
        if len(set(fold[y[:, c] == 1])) < 2:  # of no fold, or of one alone, which nothing can be chosen for
            assert o["top"] is None
            continue
        fall, tops, r = np.zeros(len(y)), [], []
        for k in range(3):
            known = (fold != k) & ~np.isnan(y[:, c])
            with np.errstate(invalid="ignore"):
                of_all = np.nan_to_num([np.corrcoef(column, y[known, c])[0, 1] for column in a[known].T], nan=-1)
            tops.append(int(of_all.argmax())), r.append(of_all.max())
            fall[fold == k] = expected[fold == k, tops[-1], zero_shot.labels.index(o["label"])]
        differ += len(set(tops)) > 1
        assert o["top"]["fall"] == pytest.approx(fall[y[:, c] == 1].mean(), abs=2e-6)
        assert o["top"]["r"] == pytest.approx(np.mean(r), abs=1e-5) and o["top"]["latent"] in tops
        assert o["top"]["images"] == (y[:, c] == 1).sum() == o["positives"]
    assert differ  # or nothing told folds from halves


def test_latents_that_never_fire_are_an_error_not_an_empty_answer(demo_saes, zero_shot):
    encoder, table = demo_saes.encoder, demo_saes.split("test").take(np.arange(2))
    silent = load_saes(encoder, [demo_saes.folders["embedding"]])["embedding"]
    with torch.no_grad():
        silent.W_enc.zero_()
        silent.b_enc.zero_()
    with pytest.raises(MedSAEError, match="no latent of the SAE fires"):
        attribute(encoder, silent, zero_shot, PixelBatches(encoder, table, progress=False))
    assert encoder.acts_to_saes == {}
