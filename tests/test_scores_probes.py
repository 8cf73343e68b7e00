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
from medsae_plugin.scores import Probes, probe_units

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
