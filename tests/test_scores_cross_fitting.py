"""Cross-fitting against brute force on dense arrays: who chooses, who is scored, and how folds are pooled."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.planted import relu_sae, save_sae, write_store
from scipy import sparse, stats
from sklearn.metrics import f1_score, roc_auc_score
from torch import eye

from medsae_plugin.data.tables import read_table
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores import LabelledImages, Resampling, evaluate
from medsae_plugin.scores.cross_fitting import NOT_ABOVE, CrossFitted, cross_fit, cross_fitted_r
from medsae_plugin.scores.images import Folds
from medsae_plugin.scores.matrix import latent_matrix
from medsae_plugin.scores.scoring import HeldOut
from medsae_plugin.scores.units import Latents
from medsae_plugin.statistics.permutation import patient_shuffles

N, D, K = 240, 10, 4
LABELS = ("Edema", "Fracture", "Pneumonia")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Two images a patient; latents of very unlike scales, two of which follow each label about as well, so that folds
    choose differently; a tenth of the labels is unknown."""
    folder = tmp_path_factory.mktemp("folds")
    rng = np.random.default_rng(5)
    y = (rng.random((N, 3)) < (0.3, 0.2, 0.4)).astype(float)
    rows = rng.normal(size=(N, D)) - 0.3
    for c in range(3):
        rows[:, 2 * c] += 1.0 * y[:, c]
        rows[:, 2 * c + 1] += 1.0 * y[:, c]
    rows = (rows * 10.0 ** rng.integers(-2, 3, D)).astype(np.float32)
    patients = [f"p{k // 2}" for k in range(N)]
    images = pd.DataFrame({"image_id": np.arange(N), "path": [f"{k}.png" for k in range(N)], "patient": patients})
    images["split"] = np.where(np.arange(N) < 40, "train", np.where(np.arange(N) < 100, "val", "test"))
    store = write_store(folder / "store", {"hook_embedding": rows}, images=images)
    y[rng.random((N, 3)) < 0.1] = np.nan
    table = images[["path", "patient"]].assign(**{name: y[:, c] for c, name in enumerate(LABELS)})
    table.to_csv(folder / "labels.csv", index=False)
    sae = relu_sae("hook_embedding", eye(D))
    save_sae(folder / "sae", sae)
    return folder, store, read_table(folder / "labels.csv"), np.maximum(rows, 0).astype(np.float64), y, sae


@pytest.fixture(scope="module")
def scored(case, tmp_path_factory):
    _, store, table, *_, sae = case
    units = Latents.of(sae, "sae")
    images = LabelledImages.of(store, table).cross_fitted(Folds(K, seed=1))
    matrix = latent_matrix(store, units, tmp_path_factory.mktemp("matrix") / "m", progress=False)
    return cross_fit(units, matrix, HeldOut(images, resampling=Resampling(39, 20)))


def folds_of(scored):
    """The images to choose on and to score, of each fold, as told by the roles."""
    return [(part.rows("select"), part.rows("report")) for part in scored.held_out.images.folds]


def chosen_by_hand(a, y, rows, c):
    known = rows[~np.isnan(y[rows, c])]
    return int(np.argmax([np.corrcoef(a[known, j], y[known, c])[0, 1] for j in range(D)]))


def test_folds_are_the_held_out_patients_once_each(case, scored):
    _, store, *_ = case
    reported = np.concatenate([report for _, report in folds_of(scored)])
    assert sorted(reported) == list(range(40, N)) == list(scored.held_out.report)
    patient = store.images["patient"].to_numpy()
    for select, report in folds_of(scored):
        assert not set(patient[select]) & set(patient[report]) and len(select) + len(report) == N - 40


