"""Probes: chosen and fitted on one split, scored on the other; what they tell of planted features is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import planted_rows, reading_weights, relu_sae, save_sae, write_store
from sae_lens import SAE
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.cli import main
from medsae_plugin.scores import LabelledImages, Probes, probe_units
from medsae_plugin.scores.images import Folds
from medsae_plugin.statistics.intervals import FEW_WITH, SELDOM_FIRES, auroc_interval
from medsae_plugin.training.memory import TrainingPatients

N, D, FEATURES = 420, 10, 5
LABELS = ("one", "two", "either", "never")


@pytest.fixture(autouse=True, scope="module")
def _few_ks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medsae_plugin.scores.probes.KS", (1, 2, 5))
        yield


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A store of five features; labels: features 0 and 1, either of features 2 and 3, and one that nobody has.

    Of the SAEs `whole` reads each feature and writes it back; `lossy` writes nothing back for feature 0.
    """
    folder = tmp_path_factory.mktemp("planted")
    rows, codes = planted_rows(N, D, FEATURES)
    store = write_store(folder / "store", {"h": rows})
    present = codes > 0
    labels = np.stack([present[:, 0], present[:, 1], present[:, 2] | present[:, 3], np.zeros(N)], 1).astype(float)
    labels[np.random.default_rng(0).random(labels.shape) < 0.1] = np.nan
    frame = pd.DataFrame(labels, columns=list(LABELS))
    frame.insert(0, "Path", store.images["path"])
    frame.to_csv(folder / "labels.csv", index=False)
    weights = reading_weights(D, FEATURES)
    saes = [save_sae(folder / "whole", relu_sae("h", **weights, encoder_sha256="0" * 64))]
    weights["decoder"] = weights["decoder"] * torch.tensor([[0.0], [1], [1], [1], [1]])
    saes.append(save_sae(folder / "lossy", relu_sae("h", **weights, encoder_sha256="0" * 64)))
    return folder, store, saes, labels


@pytest.fixture(scope="module")
def probes(planted):
    folder, store, saes, _ = planted
    return probe_units(store, saes, read_table(folder / "labels.csv", label_columns=LABELS), progress=False)


def split(store, name):
    return np.flatnonzero(store.images["split"] == name)


def test_one_unit_ranks_as_it_does_itself_and_k_as_scikit_learns_regression(planted, probes):
    _, store, saes, labels = planted
    train, test = split(store, "train"), split(store, "test")
    rows = next(store.image_batches("h", batch_images=N))[1]
    latents = SAE.load_from_disk(saes[0]).encode(rows).detach().double().numpy()
    (whole,) = [u for u in probes.units if u.name == "whole"]
    for c, o in enumerate(whole.labels[:3]):
        known = train[~np.isnan(labels[train, c])]
        r = np.abs([np.corrcoef(latents[known, j], labels[known, c])[0, 1] for j in range(FEATURES)])
        assert o.latents == [np.argsort(-r).tolist()]
        seen = test[~np.isnan(labels[test, c])]
        best = np.corrcoef(latents[known, o.latents[0][0]], labels[known, c])[0, 1]
        expected = roc_auc_score(labels[seen, c], np.sign(best) * latents[seen, o.latents[0][0]])
        assert o.k_sparse["1"] == pytest.approx(expected)
        assert o.positives == (labels[seen, c] == 1).sum() and o.known == len(seen)
        pair = latents[:, o.latents[0][:2]] / latents[known][:, o.latents[0][:2]].std(0)
        found = [
            roc_auc_score(labels[seen, c], LogisticRegression(C=s).fit(pair[known], labels[known, c])
                          .decision_function(pair[seen])) for s in (0.01, 0.1, 1)
        ]  # fmt: skip
        assert min(abs(o.k_sparse["2"] - auroc) for auroc in found) < 1e-3
    either = whole.labels[2]
    assert set(either.latents[0][:2]) == {2, 3} and either.k_sparse["2"] > either.k_sparse["1"] + 0.1
    assert either.sparse > 0.95 and either.sparse_units >= 2
    never = whole.labels[3]
    assert never.k_sparse == dict.fromkeys(map(str, probes.ks)) and never.sparse is None and never.single is None
    assert probes.hooks[0].auroc["never"] is None


