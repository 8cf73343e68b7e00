"""Comparison of SAEs against brute force on dense arrays, and on planted stores."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import dictionary, matrix_manifest, planted_rows, write_store
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from scipy import stats as scipy_stats
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy as scipy_entropy
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from medsae_plugin import MedSAEError
from medsae_plugin.comparison import Comparison, compare
from medsae_plugin.comparison.cka import CKASums
from medsae_plugin.comparison.correlation import correlations, moments
from medsae_plugin.comparison.differences import LeftOut, Replicates, combined, differences, tops_left_out
from medsae_plugin.comparison.flow import flow
from medsae_plugin.comparison.found import pareto
from medsae_plugin.comparison.matching import decoder_cosine, match, max_decoder_cosine
from medsae_plugin.comparison.visibility import RIDGES, ProbeSums, visible_from
from medsae_plugin.data.tables import read_table
from medsae_plugin.scores import Evaluation, LabelledImages, Resampling
from medsae_plugin.scores.matrix import ROWS_PER_SHARD, LatentMatrix, LatentWriter
from medsae_plugin.statistics.jackknife import PatientJackknife

N, D, FEATURES = 360, 12, 8
LABELS = ("Edema", "Fracture", "Pneumonia")


def matrix_of(folder, dense):
    folder.mkdir()
    writer = LatentWriter(folder, dense.shape[1])
    for start in range(0, len(dense), 500):
        writer.add(dense[start : start + 500])
    ids = np.arange(len(dense))
    images = pd.DataFrame({"image_id": ids, "path": [f"{i}.png" for i in ids], "patient": "p", "split": "train"})
    writer.finish(matrix_manifest(dense.shape[1], len(dense)), images)
    return LatentMatrix(folder)


def sparse_activations(n, k, seed):
    rng = np.random.default_rng(seed)
    dense = rng.uniform(0.5, 4, (n, k)) * (rng.random((n, k)) < 0.1)
    dense[:, 0] = 0  # dead
    return dense.astype(np.float32)


def test_correlations_are_numpys_over_several_shards(tmp_path):
    n = ROWS_PER_SHARD + 300
    a, b = sparse_activations(n, 7, 0), sparse_activations(n, 5, 1)
    b[:, 1] = 2 * a[:, 3]
    rows = {"select": np.arange(0, n, 2), "report": np.arange(1, n, 2)}
    found = correlations(matrix_of(tmp_path / "a", a), matrix_of(tmp_path / "b", b), rows)
    for name, r in found.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = np.corrcoef(a[rows[name]].astype(float).T, b[rows[name]].astype(float).T)[:7, 7:]
        np.testing.assert_allclose(r, expected, atol=1e-12)
        assert np.isnan(r[0]).all() and np.isnan(r[:, 0]).all() and r[3, 1] == pytest.approx(1)
    assert moments(matrix_of(tmp_path / "c", a), rows["select"]).fired[1] == (a[::2, 1] > 0).sum()


def test_correlating_takes_no_more_memory_for_more_images(tmp_path):
    peaks = []
    for shards in (1, 4):
        n = shards * ROWS_PER_SHARD
        a = matrix_of(tmp_path / str(shards), sparse_activations(n, 40, 0))
        rows = {"select": np.arange(0, n, 2), "report": np.arange(1, n, 2)}
        tracemalloc.start()
        correlations(a, a, rows)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_matching_recovers_a_permutation_and_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    permutation = rng.permutation(30)
    a = sparse_activations(400, 30, 2)
    r = np.corrcoef(a.T, a[:, permutation].T)[:30, 30:]
    eligible = np.arange(30) > 0
    forward, back = match({"select": r, "report": r}, eligible, eligible[permutation])
    live = np.flatnonzero(eligible)
    assert (permutation[forward.best[live]] == live).all() and (permutation[forward.assigned[live]] == live).all()
    assert forward.best[0] == forward.assigned[0] == -1 and np.isnan(forward.best_r[0])
    assert (back.best[forward.best[live]] == live).all()
    assert forward.mean_max_correlation == pytest.approx(1) and forward.share_stable == 1

    r = rng.uniform(-1, 1, (6, 4))
    forward, back = match({"select": r, "report": r / 2}, np.ones(6, bool), np.ones(4, bool))
    row, column = linear_sum_assignment(-r)
    assert dict(zip(row, column, strict=True)) == {i: j for i, j in enumerate(forward.assigned) if j >= 0}
    assert (forward.best == r.argmax(1)).all() and (back.best == r.argmax(0)).all()
    np.testing.assert_allclose(forward.best_r, r.max(1) / 2)
    assert forward.mean_assigned_correlation == pytest.approx(r[row, column].mean() / 2)
    nothing, _ = match({"select": r, "report": r}, np.zeros(6, bool), np.ones(4, bool))
    assert (nothing.best == -1).all() and np.isnan(nothing.mean_max_correlation)


def test_decoder_cosines():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 8)), rng.normal(size=(7, 8))
    cosine = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    np.testing.assert_allclose(max_decoder_cosine(a, b), cosine.max(1))
    found = decoder_cosine(a, b, np.array([3, -1, 0, 6, 6]))
    np.testing.assert_allclose(found[[0, 2, 3, 4]], cosine[[0, 2, 3, 4], [3, 0, 6, 6]])
    assert np.isnan(found[1])


def test_flow_tells_every_fate_and_origin():
    n = 4000
    rng = np.random.default_rng(3)
    kept, parted, twin, gone, new = (rng.random(n) < 0.2 for _ in range(5))
    half = rng.random(n) < 0.5
    halves = rng.random(n) < 0.5
    early = np.stack([kept, parted, twin & halves, twin & ~halves, gone, np.zeros(n)], axis=1).astype(float)
    late = np.stack([2.0 * kept, parted & half, parted & ~half, twin, new, np.zeros(n)], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = {"select": np.corrcoef(early.T, late.T)[:6, 6:]}
    r["report"] = r["select"]
    eligible = np.array([True] * 5 + [False])
    found = flow(r, eligible, eligible)
    assert found.fates.tolist() == ["continues", "splits", "merges", "merges", "dies", "silent"]
    assert found.origins.tolist() == ["continued", "split off", "split off", "merged", "born", "silent"]
    assert set(zip(found.sources.tolist(), found.targets.tolist(), strict=True)) == {
        (0, 0), (1, 1), (1, 2), (2, 3), (3, 3),
    }  # fmt: skip
    assert found.counts()["fates"] == {"continues": 1, "splits": 1, "merges": 2, "dies": 1, "silent": 1}
    elsewhere = {"select": r["select"], "report": np.zeros((6, 6))}
    assert set(flow(elsewhere, eligible, eligible).fates) == {"dies", "silent"}


def brute_cka(x, y):
    """Kornblith et al. 2019 from centred Gram matrices, and from Song et al.'s unbiased HSIC."""
    h = np.eye(len(x)) - 1 / len(x)

    def hsic(k, m):
        return np.trace(h @ k @ h @ m)

    def unbiased(k, m):
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        one = np.ones(n)
        return (
            np.trace(k @ m)
            + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one @ k @ m @ one)
        ) / (n * (n - 3))

    # Neither depends on an offset, and without one the Gram matrices keep their digits.
    x, y = x - x.mean(0), y - y.mean(0)
    k, m = x @ x.T, y @ y.T
    return [f(k, m) / np.sqrt(f(k, k) * f(m, m)) for f in (hsic, unbiased)]


