"""Evaluation from end to end: planted latents found on other patients, sites merged."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import planted_rows, reading_weights, relu_sae, save_sae, write_store
from sae_lens import SAE
from scipy import stats
from sklearn.metrics import roc_auc_score

from medsae_plugin.cli import main
from medsae_plugin.data.tables import OBSERVATIONS, read_table
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores import Evaluation, Resampling, evaluate
from medsae_plugin.scores.opening import untrained
from medsae_plugin.scores.sites import SiteStatistics, site_statistics

N, D, FEATURES = 360, 12, 6
FEW = Resampling(n_permutations=39)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A store of activations made of six features, a CheXpert table with feature k as observation k, and an SAE."""
    folder = tmp_path_factory.mktemp("planted")
    rows, codes = planted_rows(N, D, FEATURES)
    store = write_store(folder / "store", {"hook_embedding": rows})
    labels = pd.DataFrame(0.0, index=range(N), columns=list(OBSERVATIONS))
    for k in range(FEATURES):
        labels[OBSERVATIONS[k]] = (codes[:, k] > 0).astype(float)
    labels.loc[::7, OBSERVATIONS[2]] = -1.0
    labels.insert(0, "Path", store.images["path"])
    labels.to_csv(folder / "labels.csv", index=False)
    # A latent reads each feature off; as many follow noise directions, and as many never fire.
    sae = relu_sae(
        "hook_embedding", **{name: with_idle_latents(w, name) for name, w in reading_weights(D, FEATURES).items()}
    )
    return folder, store, codes, save_sae(folder / "planted", sae)


def with_idle_latents(weight: torch.Tensor, name: str) -> torch.Tensor:
    """`relu_sae`'s weight with 18 more latents: six that follow noise, small, and twelve that never fire."""
    if name == "b_dec":
        return weight
    if name == "b_enc":
        return torch.cat([weight, torch.zeros(6), torch.full((12,), -1e3)])
    noise = np.random.default_rng(3).normal(size=(18, D))
    noise -= noise.mean(1, keepdims=True)  # at right angles to the rows' common offset
    return torch.cat([weight, torch.from_numpy(0.1 * noise).float()])


def test_planted_features_are_found_on_other_patients(planted, tmp_path):
    folder, store, codes, sae = planted
    table = read_table(folder / "labels.csv")
    evaluation = evaluate(store, [sae], table, tmp_path / "out", resampling=FEW, progress=False)
    trained, blank, neurons = evaluation.candidates
    assert [c.kind for c in evaluation.candidates] == ["sae", "untrained", "neurons"]
    rows = next(store.image_batches("hook_embedding", batch_images=N))[1]
    latents = SAE.load_from_disk(sae).encode(rows).detach().numpy()
    test = (store.images["split"] == "test").to_numpy()
    for k, o in enumerate(trained.observations[:FEATURES]):
        y = np.where(test & (table.labels[:, k] >= 0), table.labels[:, k], np.nan)
        known = ~np.isnan(y)
        assert o.latent == k and o.follows == o.label and o.p_top <= 1 / 196 and o.p_top <= o.p_holm <= 6 * o.p_top
        assert o.r == pytest.approx(stats.pearsonr(np.maximum(codes[known, k] - 0.5, 0), y[known])[0], abs=0.01)
        assert o.r == pytest.approx(stats.pearsonr(latents[known, o.latent], y[known])[0], abs=1e-5)
        assert o.r_low <= o.r <= o.r_high and o.r > o.r_chance and o.r <= o.r_same_split + 1e-9
        assert o.auroc == pytest.approx(roc_auc_score(y[known], latents[known, o.latent]), abs=1e-6)
        assert o.patients == store.images["patient"][known].nunique()
    never = trained.observations[FEATURES]
    assert never.r is None and never.auroc is None and never.positives == 0
    assert trained.mean_top_r > blank.mean_top_r and trained.mean_top_r > neurons.mean_top_r
    gain = trained.gain_over_neurons
    assert gain.mean_top_r == pytest.approx(trained.mean_top_r - neurons.mean_top_r)
    assert gain.low <= gain.mean_top_r <= gain.high
    x, x_hat = (t[test].detach().double().numpy() for t in (rows, SAE.load_from_disk(sae)(rows)))
    explained = 1 - ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert trained.fidelity["explained_variance"] == pytest.approx(explained, abs=1e-5)
    text = str(evaluation)
    assert "null" in text and "untrained" in text and "neurons" in text and "[95%]" in text
    assert ") latents that correlate with an observation (fdr < 0.05)" in text
    for name, one in (("this SAE", trained), ("neurons", neurons), ("untrained", blank)):
        beside = next(line for line in text.splitlines() if line.startswith(f"{name} "))
        assert f" {one.significant} ({one.pairs_counted} pairs) " in beside
    assert evaluation.report.in_thin_bands == 0 and "Thin bands" not in text
    changed = evaluation.to_json()
    changed["report"]["in_thin_bands"] = evaluation.report.patients
    assert f"Thin bands, so p is less sure: {evaluation.report.patients} of" in str(Evaluation.read(changed))
    tested = 0
    for c in range(len(table.label_names)):
        known = test & (table.labels[:, c] >= 0)
        expected = (latents[known] > 0).mean(0) * (table.labels[known, c] == 1).sum() if known.any() else np.zeros(24)
        p = evaluation.frame(trained.name)[f"p: {table.label_names[c]}"].notna().to_numpy()
        assert not p[expected < 5].any() and p[expected > 5].all()
        tested += int(p.sum())
    assert trained.pairs_counted == tested > 0 and trained.significant >= FEATURES
    frame = pd.read_parquet(tmp_path / "out" / "latents.parquet")
    assert len(frame) == 24 + 24 + 2 * D and {"auroc: Edema", "fdr: Edema", "monosemanticity"} <= set(frame.columns)
    again = evaluate(store, [sae], table, tmp_path / "again", resampling=FEW, progress=False)
    assert again.to_json() == evaluation.to_json()
    assert (tmp_path / "again" / "metrics.json").read_bytes() == (tmp_path / "out" / "metrics.json").read_bytes()