def test_the_ceiling_tells_all_and_a_reconstruction_what_the_sae_writes_back(probes):
    (hook,) = probes.hooks
    assert all(hook.auroc[label] > 0.95 for label in LABELS[:3])
    whole, lossy = (next(u for u in probes.units if u.name == name) for name in ("whole", "lossy"))
    assert [o.k_sparse for o in whole.labels] == [o.k_sparse for o in lossy.labels], "the latents are the same"
    assert all(o.reconstructed > 0.95 for o in whole.labels[:3])
    assert abs(lossy.labels[0].reconstructed - 0.5) < 0.2 and lossy.labels[1].reconstructed > 0.95
    neurons = next(u for u in probes.units if u.kind == "neurons")
    assert all(o.reconstructed is None for o in neurons.labels)
    assert all(str(j).isdecimal() for o in neurons.labels for j in o.latents[0]), (
        "an axis and its negative tell the same"
    )
    assert probes.recovered(whole.mean(1), "h") == pytest.approx((whole.mean(1) - 0.5) / (hook.mean - 0.5))


def test_the_single_probe_is_the_latent_of_least_cross_entropy_on_select(planted, probes):
    _, store, saes, labels = planted
    train, test = split(store, "train"), split(store, "test")
    rows = next(store.image_batches("h", batch_images=N))[1]
    latents = SAE.load_from_disk(saes[0]).encode(rows).detach().double().numpy()
    whole = probes.units[0]
    for c, o in enumerate(whole.labels[:3]):
        known, seen = (rows[~np.isnan(labels[rows, c])] for rows in (train, test))
        fits = [LogisticRegression(C=100).fit(latents[known, j : j + 1], labels[known, c]) for j in range(FEATURES)]
        losses = [log_loss(labels[known, c], fits[j].predict_proba(latents[known, j : j + 1])) for j in range(FEATURES)]
        best = int(np.argmin(losses))
        assert o.single == best
        told = fits[best].predict_proba(latents[seen, best : best + 1])[:, 1]
        assert o.single_bce == pytest.approx(log_loss(labels[seen, c], told), abs=0.01)
        assert o.single_auroc == pytest.approx(roc_auc_score(labels[seen, c], told))
        share = np.full(len(seen), labels[known, c].mean())
        assert o.prevalence_bce == pytest.approx(log_loss(labels[seen, c], share))


def test_nothing_of_report_is_in_what_is_chosen_or_fitted(planted, probes, tmp_path):
    folder, store, saes, _ = planted
    frame = pd.read_csv(folder / "labels.csv")
    test = split(store, "test")
    frame.loc[test, list(LABELS[:3])] = 1 - frame.loc[test, list(LABELS[:3])]
    frame.to_csv(tmp_path / "turned.csv", index=False)
    turned = probe_units(store, saes[:1], read_table(tmp_path / "turned.csv", label_columns=LABELS), progress=False)
    for was, now in zip(probes.units[0].labels[:3], turned.units[0].labels[:3], strict=True):
        assert (now.latents, now.single, now.sparse_units) == (was.latents, was.single, was.sparse_units)
        for k in map(str, probes.ks):
            assert now.k_sparse[k] == pytest.approx(1 - was.k_sparse[k]), "the same scores, of the opposite"
        assert now.sparse == pytest.approx(1 - was.sparse)
        assert now.reconstructed == pytest.approx(1 - was.reconstructed)


def test_the_command_prints_and_writes_them(planted, probes, tmp_path, capsys):
    folder, store, saes, _ = planted
    arguments = ["probe", str(store.path), *map(str, saes), "--table", str(folder / "labels.csv"), "--labels",
                 ",".join(LABELS), "--out", str(tmp_path), "--quiet"]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().out
    opened = Probes.open(tmp_path)
    assert opened.to_json() == probes.to_json() and str(opened) in said
    assert "NaN" not in (tmp_path / "probes.json").read_text()
    assert "h: all 10 neurons" in said and "untrained whole" in said and "neurons of h" in said
    with pytest.raises(MedSAEError, match="nothing is held out"):
        probe_units(store, saes, read_table(folder / "labels.csv", label_columns=LABELS), report="train")


