"""Selectivity: what silencing does to probes and zero-shot scores, against float64 row by row and scikit-learn."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import made_up_images, relu_sae, save_sae, write_store
from jsonschema import Draft202012Validator
from sae_lens import TopKSAE, TopKSAEConfig
from sae_lens.saes.sae import SAEMetadata
from scipy.stats import t
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.cli import main
from medsae_plugin.scores import LabelledImages
from medsae_plugin.scores.choice import Choice
from medsae_plugin.scores.image_means import image_means
from medsae_plugin.scores.images import Folds
from medsae_plugin.scores.opening import untrained
from medsae_plugin.scores.scoring import HeldOut
from medsae_plugin.selectivity import Selectivity, score_selectivity
from medsae_plugin.statistics.intervals import FEW_WITH

N, D, POSITIONS, LATENTS = 360, 48, 4, 40
LABELS = ("one", "two", "three", "rare")
KS = (1, 3)


@pytest.fixture(autouse=True, scope="module")
def _few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medsae_plugin.selectivity.ablation.DRAWS", 2)
        yield


def planted_case(folder):
    """Labels one, two, three and a sex along the first four axes, each read off and written back by a latent of its
    own, which always fires, and more where the label is there; 36 more carry what goes with nothing. What no latent
    reads is noise. The axes are turned, so that no neuron stands for one."""
    rng = np.random.default_rng(0)
    images = made_up_images(N, 0)
    turned = np.linalg.qr(rng.normal(size=(D, D)))[0]
    present = np.column_stack([rng.random((N, 3)) < (0.3, 0.4, 0.5), np.repeat(np.arange(N // 3) % 2 == 1, 3)])
    codes = rng.uniform(0.2, 1, (N, POSITIONS, LATENTS))
    codes[..., :4] += present[:, None] * rng.uniform(0, 0.8, (N, POSITIONS, 4))
    codes[..., 4:] += rng.uniform(1, 2, (N, 1, LATENTS - 4)) * (rng.random((N, 1, LATENTS - 4)) < 0.3)
    rows = codes @ turned[:LATENTS] + rng.normal(size=(N, POSITIONS, D - LATENTS)) @ turned[LATENTS:]
    store = write_store(folder / "store", {"h": rows.astype(np.float32)}, images=images)
    rare = np.isin(np.arange(N), np.flatnonzero((images["split"] == "test") & present[:, 0])[:3])
    rare[np.flatnonzero((images["split"] == "train") & present[:, 1])[:6]] = True
    labels = np.column_stack([present[:, :3], rare]).astype(float)
    labels[rng.random(labels.shape) < 0.05] = np.nan
    frame = pd.DataFrame(labels, columns=list(LABELS))
    frame.insert(0, "Path", images["path"])
    frame.insert(1, "Sex", np.where(present[:, 3], "Male", "Female"))
    frame.insert(2, "Age", rng.integers(20, 90, N))
    frame.to_csv(folder / "labels.csv", index=False)
    read = torch.from_numpy(turned[:LATENTS]).float()
    sae = save_sae(folder / "own", relu_sae("h", read, encoder_sha256="0" * 64))
    return SimpleNamespace(folder=folder, store=store, sae=sae, turned=turned, table=folder / "labels.csv")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return planted_case(tmp_path_factory.mktemp("selectivity"))


@pytest.fixture(scope="module")
def table(case):
    return read_table(case.table, label_columns=LABELS)


@pytest.fixture(scope="module")
def found(case, table) -> Selectivity:
    return score_selectivity(case.store, [case.sae], table, ["sex", "age"], ks=KS, progress=False)


def units_of(found, kind):
    return next(u for u in found.units if u.kind == kind)


def row_by_row(case, sae, chosen, double=True):
    """x - decode(a) + decode(a without some latents), of every row, mean over an image's positions."""
    x = case.store.image_rows("h", slice(None))
    with torch.no_grad():
        a = sae.encode(x)
        whole = sae.decode(a)
        a = sae.encode(x)
        a[:, chosen] = 0
        edited = (x - whole + sae.decode(a)).double()
    return edited.reshape(N, POSITIONS, D).mean(1).numpy()