def test_figures_of_top_latents_by_hand(case, scored):
    _, _, _, a, y, _ = case
    folds, n_alike = folds_of(scored), 0
    for c in range(3):
        tops = [chosen_by_hand(a, y, select, c) for select, _ in folds]
        assert list(scored.chosen[:, c]) == tops and scored.folds_of_top[c] == tops.count(scored.top[c])
        n_alike += len(set(tops)) == 1
        own_r, s, n, z, auroc, pairs, fires, truth = [], [], [], [], [], [], [], []
        for (select, report), j in zip(folds, tops, strict=True):
            known = report[~np.isnan(y[report, c])]
            x, t = a[known, j], y[known, c]
            own_r.append(np.corrcoef(x, t)[0, 1])
            s.append(t.std()), n.append(len(t)), truth.append(t)
            z.append((x - x.mean()) / x.std())
            auroc.append(roc_auc_score(t, x)), pairs.append((t == 1).sum() * (t == 0).sum())
            positive = a[select, j][a[select, j] > 0]
            fires.append(x > np.quantile(positive, 0.7))
        z, fires, truth = map(np.concatenate, (z, fires, truth))
        n, s = np.array(n), np.array(s)
        r = scored.of_top("r")[c]
        assert r == pytest.approx(np.corrcoef(z, truth)[0, 1], abs=1e-9)
        assert r == pytest.approx((n * s * own_r).sum() / (n.sum() * truth.std()), abs=1e-9)
        assert scored.of_top("auroc")[c] == pytest.approx(np.average(auroc, weights=pairs), abs=1e-9)
        assert scored.of_top("f1")[c] == pytest.approx(f1_score(truth, fires), abs=1e-9)
    assert n_alike < 3  # or nothing was pooled


def test_entropy_is_of_out_of_fold_activations_and_other_figures_are_means_over_folds(case, scored):
    _, _, _, _, y, _ = case
    rows = scored.held_out.report
    r = np.empty((3, 3))
    for c in range(3):
        for d in range(3):
            known = ~np.isnan(y[rows, d])
            r[c, d] = np.corrcoef(scored.top_activations[known, c], y[rows, d][known])[0, 1]
    np.testing.assert_allclose(scored.top_r, r, atol=1e-9)
    np.testing.assert_allclose(scored.of_top("entropy"), stats.entropy(np.abs(r), axis=1), atol=1e-9)
    n = [fold.report.n_images for fold in scored.folds]
    selectivity = np.average([fold.of_top("selectivity") for fold in scored.folds], axis=0, weights=n)
    np.testing.assert_allclose(scored.of_top("selectivity"), selectivity)


def test_auroc_without_each_patient_is_of_pairs_within_a_fold(case, scored):
    """One patient less at a time, each fold's scored alone, with scikit-learn."""
    _, store, _, a, y, _ = case
    patient = store.images["patient"].to_numpy()
    for name, found in zip(np.unique(patient[scored.held_out.report]), scored.auroc_left_out, strict=True):
        for c in range(3):
            won, all_pairs = 0.0, 0
            for (_, report), j in zip(folds_of(scored), scored.chosen[:, c], strict=True):
                known = report[~np.isnan(y[report, c]) & (patient[report] != name)]
                t = y[known, c]
                pairs = (t == 1).sum() * (t == 0).sum()
                won, all_pairs = won + roc_auc_score(t, a[known, j]) * pairs, all_pairs + pairs
            assert found[c] == pytest.approx(won / all_pairs, abs=1e-9)


def test_chance_is_of_the_whole_procedure(case, scored):
    """r of the labels as they are, and of shuffled ones, as `CrossFitted` has it of the same labels."""
    _, _, _, a, _, _ = case
    rows, y = scored.held_out.report, scored.held_out.labels
    values, eligible = sparse.csr_array(a[rows].T), np.stack([fold.eligible for fold in scored.folds])
    found, tops = cross_fitted_r(values, y, scored.fold, eligible)
    np.testing.assert_allclose(found, scored.of_top("r"), atol=1e-6)
    np.testing.assert_array_equal(tops, scored.chosen)
    patients = scored.held_out.images.patients[rows]
    for order, null in zip(patient_shuffles(patients, 5, 0), scored.own_null[:5], strict=True):
        again = cross_fit(scored.units, scored.matrix, HeldOut(with_labels(scored.held_out.images, rows, y[order])))
        np.testing.assert_allclose(null, again.of_top("r"), atol=1e-5)
        np.testing.assert_array_equal(again.eligible, scored.eligible)
    assert len(scored.own_null) == 39 and (np.abs(scored.own_null.mean(0)) < 0.1).all()


