"""A user's own metrics, declared outside the package, are seen wherever its own are."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.planted import planted_rows, write_store

import medsae_plugin as medsae
from medsae_plugin.report.data import report_data
from medsae_plugin.report.sources import open_run
from medsae_plugin.scores import Resampling
from medsae_plugin.scores.registry import METRICS

EVERYWHERE = ["table", "report", "comparison", "card"]
LABELS = ("Edema", "Fracture")


@pytest.fixture(scope="module")
def own():
    """A figure a latent, one a latent and label, and one an SAE."""

    @medsae.metric("busy", title="busyness", per="latent", unit="%", digits=".1f", show=EVERYWHERE)
    def busy(scored):
        return 100 * scored["density"]

    @medsae.metric("follow", title="r squared", per="label", better="higher", show=EVERYWHERE)
    def follow(scored):
        return scored["r"] ** 2

    @medsae.metric("silent", title="silent units", per="sae", better="lower", digits=".0f", show=[*EVERYWHERE, "rank"])
    def silent(scored):
        return float((scored["density"] == 0).sum())

    yield ("busy", "follow", "silent")
    for name in ("busy", "follow", "silent"):
        del METRICS[name]


@pytest.fixture(scope="module")
def made(own, tmp_path_factory):
    """Two trained SAEs and their comparison, with its evaluation."""
    folder = tmp_path_factory.mktemp("made")
    rows, codes = planted_rows(300, 8, 5)
    store = write_store(folder / "store", {"late": rows})
    frame = pd.DataFrame((codes[:, :2] > 0).astype(int), columns=list(LABELS))
    frame.insert(0, "Path", store.images["path"])
    frame.to_csv(folder / "labels.csv", index=False)
    specs = [medsae.SAESpec(f"s{k}", "late", "topk", expansion=2, options={"k": 3}, seed=k) for k in (0, 1)]
    config = medsae.TrainingConfig(1920, batch_size=64, lr=1e-3)
    saes = medsae.train_saes(store, specs, config, folder / "run", progress=False)
    table = medsae.read_table(folder / "labels.csv", label_columns=LABELS)
    comparison = medsae.compare(store, saes, table, folder / "out", resampling=Resampling(19, 30), progress=False)
    return folder, comparison


def test_they_stand_in_the_files_with_their_values(made):
    folder, _ = made
    content = json.loads((folder / "out" / "scores" / "metrics.json").read_text())
    latents = pd.read_parquet(folder / "out" / "scores" / "latents.parquet")
    np.testing.assert_allclose(latents["busy"], 100 * latents["density"])
    for label in LABELS:
        np.testing.assert_allclose(latents[f"follow: {label}"], latents[f"r: {label}"] ** 2)
    for c in content["candidates"]:
        mine = latents[latents["name"] == c["name"]].set_index("latent")
        assert c["silent"] == (mine["density"] == 0).sum()
        for o in c["observations"]:
            if o["latent"] is not None:
                assert o["busy"] == pytest.approx(100 * mine.at[str(o["latent"]), "density"])
                assert o["follow"] == pytest.approx(o["r"] ** 2)


def test_they_stand_in_the_table(made):
    folder, _ = made
    evaluation = medsae.Evaluation.open(folder / "out" / "scores")
    said = str(evaluation).splitlines()
    heads = next(line for line in said if line.startswith("observation "))
    assert "busyness" in heads and "r squared" in heads
    assert sum("silent units" in line for line in said) == 2  # a column of each SAE's table of all that is beside it
    o = evaluation.saes[0].observations[0]
    row = next(line for line in said if line.startswith("Edema"))
    assert f" {o.busy:.1f} " in f"{row} " and f" {o.follow:.2f} " in f"{row} "


def test_they_stand_in_the_comparison(made):
    folder, comparison = made
    evaluation = medsae.Evaluation.open(folder / "out" / "scores")
    for entry in comparison.saes:
        assert entry.silent == evaluation[entry.name].silent
        for top, o in zip(entry.top, evaluation[entry.name].observations, strict=True):
            assert (top.busy, top.follow) == (o.busy, o.follow)
    assert "silent units" in str(comparison).splitlines()[2] and "silent" in comparison.frame("saes")
    assert {"busy", "follow"} <= set(comparison.frame("observations"))


def test_saes_are_ranked_by_a_figure_that_ranks(made, tmp_path):
    """On val, where the comparison chooses: the figures there are those of an evaluation that reports on it."""
    folder, comparison = made
    store, table = (
        medsae.ActivationStore(folder / "store"),
        medsae.read_table(folder / "labels.csv", label_columns=LABELS),
    )
    on_val = medsae.evaluate(store, [folder / "run" / s for s in ("s0", "s1")], table, tmp_path, report="val",
                             resampling=Resampling(9), progress=False)  # fmt: skip
    saes = on_val.saes
    assert comparison.ranked_on == "val" and [s.name for s in saes] == [e.name for e in comparison.saes][:2]
    better = {"mean_top_r": -1, "mean_top_entropy": 1, "mean_monosemanticity": -1, "silent": 1}
    assert all(METRICS[name].better == ("lower" if sign > 0 else "higher") for name, sign in better.items())
    assert {s.value("mean_monosemanticity") for s in saes} == {None}, "a store without embeddings, so all rank alike"
    ranks = [pd.Series([sign * (s.value(name) or 0) for s in saes]).rank() for name, sign in better.items()]
    np.testing.assert_allclose([e.mean_rank for e in comparison.saes][:2], np.mean(ranks, axis=0))


def test_they_stand_in_the_data_of_a_report(made):
    folder, comparison = made
    data, _ = report_data(open_run(folder / "out"), None, None)
    told = {m["name"]: m for m in data["metrics"]}
    assert told["busy"]["title"] == "busyness" and told["busy"]["unit"] == "%" and {"follow", "silent"} <= set(told)
    for sae, entry in zip(data["saes"], comparison.saes, strict=False):
        assert sae["silent"] == entry.silent
        assert len(sae["latents"]["busy"]) == 16 and len(sae["latents"]["follow"]) == len(LABELS)
        assert [o["busy"] for o in sae["observations"]] == [t.busy for t in entry.top]


def test_they_stand_on_the_model_card(made, tmp_path):
    folder, _ = made
    scores = folder / "out" / "scores"
    medsae.publish([folder / "run"], "lab/saes", metrics=scores, dry_run=tmp_path / "out", licence="mit", small=0)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "busyness" in card and "r squared" in card and "silent units" in card


def test_a_name_that_is_taken_is_refused(own):
    for name in ("r", "busy"):
        with pytest.raises(medsae.MedSAEError, match=f"there is a metric '{name}' already"):
            medsae.metric(name, title="mine", per="sae")(len)