def heads_of(case, table, c):
    images = LabelledImages.of(case.store, table).held_out()
    (choice,) = Choice.each_of(HeldOut(images), 0)
    x = np.concatenate([part for _, part in image_means(case.store, "h")]).astype(np.float32)
    return images, x, choice.fit(x[choice.select], c)


@pytest.mark.parametrize("normalised", ["none", "layer_norm", "rescaled"])
def test_an_ablation_is_the_rows_without_what_the_latents_write(case, table, normalised):
    if normalised == "rescaled":
        metadata = SAEMetadata(hook_name="h", encoder_sha256="0" * 64)
        sae = TopKSAE(TopKSAEConfig(d_in=D, d_sae=LATENTS, k=6, rescale_acts_by_decoder_norm=True, metadata=metadata))
        directions = torch.from_numpy(case.turned[:LATENTS]).float()
        with torch.no_grad():
            sae.W_enc.copy_(directions.T)
            sae.W_dec.copy_(directions * torch.linspace(0.5, 3, LATENTS)[:, None])
    else:
        sae = relu_sae("h", torch.from_numpy(case.turned[:LATENTS]).float(), b_enc=-0.5, encoder_sha256="0" * 64)
        if normalised == "layer_norm":
            sae.cfg.normalize_activations = "layer_norm"
            sae._setup_activation_normalization()
    own = units_of(score_selectivity(case.store, {"made": sae}, table, ks=[2], progress=False), "sae")
    for c, label in enumerate(LABELS[:3]):
        images, x, head = heads_of(case, table, c)
        report = images.rows("report")
        y = images.labels[report, c]
        known = ~np.isnan(y)
        for concept in LABELS[:3]:
            ablation = own.of(concept, 2)
            edited = row_by_row(case, sae, ablation.units[0])[report]
            moved = head(edited) - head(x[report].astype(np.float64))
            effect = ablation.on(label)
            assert effect.score == pytest.approx(moved[y == 1].mean(), abs=2e-5)
            expected = [roc_auc_score(y[known], head(z)[known]) for z in (x[report].astype(np.float64), edited)]
            assert own.unedited[label] == pytest.approx(expected[0], abs=1e-9)
            assert effect.auroc == pytest.approx(expected[1], abs=2e-4)
            assert effect.change == pytest.approx(expected[1] - expected[0], abs=2e-4)


def test_intervals_are_the_jackknifes_of_the_difference(case, table, found):
    images, x, head = heads_of(case, table, 1)
    report, own = images.rows("report"), units_of(found, "sae")
    edited = row_by_row(case, torch_sae(case), own.of("two", 1).units[0])[report]
    y, patients = images.labels[report, 1], images.patients[report]
    before, after = head(x[report].astype(np.float64)), head(edited)

    def change(some):
        return roc_auc_score(y[some], after[some]) - roc_auc_score(y[some], before[some])

    known, names = ~np.isnan(y), np.unique(patients)
    left_out = np.array([change(known & (patients != name)) for name in names])
    spread = np.sqrt((len(names) - 1) / len(names) * ((left_out - left_out.mean()) ** 2).sum())
    fewer = min(len(np.unique(patients[y == value])) for value in (0, 1))
    half = t.ppf(0.975, fewer - 1) * spread
    effect = own.of("two", 1).on("two")
    assert (effect.low, effect.high) == pytest.approx((effect.change - half, effect.change + half), abs=1e-4)
    rare = own.of("rare", 1)
    assert rare.no_interval == FEW_WITH and rare.own_low is None and rare.on("rare").low is None


def torch_sae(case):
    from medsae_plugin.sae_folders import load_sae

    return load_sae(case.sae, "cpu")


def test_the_latent_of_a_label_is_its_own_and_a_random_one_is_not(found):
    own = units_of(found, "sae")
    for c, label in enumerate(LABELS[:3]):
        one = own.of(label, 1)
        assert one.units == [[c]]
        assert one.own < -0.2 and one.own_high < 0 and one.selectivity_low > 0.1
        assert abs(one.others) < 0.02 and one.score < 0 and one.score_high < 0
        effects = [one.on(name).change for name in LABELS[:3]]
        assert one.own == effects[c]
        others = [one.on(name).change for name in LABELS if name != label]
        assert one.others == pytest.approx(np.mean(others)) and one.selectivity == pytest.approx(one.others - one.own)
        assert abs(own.of(None, 1).on(label).change) < 0.02  # of 40 latents the draws have none of the three
    mean = own.means[0]
    assert mean.own == pytest.approx(np.mean([own.of(label, 1).own for label in LABELS]))
    assert mean.selectivity_low > 0.05 and abs(mean.random) < 0.02
    for kind in ("untrained", "neurons"):
        assert abs(units_of(found, kind).means[0].own) < abs(mean.own) / 2