def test_streamed_cka_is_that_of_gram_matrices():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(90, 6)) + 50
    y = x @ rng.normal(size=(6, 9)) + rng.normal(size=(90, 9))
    z = rng.normal(size=(90, 40))
    sums = CKASums([6, 9, 40])
    for part in np.array_split(np.arange(90), 4):
        sums.update([x[part], y[part], z[part]])
    for i, a in enumerate((x, y, z)):
        for j, b in enumerate((x, y, z)):
            biased, debiased = brute_cka(a, b)
            assert sums.cka()[i, j] == pytest.approx(biased)
            assert sums.debiased()[i, j] == pytest.approx(debiased, abs=1e-9)
    assert sums.cka()[0, 2] > 0.1 > abs(sums.debiased()[0, 2])  # few images, many dimensions, nothing shared


def test_a_probe_has_the_direction_of_ridge_regression():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 10)) @ rng.normal(size=(10, 10))
    y = (x[:, 0] + rng.normal(size=200) > 0).astype(float)
    halves = [ProbeSums.of(part, y[rows, None]) for part, rows in ((x[:70], slice(70)), (x[70:], slice(70, 200)))]
    sums = halves[0] + halves[1]
    w = sums.directions(RIDGES)[:, 0]
    for ridge, direction in zip(RIDGES, w, strict=True):
        alpha = ridge * np.diag(np.cov(x.T, ddof=0)).mean() * len(x)
        expected = Ridge(alpha, solver="svd").fit(x, y).coef_
        cosine = direction @ expected / np.linalg.norm(direction) / np.linalg.norm(expected)
        assert cosine == pytest.approx(1)
    r = sums.correlation(w[:, None])[:, 0]
    np.testing.assert_allclose(r, [np.corrcoef(x @ direction, y)[0, 1] for direction in w])