def test_a_spatial_hook_is_probed_by_its_means_and_an_axis_may_go_both_ways(planted, tmp_path):
    """The label is whether one axis is low at any position: its maximum says nothing of it, its negative's does."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 4, 3)).astype(np.float32)
    low = rng.random(300) < 0.4
    rows[low, 0, 1] = -20
    store = write_store(tmp_path / "store", {"h": rows})
    frame = pd.DataFrame({"Path": store.images["path"], "low": low.astype(int), "other": rng.integers(0, 2, 300)})
    frame.to_csv(tmp_path / "labels.csv", index=False)
    sae = relu_sae("h", torch.eye(3), encoder_sha256="0" * 64)
    table = read_table(tmp_path / "labels.csv", label_columns=["low", "other"])
    probes = probe_units(store, {"a": sae}, table, progress=False)
    neurons = probes.units[-1].labels[0]
    assert neurons.latents[0][0] == "-1" and neurons.k_sparse["1"] == 1 and probes.hooks[0].auroc["low"] > 0.95
    by_mean = probe_units(store, {"a": sae}, table, aggregate="mean", progress=False)
    assert by_mean.units[-1].labels[0].latents[0][0] == 1 and by_mean.units[-1].labels[0].k_sparse["1"] > 0.95


@pytest.fixture(scope="module")
def crossed(planted):
    folder, store, saes, _ = planted
    table = read_table(folder / "labels.csv", label_columns=LABELS)
    found = probe_units(store, saes[:1], table, folds=Folds(3, seed=4), progress=False)
    return found, LabelledImages.of(store, table).cross_fitted(Folds(3, seed=4)).folds


def pooled(scores, parts, labels, c, patients=None, gone=None):
    """The AUROC of a score an image, of pairs within a fold, without a patient."""
    won, pairs = 0.0, 0
    for part in parts:
        rows = part.rows("report")
        rows = rows[~np.isnan(labels[rows, c])]
        rows = rows if gone is None else rows[patients[rows] != gone]
        n = int((labels[rows, c] == 1).sum() * (labels[rows, c] == 0).sum())
        won, pairs = won + n * roc_auc_score(labels[rows, c], scores[rows]), pairs + n
    return won / pairs


def test_folds_are_fitted_on_the_others_and_pooled_as_by_scikit_learn(planted, crossed):
    """Units and probes of each fold from the others' patients alone; AUROC of pairs in a fold, its interval by hand."""
    _, store, saes, labels = planted
    found, parts = crossed
    rows = next(store.image_batches("h", batch_images=N))[1]
    latents = SAE.load_from_disk(saes[0]).encode(rows).detach().double().numpy()
    patients, reported = store.images["patient"].to_numpy(), np.concatenate([part.rows("report") for part in parts])
    assert sorted(reported) == sorted([*split(store, "val"), *split(store, "test")])
    for c, o in enumerate(found.units[0].labels[:3]):
        alone, logits, chosen = np.zeros(N), np.zeros((4, N)), []
        for k, part in enumerate(parts):
            fit, told = part.rows("select"), part.rows("report")
            assert not set(patients[fit]) & set(patients[told])
            fit = fit[~np.isnan(labels[fit, c])]
            r = np.array([np.corrcoef(latents[fit, j], labels[fit, c])[0, 1] for j in range(FEATURES)])
            order = np.argsort(-np.abs(r))
            assert o.latents[k] == order.tolist()
            alone[told] = np.sign(r[order[0]]) * latents[told, order[0]]
            losses, heads = [], []
            for j in range(FEATURES):
                heads.append(LogisticRegression(C=100).fit(latents[fit, j : j + 1], labels[fit, c]))
                losses.append(log_loss(labels[fit, c], heads[j].predict_proba(latents[fit, j : j + 1])))
            chosen.append(int(np.argmin(losses)))
            one = heads[chosen[-1]].decision_function(latents[told][:, [chosen[-1]]])
            pair = latents[:, order[:2]] / latents[fit][:, order[:2]].std(0)
            two = [LogisticRegression(C=s).fit(pair[fit], labels[fit, c]).decision_function(pair[told])
                   for s in (0.01, 0.1, 1)]  # fmt: skip
            logits[:, told] = [one, *two]
        auroc = pooled(alone, parts, labels, c)
        assert o.k_sparse["1"] == pytest.approx(auroc)
        by_penalty = [pooled(each, parts, labels, c) for each in logits[1:]]
        assert min(by_penalty) - 1e-3 < o.k_sparse["2"] < max(by_penalty) + 1e-3
        assert o.single == max(chosen, key=chosen.count) and o.single_in == chosen.count(o.single)
        assert o.single_auroc == pytest.approx(pooled(logits[0], parts, labels, c), abs=1e-6)
        known = reported[~np.isnan(labels[reported, c])]
        assert o.single_bce == pytest.approx(log_loss(labels[known, c], 1 / (1 + np.exp(-logits[0, known]))), abs=0.01)
        y = labels[known, c]
        assert (o.known, o.positives) == (len(y), y.sum())
        left_out = np.array([pooled(alone, parts, labels, c, patients, p) for p in np.unique(patients[reported])])
        counts = [(float((y == v).sum()), float(len(set(patients[known[y == v]])))) for v in (1, 0)]
        expected = auroc_interval(auroc, left_out, *zip(*counts, strict=True))
        assert o.intervals["1"] == pytest.approx(expected) and "1" not in o.no_interval
    assert (found.report.folds, found.report.images) == (3, len(reported))
    assert f"Probes cross-fitted over 3 folds of the patients of val and test ({len(reported)} images" in str(found)