def test_a_covariate_falls_and_the_findings_stay(found):
    own = units_of(found, "sae")
    assert found.covariates["sex"] == ["sex=Male"] and found.covariates["age"][0].startswith("age>=")
    sex = own.of("sex", 1, covariate=True)
    assert sex.units == [[3]] and sex.own < -0.2 and sex.own_high < 0
    assert all(abs(sex.on(label).change) < 0.02 for label in LABELS[:3])
    assert abs(own.of("one", 1).on("sex=Male").change) < 0.02
    assert "one" not in [c for a in own.ablations if a.covariate for c in [a.concept]]


def test_every_fold_chooses_and_fits_its_own(case, table):
    folds = Folds(3, ("all",))
    found = score_selectivity(case.store, [case.sae], table, ks=[1], folds=folds, progress=False)
    assert "Cross-fitted over 3 folds" in str(found)
    own = units_of(found, "sae")
    images = LabelledImages.of(case.store, table).cross_fitted(folds)
    held_out = HeldOut(images)
    x = np.concatenate([part for _, part in image_means(case.store, "h")]).astype(np.float32)
    ablation, sae, c = own.of("three", 1), torch_sae(case), 2
    assert len(ablation.units) == 3
    won, pairs = np.zeros(2), 0.0
    for choice, chosen in zip(Choice.each_of(held_out, 0), ablation.units, strict=True):
        head = choice.fit(x[choice.select], c)
        y = images.labels[choice.report, c]
        known = ~np.isnan(y)
        n = (y == 1).sum() * (y == 0).sum()
        scores = [head(z[choice.report].astype(np.float64)) for z in (x, row_by_row(case, sae, chosen))]
        won += [n * roc_auc_score(y[known], s[known]) for s in scores]
        pairs += n
    assert ablation.own == pytest.approx((won[1] - won[0]) / pairs, abs=2e-4)


def test_a_neuron_is_silenced_once_though_it_is_two_units(case, table, found):
    neurons = units_of(found, "neurons")
    for ablation in neurons.ablations:
        axes = [str(j).removeprefix("-") for j in (ablation.units or [[]])[0]]
        assert len(set(axes)) == len(axes)
    chosen = [int(str(j).removeprefix("-")) for j in neurons.of("one", 3).units[0]]
    images, x, head = heads_of(case, table, 0)
    report = images.rows("report")
    edited = x[report].astype(np.float64)
    edited[:, chosen] = 0
    y = images.labels[report, 0]
    moved = (head(edited) - head(x[report].astype(np.float64)))[y == 1].mean()
    assert neurons.of("one", 3).on("one").score == pytest.approx(moved, abs=1e-6)


def test_what_is_wrong_is_said(case, table):
    with pytest.raises(MedSAEError, match="no covariate and no label 'projection'; it has: sex, age, one"):
        score_selectivity(case.store, [case.sae], table, ["projection"], progress=False)
    with pytest.raises(MedSAEError, match="--k is how many"):
        score_selectivity(case.store, [case.sae], table, ks=[0, 1], progress=False)
    same = table.__class__(table.root, table.frame.assign(sex="Male"), table.labels, table.label_names)
    with pytest.raises(MedSAEError, match="'sex' does not vary"):
        score_selectivity(case.store, [case.sae], same, ["sex"], progress=False)