def test_where_an_observation_becomes_visible():
    auroc, low = np.array([0.52, 0.81, 0.86, 0.84]), np.array([0.45, 0.7, 0.8, 0.8])
    assert visible_from(auroc, low) == 2
    assert visible_from(auroc, np.full(4, 0.4)) is None
    assert visible_from(np.full(2, np.nan), np.full(2, np.nan)) is None


def left_out_of(point, deviations, name="mean_top_r", no_interval=None):
    why = {name: no_interval} if no_interval else {}
    return LeftOut({name: point}, {name: point + np.asarray(deviations)}, {name: float(len(deviations) - 1)}, why)


def test_a_difference_takes_in_patients_and_seeds_as_scipy_would():
    """One image a patient and a mean for a figure: the jackknife's error of a mean is the textbook's, to scipy's t."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=20), rng.normal(size=20) + 0.5
    n = len(a)
    without = [(x.sum() - x) / (n - 1) - x.mean() for x in (a, b)]
    one, other = (left_out_of(x.mean(), w) for x, w in zip((a, b), without, strict=True))
    (row,) = differences([one, other], [(Replicates("a", (0,)), Replicates("b", (1,)))]).to_dict("records")
    paired = scipy_stats.ttest_rel(a, b)
    assert (row["difference"], row["p"]) == pytest.approx((a.mean() - b.mean(), paired.pvalue))
    assert (row["low"], row["high"]) == pytest.approx(tuple(paired.confidence_interval()))
    assert row["over"] == "patients" and row["no_interval"] is None

    # The same patients' noise in all seeds leaves seeds alone: Welch's test over them.
    seeds = [np.array([0.1, 0.3, 0.25]), np.array([0.5, 0.9])]
    found = [left_out_of(x, np.zeros(n)) for side in seeds for x in side]
    pair = (Replicates("a", (0, 1, 2)), Replicates("b", (3, 4)))
    (row,) = differences(found, [pair]).to_dict("records")
    welch = scipy_stats.ttest_ind(*seeds, equal_var=False)
    assert (row["low"], row["high"]) == pytest.approx(tuple(welch.confidence_interval()), rel=1e-6)
    assert row["p"] == pytest.approx(welch.pvalue, rel=1e-6) and row["over"] == "patients and seeds"
    # Seeds that agree by chance do not make up for being few: the tail is that of three degrees of freedom.
    rng = np.random.default_rng(1)
    for one in found:
        one.figures["mean_top_r"] += rng.normal(size=n)
        one.points["mean_top_r"] = 0.2 if one.points["mean_top_r"] < 0.4 else 0.7
    (row,) = differences(found, [pair]).to_dict("records")
    deviations = np.mean([one.figures["mean_top_r"] for one in found[:3]], axis=0)
    deviations = deviations - np.mean([one.figures["mean_top_r"] for one in found[3:]], axis=0)
    error = np.sqrt((n - 1) / n * np.square(deviations - deviations.mean()).sum())
    assert row["p"] == pytest.approx(2 * scipy_stats.t.sf(0.5 / error, 3), rel=1e-6)
    # One recipe with one seed: seeds cannot be taken in, and it says so; raw neurons have none.
    (row,) = differences(found, [(Replicates("a", (0, 1, 2)), Replicates("b", (3,)))]).to_dict("records")
    assert row["over"] == "patients"
    (row,) = differences(found, [(Replicates("a", (0, 1, 2)), Replicates("neurons", (3,), drawn=False))]).to_dict(
        "records"
    )
    assert row["over"] == "patients and seeds" and row["p"] > 0.001
    assert combined([(4.0, 3.0), (9.0, 5.0)]) == pytest.approx((13**0.5, 13**2 / (16 / 3 + 81 / 5)))


def test_no_difference_is_tested_where_a_figure_has_no_interval():
    found = [left_out_of(0.1, [0.1, -0.1], no_interval="few"), left_out_of(0.4, [0.1, -0.1])]
    frame = differences(found, [(Replicates("a", (0,)), Replicates("b", (1,)))])
    (row,) = frame.to_dict("records")
    assert row["no_interval"] == "few" and np.isnan([row["p"], row["low"], row["high"], row["fdr"]]).all()
    assert row["difference"] == pytest.approx(-0.3)


def test_pareto_front():
    points = [("a", 0.9, 10), ("a", 0.8, 5), ("a", 0.7, 7), ("a", 0.9, 12), ("b", 0.1, 90), ("a", None, 1)]
    saes = [{"encoder": "e", "hook": h, "explained_variance": v, "l0": n} for h, v, n in points]
    assert pareto(saes) == [True, True, False, False, True, False]


def planted_sae(folder, w_enc, w_dec, hook, b_enc, seed=0, shift=3.0):
    cfg = StandardSAEConfig(d_in=w_enc.shape[0], d_sae=w_enc.shape[1], device="cpu", dtype="float32")
    cfg.metadata.hook_name, cfg.metadata.encoder_sha256, cfg.metadata.seed = hook, "0" * 64, seed
    sae = StandardSAE(cfg)
    with torch.no_grad():
        sae.W_enc.copy_(torch.from_numpy(w_enc))
        sae.W_dec.copy_(torch.from_numpy(w_dec))
        sae.b_enc.fill_(b_enc)
        sae.b_dec.fill_(shift)
    sae.save_model(folder)
    return folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Two layers: the later one is the earlier one rotated. SAEs that read the dictionary off; labels from codes."""
    folder = tmp_path_factory.mktemp("planted")
    rows, codes = planted_rows(N, D, FEATURES, seed=0)
    rotation = np.linalg.qr(np.random.default_rng(9).normal(size=(D, D)))[0].astype(np.float32)
    noise = np.random.default_rng(8).normal(size=(N, D)).astype(np.float32)
    store = write_store(folder / "store", {"early": noise, "late": rows, "later": (rows - 3) @ rotation + 3})
    present = (codes[:, : len(LABELS)] > 0).astype(int)
    frame = pd.DataFrame(present, columns=list(LABELS))
    frame.insert(0, "Path", store.images["path"])
    frame.to_csv(folder / "labels.csv", index=False)
    w = dictionary(D, FEATURES).astype(np.float32)
    inverse = np.linalg.pinv(w).astype(np.float32)
    order = np.random.default_rng(7).permutation(FEATURES)
    saes = [
        planted_sae(folder / "late0", inverse, w, "late", -0.1, 0),
        planted_sae(folder / "late1", inverse[:, order], w[order], "late", -0.1, 1),
        planted_sae(folder / "later0", rotation.T @ inverse, w @ rotation, "later", -0.1, 0),
    ]
    out = folder / "out"
    table = read_table(folder / "labels.csv")
    resampling = Resampling(20, 100, 0)
    comparison = compare(store, saes, table, out, resampling=resampling, progress=False)
    return {"store": store, "codes": codes, "order": order, "out": out, "comparison": comparison, "table": table,
            "saes": saes, "rows": rows, "present": present}  # fmt: skip