def test_intervals_are_shown_or_it_is_said_why_there_are_none(probes):
    whole = probes.units[0]
    for o in whole.labels[:3]:
        for figure, auroc in [*o.k_sparse.items(), ("sparse", o.sparse), ("reconstructed", o.reconstructed)]:
            low, high = o.intervals[figure]
            assert low <= auroc <= high and f"{low:.2f}-{high:.2f}" in str(probes)
    low, high = probes.hooks[0].intervals["one"]
    assert low <= probes.hooks[0].auroc["one"] <= high
    assert not whole.labels[3].intervals and set(whole.labels[3].no_interval.values()) == {FEW_WITH}
    assert f"no interval: never ({FEW_WITH})" in str(probes)


def test_a_latent_that_seldom_fires_with_the_label_has_no_interval(planted, tmp_path):
    folder, store, *_ = planted
    frame = pd.read_csv(folder / "labels.csv")
    frame["never"] = ((np.random.default_rng(3).random(N) < 0.6) & (frame["one"] == 0)).astype(int)
    frame.to_csv(tmp_path / "labels.csv", index=False)
    weights = reading_weights(D, FEATURES)
    weights |= {name: weights[name][:1] for name in ("encoder", "decoder")}
    weights["b_enc"] = weights["b_enc"][:1] - 1.3  # fires on the largest of label one's codes alone
    rare = relu_sae("h", **weights, encoder_sha256="0" * 64)
    table = read_table(tmp_path / "labels.csv", label_columns=LABELS)
    found = probe_units(store, {"rare": rare}, table, progress=False)
    o = found.units[0].labels[3]
    assert o.no_interval["1"] == SELDOM_FIRES and "1" not in o.intervals and "reconstructed" in o.intervals
    assert f"never k=1 k=2 k=5 L1 one ({SELDOM_FIRES})" in str(found)


def test_the_command_takes_folds_and_another_table_and_refuses_seen_patients(planted, crossed, tmp_path, capsys):
    folder, store, saes, labels = planted
    found, _ = crossed
    frame = pd.read_csv(folder / "labels.csv")
    told = (store.images["split"] == "val").to_numpy()
    frame[told].to_csv(tmp_path / "valid.csv", index=False)

    def probed(sae, *more):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        arguments = ["probe", store.path, sae, "--table", folder / "labels.csv", "--labels", ",".join(LABELS), "--out",
                     out, "--quiet", *more]  # fmt: skip
        return Probes.open(out) if main([*map(str, arguments)]) == 0 else None

    by_command = probed(saes[0], "--folds", 3, "--seed", 4).units[0].labels  # the seed draws halves for penalties, too
    for one, other in zip(by_command, found.units[0].labels, strict=True):
        assert one.latents == other.latents and one.k_sparse.get("1") == other.k_sparse.get("1")
    assert "It is not known what the SAE was trained on" in capsys.readouterr().out
    external = probed(saes[0], "--test-table", tmp_path / "valid.csv")
    assert (external.report.split, external.report.images) == ("valid.csv", told.sum())
    latents = SAE.load_from_disk(saes[0]).encode(next(store.image_batches("h", batch_images=N))[1]).detach().numpy()
    for c, o in enumerate(external.units[0].labels[:2]):
        known = np.flatnonzero(told & ~np.isnan(labels[:, c]))
        assert o.k_sparse["1"] == pytest.approx(roc_auc_score(labels[known, c], latents[known, c]))
    trained = save_sae(tmp_path / "trained", SAE.load_from_disk(saes[0]))
    seen = set(store.images["patient"][store.images["split"] == "test"][:6])  # of two patients
    TrainingPatients.of(seen, "0" * 64, "trained", "h", 0).save(trained)
    capsys.readouterr()
    assert probed(trained) is None and "2 of the " in capsys.readouterr().err
    left = probed(trained, "--leave-out-trained")
    assert "Left out: 2 patients that an SAE was trained on." in capsys.readouterr().out
    assert left.report.images == len(split(store, "test")) - 6