def test_the_command_writes_what_it_prints(case, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["selectivity", str(case.store.path), str(case.sae), "--table", str(case.table), "--out", str(out)]
    command += [
        "--labels",
        ",".join(LABELS),
        "--covariate",
        "sex",
        "--covariate",
        "two",
        "--k",
        "3,1",
        "--aggregate",
        "mean",
    ]
    assert main([*command, "--figures", "--quiet"]) == 0
    printed = capsys.readouterr().out
    made = Selectivity.open(out)
    assert str(made) in printed and made.ks == [1, 3] and made.covariates == {"sex": ["sex=Male"], "two": ["two"]}
    assert main(["schema", "selectivity"]) == 0
    Draft202012Validator(json.loads(capsys.readouterr().out)).validate(
        json.loads((out / "selectivity.json").read_text())
    )
    rows = pd.read_parquet(out / "selectivity.parquet")
    own = units_of(made, "sae").of("one", 3).on("two")
    (row,) = rows.query("kind == 'sae' and k == 3 and ablated == 'one' and target == 'two'").to_dict("records")
    assert row["change"] == pytest.approx(own.change) and row["score"] == pytest.approx(own.score)
    drawn = {p.name for p in (out / "figures").iterdir()}
    assert {"matrix-own-probe.png", "curve-own-probe.svg"} <= drawn
    text = (out / "figures" / "curve-own-probe.svg").read_text()
    assert "own, random latents" in text and "sex" in text
    assert str(tmp_path) not in (out / "selectivity.json").read_text()


def test_zero_shot_scores_are_those_of_the_embedding_without_what_the_latents_write(tmp_path):
    import medsae_plugin as medsae
    from medsae_plugin.data.prompts import load_prompts
    from medsae_plugin.encoders import ZeroShot
    from medsae_plugin.phantoms import generate

    labels = generate(36, tmp_path / "phantoms", seed=0, size=64, workers=0)
    table = read_table(labels, label_columns=["No Finding", "Lung Opacity"]).split_by_patient(
        seed=0, fractions={"train": 0.5, "test": 0.5}
    )
    encoder = medsae.HookedVisionEncoder.from_pretrained("phantom-swin")
    store = medsae.extract(encoder, table, ["hook_embedding"], tmp_path / "store", workers=0, progress=False)
    zero_shot = ZeroShot(encoder, load_prompts("phantoms"))
    x = store.image_rows("hook_embedding", slice(None)).double()
    w = (zero_shot.stated - zero_shot.denied).double()
    read = F.normalize(w, dim=1)
    center = x.mean(0)
    weights = {"b_enc": (-read @ center).float(), "b_dec": center.float()}
    sae = relu_sae("hook_embedding", read.float(), **weights, encoder_sha256=encoder.weights_sha256)
    scene = (encoder, zero_shot)
    found = score_selectivity(store, {"made": sae}, table, ks=[3], zero_shot=scene, batch_size=7, progress=False)
    assert found.prompts.name == "phantoms" and {u.measure for u in found.units} == {"probe", "zero-shot"}
    assert "zero-shot scores: means over observations" in str(found)
    images = LabelledImages.of(store, table).held_out()
    report = images.rows("report")
    z = x[report]
    a = ((z - center) @ read.T).relu()
    silenced = [u for u in found.units if u.measure == "zero-shot"]
    for one in [u for u in silenced if u.kind != "untrained"]:
        for label in ("No Finding", "Lung Opacity"):
            c, y = zero_shot.labels.index(label), images.labels[report, images.label_names.index(label)]
            known = ~np.isnan(y)
            ablation = one.of(label, 3)
            if one.kind == "sae":
                j = ablation.units[0]
                edited = z - a[:, j] @ read[j]
            else:
                edited = z.clone()
                edited[:, [int(str(j).removeprefix("-")) for j in ablation.units[0]]] = 0
            before, after = ((F.normalize(e, dim=1) @ w.T)[:, c].numpy() for e in (z, edited))
            assert ablation.score == pytest.approx((after - before)[y == 1].mean(), abs=1e-5)
            aurocs = [roc_auc_score(y[known], s[known]) for s in (before, after)]
            # Rounding may swap a pair of images that the two scores hold for equal.
            step = 2 / ((y == 1).sum() * (y == 0).sum())
            assert ablation.own == pytest.approx(aurocs[1] - aurocs[0], abs=step)
    blank = next(u for u in silenced if u.kind == "untrained")
    assert blank.of("No Finding", 3).score is not None and untrained(sae, 4).cfg.d_sae == sae.cfg.d_sae
    with pytest.raises(MedSAEError, match="trained on encoder weights"):
        other = relu_sae("hook_embedding", read.float(), **weights, encoder_sha256="1" * 64)
        score_selectivity(store, {"made": other}, table, ks=[1], zero_shot=scene, progress=False)