def test_seeds_that_are_permutations_are_matched_and_stable(planted):
    matches = pd.read_parquet(planted["out"] / "matches.parquet")
    pair = matches[(matches["a"] == "late0") & (matches["b"] == "late1")]
    assert len(pair) == FEATURES
    assert (planted["order"][pair["assigned"]] == pair["latent"]).all() and (pair["best"] == pair["assigned"]).all()
    np.testing.assert_allclose(pair["assigned_r"], 1, atol=1e-5)
    np.testing.assert_allclose(pair["assigned_cosine"], 1, atol=1e-5)
    (stable,) = planted["comparison"].stability
    assert stable.saes == ["late0", "late1"] and stable.share_stable == 1
    latents = pd.read_parquet(planted["out"] / "latents.parquet")
    assert latents[latents["name"] == "late0"]["stability"].min() > 0.99
    assert latents[latents["name"] == "later0"]["stability"].isna().all()
    np.testing.assert_allclose(latents[latents["name"] == "late0"]["decoder_stability"], 1, atol=1e-5)
    assert latents[latents["name"] == "later0"]["decoder_stability"].isna().all()


def test_latents_of_a_rotated_layer_continue(planted):
    (followed,) = planted["comparison"].flows
    assert (followed.a, followed.b) == ("late0", "later0")
    assert followed.fates["continues"] == followed.origins["continued"] == FEATURES
    links = pd.read_parquet(planted["out"] / "links.parquet")
    assert (links["source"] == links["target"]).all() and len(links) == FEATURES


