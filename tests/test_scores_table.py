"""What a table says of an evaluation, and what it leaves out because it would mean nothing."""

import re

import numpy as np
import pandas as pd
import pytest
from helpers.planted import planted_rows, reading_weights, relu_sae, write_store

from medsae_plugin import evaluate, read_table
from medsae_plugin.scores import Resampling
from medsae_plugin.scores.metrics import BAND_EDGES, density_bands
from medsae_plugin.scores.models import DensityBand, UnitScores
from medsae_plugin.scores.registry import METRICS

N, D, FEATURES = 240, 8, 5
LABELS = ("Edema", "Fracture", "Pneumonia", "Never", "Always")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """`scored(labels)`: an SAE whose latent k reads feature k, scored against some of the labels.

    The first three are features; nobody has "Never", all have "Always".
    """
    folder = tmp_path_factory.mktemp("scored")
    rows, codes = planted_rows(N, D, FEATURES)
    store = write_store(folder / "store", {"hook_embedding": rows})
    frame = pd.DataFrame((codes[:, :3] > 0).astype(int), columns=list(LABELS[:3])).assign(Never=0, Always=1)
    frame.insert(0, "Path", store.images["path"])
    frame.to_csv(folder / "labels.csv", index=False)
    sae = relu_sae("hook_embedding", **reading_weights(D, FEATURES), encoder_sha256="0" * 64)

    def make(labels):
        table = read_table(folder / "labels.csv", label_columns=labels)
        return evaluate(store, {"a": sae}, table, resampling=Resampling(39, 30), progress=False)

    return make


def row(text: str, start: str) -> list[str]:
    return re.split(r"\s{2,}", next(line for line in text.splitlines() if line.startswith(start)).strip())


def test_observations_that_cannot_be_scored_are_in_no_count_and_no_mean(scored):
    evaluation = scored(LABELS)
    (sae,) = evaluation.saes
    assert [o.scorable for o in sae.observations] == [True, True, True, False, False]
    text = str(evaluation)
    assert "above chance (p < 0.05): 3 of 3 that can be scored; that follow their own observation most: 3 of 3" in text
    for label in ("Never", "Always"):
        assert set(row(text, label)[2:]) <= {"-"}, "no figure, nor of the neurons beside it"
    kept = sae.observations[:3]
    assert sae.mean_top_r == pytest.approx(np.mean([o.r for o in kept]))
    assert sae.mean_top_entropy == pytest.approx(np.mean([o.entropy for o in kept]))
    assert sae.mean_top_entropy_floor == pytest.approx(np.mean([o.entropy_floor for o in kept]))
    assert sae.mean_top_r_partial == pytest.approx(np.mean([o.r_partial for o in kept]))
    only = scored(LABELS[:3])
    same = ("mean_top_r", "mean_top_entropy", "mean_top_entropy_floor", "mean_top_r_partial", "significant")
    for name in same:
        assert only.saes[0].value(name) == pytest.approx(sae.value(name)), "they change nothing"
    assert [o.entropy_normalised for o in kept] == pytest.approx([o.entropy / np.log(3) for o in kept])


def test_one_observation_has_no_entropy_and_is_followed_by_necessity(scored):
    for labels in (("Edema",), ("Edema", "Never")):
        evaluation = scored(labels)
        (sae,) = evaluation.saes
        (o, *_) = sae.observations
        assert o.r > 0.5 and o.entropy is None and o.entropy_floor is None and o.entropy_normalised is None
        assert sae.mean_top_entropy is None and sae.mean_entropy is None
        text = str(evaluation)
        assert (
            "above chance (p < 0.05): 1 of 1" in text and "follow" not in text.split("above chance")[1].split("\n")[0]
        )


def test_nothing_is_counted_where_nothing_can_be_scored(scored):
    evaluation = scored(("Never", "Always"))
    assert "no observation can be scored" in str(evaluation) and "above chance (" not in str(evaluation)
    assert evaluation.saes[0].mean_top_r is None