def test_random_labels_are_seldom_significant(planted):
    folder, store, _, sae = planted
    table = read_table(folder / "labels.csv")
    rng = np.random.default_rng(0)
    patients = store.images["patient"].to_numpy()
    _, code = np.unique(patients, return_inverse=True)
    labels = (rng.random((code.max() + 1, 14)) < 0.4)[code].astype(np.float32)
    random = replace(table, labels=labels)
    trained = evaluate(store, [sae], random, resampling=FEW, progress=False).saes[0]
    assert sum(o.p_holm <= 0.05 for o in trained.observations) <= 3
    assert trained.significant <= 2
    assert abs(trained.mean_top_r) < trained.mean_top_r_same_split


def test_three_sites_give_the_tables_of_all_their_images(planted, tmp_path):
    folder, store, _, sae = planted
    table = read_table(folder / "labels.csv")
    whole = site_statistics(store, [sae], table, progress=False)
    whole.save(tmp_path / "whole")
    frame, labels = pd.read_csv(folder / "labels.csv"), read_table(folder / "labels.csv").labels
    rows = next(store.image_batches("hook_embedding", batch_images=N))[1].numpy()
    for site in range(3):  # three images a patient: a site has whole patients
        mine = np.flatnonzero(np.arange(N) // 3 % 3 == site)
        part = write_store(tmp_path / f"store{site}", {"hook_embedding": rows[mine]})
        part.images["split"] = store.images["split"].to_numpy()[mine]
        part.images["path"] = [f"site{site}/{i}.png" for i in range(len(mine))]
        part.images["patient"] = store.images["patient"].to_numpy()[mine]
        part._locate()
        here = frame.iloc[mine].assign(Path=part.images["path"].to_numpy(), patient=part.images["patient"].to_numpy())
        here.to_csv(tmp_path / f"labels{site}.csv", index=False)
        site_table = read_table(tmp_path / f"labels{site}.csv")
        np.testing.assert_array_equal(site_table.labels, labels[mine])
        site_statistics(part, [sae], site_table, progress=False).save(tmp_path / f"site{site}")
    assert main(["merge", *[str(tmp_path / f"site{k}") for k in (2, 0, 1)], "--out", str(tmp_path / "merged")]) == 0
    assert main(["merge", str(tmp_path / "whole"), "--out", str(tmp_path / "all")]) == 0
    merged, every = (json.loads((tmp_path / out / "metrics.json").read_text()) for out in ("merged", "all"))
    assert_close(merged, every)
    frames = [pd.read_parquet(tmp_path / out / "latents.parquet") for out in ("merged", "all")]
    pd.testing.assert_frame_equal(*frames, rtol=0, atol=1e-9)
    direct = evaluate(store, [sae], table, resampling=FEW, progress=False)
    for ours, theirs in zip(every["candidates"], direct.to_json()["candidates"], strict=True):
        assert ours["mean_top_r"] == pytest.approx(theirs["mean_top_r"], abs=1e-9)
        assert [o["latent"] for o in ours["observations"]] == [o["latent"] for o in theirs["observations"]]
    for file in (tmp_path / "site0").iterdir():
        content = file.read_bytes()
        assert b"patient0" not in content and b".png" not in content and str(tmp_path).encode() not in content


def assert_close(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key])
    elif isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            assert_close(x, y)
    elif isinstance(a, float):
        assert a == pytest.approx(b, abs=1e-9)
    else:
        assert a == b