def test_layers_are_probed_and_aligned(planted):
    comparison = planted["comparison"]
    assert [x.hook for x in comparison.layers] == ["early", "late", "later"]
    assert comparison.cka[1][2] == pytest.approx(1) and comparison.cka_debiased[0][1] < 0.1
    test = planted["store"].images["split"].to_numpy() == "test"
    for c, entry in enumerate(comparison.visibility):
        assert entry.visible_from == [1]
        assert entry.layers[0].auroc < 0.75 and entry.layers[1].auroc > 0.97
        assert entry.layers[1].low <= entry.layers[1].auroc <= entry.layers[1].high
        assert entry.layers[1].latent in (c, int(np.flatnonzero(planted["order"] == c)[0]))
        activation = planted["codes"][test, c]
        assert entry.layers[1].latent_auroc == pytest.approx(
            roc_auc_score(planted["present"][test, c], activation), abs=0.02
        )


def test_seeds_are_one_recipe_whose_difference_from_neurons_is_real(planted):
    """Seeds of one recipe are replicates, whose spread is told: between them no difference is tested any more."""
    frame = pd.read_parquet(planted["out"] / "differences.parquet")
    assert set(frame["a"]) == {"late0 (2 seeds)", "later0"}
    neurons = frame[(frame["b"] == "neurons of late") & (frame["figure"] == "mean_top_r")]
    (row,) = neurons.to_dict("records")
    assert row["a"] == "late0 (2 seeds)" and row["low"] > 0
    assert row["over"] == "patients and seeds"
    late = Evaluation.open(planted["out"] / "scores")
    mean = (late["late0"].mean_top_r + late["late1"].mean_top_r) / 2
    assert row["difference"] == pytest.approx(mean - late["late0"].neurons.mean_top_r)
    (row,) = frame[(frame["b"] == "neurons of later") & (frame["figure"] == "mean_top_r")].to_dict("records")
    gain = late["later0"].gain_over_neurons
    assert (
        row["fdr"] < 0.05
        and row["over"] == "patients"
        and (row["low"], row["high"]) == pytest.approx((gain.low, gain.high), abs=1e-5)
    )
    (replicates,) = planted["comparison"].stability
    figures = [late[name].mean_top_r for name in ("late0", "late1")]
    assert replicates.means["mean_top_r"] == pytest.approx({"mean": np.mean(figures), "sd": np.std(figures, ddof=1)})
    assert "mean_top_r_low" not in replicates.means
    text = str(planted["comparison"])
    assert "Over seeds, mean +- standard deviation" in text and "of patients only, one seed a recipe" in text