def test_neurons_and_baselines_have_the_figures_of_the_sae_beside_them(scored):
    evaluation = scored(LABELS[:3])
    (sae,) = evaluation.saes
    text = str(evaluation)
    heads = row(text, "      ")
    assert heads[:2] == ["candidates", "L0 an image"]
    assert "(1) latents that correlate with an observation (fdr < 0.05)" in text
    for one, name in ((sae, "this SAE"), *((one, one.kind) for one in sae.beside)):
        cells = dict(zip(heads, row(text, f"{name} ")[1:], strict=False))
        assert cells["monosemanticity"] == METRICS["mean_monosemanticity"].form(one.mean_monosemanticity)
        assert cells["(1)"] == f"{one.significant:.0f} ({one.pairs_counted:,} pairs)"


def units(name: str, bands: list[tuple[int, int, float]], **more) -> UnitScores:
    edges = 10.0**BAND_EDGES
    made = [DensityBand(low=edges[k], high=edges[k + 1], units=n, monosemanticity=ms) for k, n, ms in bands]
    fields = {"fidelity": None, "d_sae": 100, **more}
    return UnitScores(
        name=name, kind="sae", hook="h", architecture="topk", d_in=4, observations=[], density_bands=made, **fields
    )


def test_monosemanticity_is_compared_within_bands_of_density():
    """Each band weighs as many as this SAE has units in it; a band where either has fewer than five does not count."""
    sae = units("sae", [(7, 30, 0.8), (8, 10, 0.6), (9, 4, 0.1), (10, 9, 0.5)])
    other = units("other", [(7, 5, 0.9), (8, 400, 0.4), (9, 50, 0.9), (10, 4, 0.9), (11, 70, 0.2)])
    own, beside = sae.monosemanticity_beside(other)
    assert own == pytest.approx((30 * 0.8 + 10 * 0.6) / 40) and beside == pytest.approx((30 * 0.9 + 10 * 0.4) / 40)
    assert other.monosemanticity_beside(sae)[1] == pytest.approx((5 * 0.8 + 400 * 0.6) / 405)
    assert sae.monosemanticity_beside(units("dense", [(11, 70, 0.2)])) is None


def test_bands_are_half_decades_of_density():
    share = np.array([0.0, 1e-9, 10**-0.75, 0.1, 0.0999, 1.0, 10**-0.5])
    bands = density_bands(share)
    assert bands.tolist() == [-1, 0, 10, 10, 9, 11, 11]
    for k, b in zip(bands[2:5], share[2:5], strict=True):
        assert 10 ** BAND_EDGES[k] <= b < 10 ** BAND_EDGES[k + 1]


def test_bands_hold_the_mean_monosemanticity_of_their_latents(scored):
    evaluation = scored(LABELS[:3])
    for one in evaluation.candidates:
        frame = evaluation.frame(one.name).dropna(subset="monosemanticity")
        frame = frame[frame["density"] > 0]
        assert sum(band.units for band in one.density_bands) == len(frame) > 0
        for band in one.density_bands:
            below = (frame["density"] < band.high) | (band.high > 1 - 1e-12)
            here = frame[(frame["density"] >= band.low * (1 - 1e-12)) & below]
            assert band.units == len(here) and band.monosemanticity == pytest.approx(here["monosemanticity"].mean())


def test_an_l0_of_a_quarter_of_the_latents_is_not_called_sparse(scored):
    evaluation = scored(("Edema",))
    assert evaluation.saes[0].not_sparse and "NOT SPARSE: L0 is 2 of 5 latents" in str(evaluation)
    for l0, said in ((24.9, False), (25.0, True), (50.0, True), (None, False)):
        assert units("sae", [], fidelity={"l0": l0}).not_sparse == said
    assert not units("neurons", [], fidelity={"l0": 9.0}, d_sae=None).not_sparse