def test_sites_that_do_not_fit_are_refused(planted, tmp_path):
    folder, store, _, sae = planted
    table = read_table(folder / "labels.csv")
    site = site_statistics(store, [sae], table, progress=False)
    other = site_statistics(store, [sae], read_table(folder / "labels.csv", label_columns=["Edema"]), progress=False)
    with pytest.raises(MedSAEError, match="labels"):
        site.merge(other)
    with pytest.raises(MedSAEError, match="report is on"):
        site.merge(site_statistics(store, [sae], table, report="val", progress=False))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(MedSAEError, match="not empty"):
        site.save(tmp_path / "mine")
    with pytest.raises(MedSAEError, match=r"there is no site\.json in .*; medsae stats writes it"):
        SiteStatistics.load(tmp_path / "mine")


def test_an_untrained_sae_is_as_sparse_and_the_same_everywhere(planted):
    _, store, _, sae = planted
    trained = SAE.load_from_disk(sae)
    blank, again = untrained(trained, 3), untrained(trained, 3)
    rows = next(store.image_batches("hook_embedding", batch_images=50))[1]
    assert (blank.encode(rows) > 0).sum(1).max() <= 3
    assert (blank.encode(rows) == again.encode(rows)).all()
    assert blank.cfg.d_sae == trained.cfg.d_sae


def test_what_cannot_be_scored_is_refused(planted, tmp_path):
    folder, store, _, sae = planted
    table = read_table(folder / "labels.csv")
    with pytest.raises(MedSAEError, match="no readable images in split 'dev'"):
        evaluate(store, [sae], table, report="dev", progress=False)
    with pytest.raises(MedSAEError, match="nothing is held out"):
        evaluate(store, [sae], table, report="train", progress=False)
    with pytest.raises(MedSAEError, match="no SAE to evaluate"):
        evaluate(store, [], table, progress=False)


def test_images_without_a_row_are_not_scored_and_are_counted(planted, tmp_path):
    folder, store, _, sae = planted
    frame = pd.read_csv(folder / "labels.csv")
    split = store.images["split"].to_numpy()
    kept = np.arange(N) % 2 == 0
    frame[kept].to_csv(tmp_path / "half.csv", index=False)
    evaluation = evaluate(store, [sae], read_table(tmp_path / "half.csv"), resampling=FEW, progress=False)
    for role, name in (("select", "train"), ("report", "test")):
        here, counted = split == name, getattr(evaluation, role)
        assert counted.images == (here & kept).sum() and counted.without_row == (here & ~kept).sum()
        assert counted.patients == store.images["patient"][here & kept].nunique()
    said = str(evaluation).splitlines()
    assert f"test ({evaluation.report.images} images" in said[0]
    assert f"{(~kept & (split == 'test')).sum()} images of test" in said[1] and "no row in the table" in said[1]
    latents = (
        SAE.load_from_disk(sae).encode(next(store.image_batches("hook_embedding", batch_images=N))[1]).detach().numpy()
    )
    first = evaluation.saes[0].observations[0]
    scored = kept & (split == "test")
    truth = frame[OBSERVATIONS[0]].to_numpy()[scored]
    assert first.r == pytest.approx(stats.pearsonr(latents[scored, first.latent], truth)[0], abs=1e-5)
    frame[split == "train"].to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(MedSAEError, match=r"and 0 of the \d+ images of 'test' have a row in the table"):
        evaluate(store, [sae], read_table(tmp_path / "train.csv"), resampling=FEW, progress=False)