def test_the_best_is_chosen_on_val_and_reported_on_test(planted, tmp_path):
    """Labels that another SAE's latents follow on the patients of val than on those of test: val decides."""
    assert planted["comparison"].ranked_on == "val"
    store, codes = planted["store"], planted["codes"]
    split = store.images["split"].to_numpy()
    w = dictionary(D, FEATURES).astype(np.float32)
    inverse = np.linalg.pinv(w).astype(np.float32)
    halves = [planted_sae(tmp_path / name, inverse[:, cut], w[cut], "late", -0.1, made)
              for name, cut, made in (("first", slice(0, 4), 0), ("last", slice(4, 8), 1))]  # fmt: skip
    on_val, on_test = codes[:, 4:7] > 0, codes[:, 0:3] > 0
    present = np.where((split == "val")[:, None], on_val, on_test)
    half = np.random.default_rng(0).random(len(present)) < 0.5
    present = np.where(((split == "train") & half)[:, None], on_val, present).astype(int)
    frame = pd.DataFrame(present, columns=list(LABELS))
    frame.insert(0, "Path", store.images["path"])
    frame.to_csv(tmp_path / "labels.csv", index=False)
    few = Resampling(20)
    found = compare(store, halves, read_table(tmp_path / "labels.csv"), tmp_path / "out", resampling=few,
                    progress=False)  # fmt: skip
    on_report = {e.name: e.mean_top_r for e in found.saes if e.kind == "sae"}
    assert found.ranked_on == "val" and found.best == "last" and on_report["first"] > on_report["last"]
    assert "the best, last: chosen on val, other patients than those of test" in str(found)
    found = compare(store, halves, read_table(tmp_path / "labels.csv"), tmp_path / "out", select="val", resampling=few,
                    progress=False)  # fmt: skip
    assert found.ranked_on == "test" and found.best == "first"
    assert "chosen on test, where it is reported, so its figures are optimistic" in str(found)


def test_intervals_hold_the_figures(planted):
    for entry in planted["comparison"].to_json()["saes"]:
        for figure in ("mean_top_r", "mean_top_entropy", "explained_variance"):
            if entry[figure] is not None:
                assert entry[f"{figure}_low"] - 1e-9 <= entry[figure] <= entry[f"{figure}_high"] + 1e-9
    text = str(planted["comparison"])
    assert "Stability across seeds" in text and "late0" in text and "neurons of later" in text


def test_the_same_comparison_gives_the_same_files(planted, tmp_path):
    out = planted["out"]
    before = {p.name: p.read_bytes() for p in out.glob("*.*")}
    compare(planted["store"], planted["saes"], planted["table"], out, resampling=Resampling(20, 100, 0),
                 progress=False)  # fmt: skip
    assert before == {p.name: p.read_bytes() for p in out.glob("*.*")}
    for name, content in before.items():
        assert b"patient0" not in content and str(tmp_path.parent).encode() not in content, name