def test_intervals_are_of_labels_above_chance_alone(scored):
    assert scored.above_chance.all() and scored.no_interval == [None] * 3
    assert np.isfinite(scored["r_low"]).all() and np.isfinite(scored["auroc_low"]).all()
    assert np.isfinite(scored["mean_top_r_low"])
    weak, null = CrossFitted(scored.folds, scored.held_out), scored.own_null
    weak.__dict__["own_null"] = np.stack([null[:, 0], null[:, 1] + 1, null[:, 2] + 1], axis=1)
    assert list(weak.above_chance) == [True, False, False] and weak.no_interval == [None, NOT_ABOVE, NOT_ABOVE]
    for name in ("r_low", "auroc_low"):
        assert np.isfinite(weak[name][0]) and np.isnan(weak[name][1:]).all()
    assert np.isnan(weak["mean_top_r_low"])


def test_where_a_unit_fires_is_told_by_its_own_activations_not_by_standardised_ones(case, scored):
    _, _, _, a, _, _ = case
    for c in range(3):
        for (_, report), j in zip(folds_of(scored), scored.chosen[:, c], strict=True):
            rows = np.searchsorted(scored.held_out.report, report)
            np.testing.assert_array_equal(scored.firing[rows, c], a[report, j] > 0)


def with_labels(images, rows, labels):
    """The same images with other labels in these rows, and in their folds."""
    changed = images.labels.copy()
    changed[rows] = labels
    return replace(images, labels=changed, folds=tuple(replace(part, labels=changed) for part in images.folds))


def test_no_fold_has_a_part_in_choosing_what_it_is_scored_on(case, scored):
    """Other labels of one fold's images leave that fold's choice as it is, and change others'."""
    images = scored.held_out.images
    report = images.folds[0].rows("report")
    again = cross_fit(scored.units, scored.matrix, HeldOut(with_labels(images, report, 1 - images.labels[report])))
    np.testing.assert_array_equal(again.chosen[0], scored.chosen[0])
    assert (again.chosen[1:] != scored.chosen[1:]).any()


def test_an_evaluation_by_folds_says_so_and_opens_again(case, tmp_path):
    folder, store, table, *_ = case
    few = Resampling(39, 40)
    found = evaluate(store, folder / "sae", table, tmp_path, folds=Folds(K, seed=1), resampling=few, progress=False)
    again = type(found).open(tmp_path)
    assert str(found) == str(again) and again.report.folds == K and again.report.images == N - 40
    assert "Cross-fitted over 4 folds of the patients of val and test (200 images, 100 patients)" in str(found)
    sae = again["sae"]
    top = sae.of_label("Edema")
    assert f"{top.latent} ({top.chosen_in}/4)" in str(found) and top.r_low < top.r < top.r_high
    gain = sae.gain_over_neurons
    assert gain.mean_top_r == pytest.approx(sae.mean_top_r - sae.neurons.mean_top_r)
    everything = evaluate(store, folder / "sae", table, folds=Folds(K, ("all",)), resampling=few, progress=False)
    assert everything.report.images == N
    with pytest.raises(MedSAEError, match="no images in split 'never'"):
        evaluate(store, folder / "sae", table, folds=Folds(K, ("never",)), progress=False)


def test_a_label_that_no_fold_can_both_choose_by_and_score_has_no_r(scored):
    """One positive image: the fold that has it cannot be chosen for, and no other has anything to score."""
    rows = scored.held_out.report
    labels = np.zeros((len(rows), 3))
    labels[7, 0], labels[[7, 150], 1], labels[:, 2] = 1, 1, scored.held_out.labels[:, 2]
    rare = cross_fit(scored.units, scored.matrix, HeldOut(with_labels(scored.held_out.images, rows, labels)))
    assert scored.fold[7] != scored.fold[150]
    assert np.isnan(rare.of_top("r")[0]) and np.isfinite(rare.of_top("r")[1:]).all()
    assert np.isnan(rare["p_top"][0]) and np.isnan(rare["r_low"][0]) and rare.no_interval[0] is not None