def test_what_is_opened_is_what_was_saved(planted, tmp_path):
    opened = Comparison.open(planted["out"])
    assert opened.to_json() == planted["comparison"].to_json() and str(opened) == str(planted["comparison"])
    for name in ("saes", "observations", "visibility", "latents", "matches", "links", "cka", "differences"):
        pd.testing.assert_frame_equal(opened.frame(name), pd.read_parquet(planted["out"] / f"{name}.parquet"))
    with pytest.raises(MedSAEError, match="no table 'sae'; it has"):
        opened.frame("sae")
    with pytest.raises(MedSAEError, match=r"no comparison\.json"):
        Comparison.open(tmp_path)
    content = opened.to_json()
    del content["saes"][1]["hook"]
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    with pytest.raises(MedSAEError, match=r"not what medsae compare writes \(saes\.1\.hook: Field required"):
        Comparison.open(tmp_path)


def test_two_encoders_over_the_same_images(planted, tmp_path):
    other = write_store(tmp_path / "other", {"late": planted["rows"] * 2})
    manifest = json.loads((other.path / "manifest.json").read_text())
    manifest["encoder"] |= {"name": "second", "weights_sha256": "2" * 64}
    (other.path / "manifest.json").write_text(json.dumps(manifest))
    other = type(other)(other.path)
    w = dictionary(D, FEATURES).astype(np.float32)
    sae = planted_sae(tmp_path / "late0", np.linalg.pinv(w).astype(np.float32) / 2, w * 2, "late", -0.1, shift=6.0)
    config = json.loads((sae / "cfg.json").read_text())
    config["metadata"]["encoder_sha256"] = "2" * 64
    (sae / "cfg.json").write_text(json.dumps(config))
    stores, table = [planted["store"], other], planted["table"]
    comparison = compare(stores, [planted["saes"][0], sae], table, tmp_path / "out",
                           resampling=Resampling(20, 100, 0), progress=False)  # fmt: skip
    assert [e.name for e in comparison.saes if e.kind == "sae"] == ["planted/late0", "second/late0"]
    (pair,) = comparison.matching
    assert pair.mean_max_correlation > 0.99 and pair.mean_max_cosine is None
    with pytest.raises(MedSAEError, match="none of the stores"):
        config["metadata"]["encoder_sha256"] = "3" * 64
        (sae / "cfg.json").write_text(json.dumps(config))
        compare(stores, [planted["saes"][0], sae], table, tmp_path / "again", progress=False)
    fewer = write_store(tmp_path / "fewer", {"late": planted["rows"][:90]})
    manifest = json.loads((fewer.path / "manifest.json").read_text())
    manifest["encoder"]["weights_sha256"] = "4" * 64
    (fewer.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MedSAEError, match="do not hold the same images"):
        compare([planted["store"], type(fewer)(fewer.path)], [sae], table, tmp_path / "no", progress=False)


def test_figures_without_each_patient_against_a_plain_loop(planted):
    """r and entropy of fixed top latents, computed one patient less at a time with numpy."""
    matrix = LatentMatrix(planted["out"] / "scores" / "latents" / "late0")
    images = LabelledImages.of(planted["store"], planted["table"]).held_out("train", "test").without_embeddings()
    rows = images.rows("report")
    labels, patients = images.labels[rows], images.patients[rows]
    found = tops_left_out(matrix.columns(0, 3).toarray()[rows], np.zeros(3), images, PatientJackknife(patients))
    dense = matrix.columns(0, 3).toarray()[rows].astype(float)
    r, entropies = [], []
    for name in np.unique(patients):
        kept = patients != name
        with_all = np.corrcoef(dense[kept].T, labels[kept].T)[:3, 3:]
        share = np.abs(with_all) / np.abs(with_all).sum(1, keepdims=True)
        r.append(np.diag(with_all))
        entropies.append(scipy_entropy(share, axis=1).mean())
    np.testing.assert_allclose(found["r"], r)
    np.testing.assert_allclose(found["mean_top_r"], np.mean(r, axis=1))
    np.testing.assert_allclose(found["mean_top_entropy"], entropies)
