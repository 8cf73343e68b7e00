"""Gains: over the best baseline of as many candidates, and with as many units as are alive."""

from itertools import combinations

import numpy as np
import pytest

from medsae_plugin.scores.metrics import expected_top_r
from medsae_plugin.scores.models import Gain, UnitScores
from medsae_plugin.scores.table import headline_words


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6, 9])
def test_the_mean_over_all_draws_is_that_of_every_choice_of_so_many_units(n):
    rng = np.random.default_rng(n)
    r_select, r = rng.uniform(-1, 1, (2, 8, 3))
    r_select[2, 0] = r_select[5, 0] = np.nan  # undefined on `select`: never chosen for this label
    r[6, 1] = np.nan  # silent on `report`: counts as 0
    eligible = np.array([True, True, True, False, True, True, True, False])
    units = np.flatnonzero(eligible)
    means = []
    for drawn in combinations(units, min(n, len(units))):
        of_label = []
        for c in range(3):
            told = [j for j in drawn if not np.isnan(r_select[j, c])]
            top = max(told, key=lambda j: r_select[j, c]) if told else None
            of_label.append(0.0 if top is None else float(np.nan_to_num(r[top, c])))
        means.append(of_label)
    assert expected_top_r(r_select, r, eligible, n) == pytest.approx(np.mean(means, axis=0))
    assert (expected_top_r(r_select, r, eligible, 0) == 0).all()


def units(name, kind, n, r, baseline_of=None, **more):
    return UnitScores(
        name=name, kind=kind, hook="h", architecture=None, d_in=4, d_sae=n, baseline_of=baseline_of, fidelity=None,
        observations=[], mean_top_r=r, **more,
    )  # fmt: skip


def gain(difference, over, kind, candidates):
    return Gain(mean_top_r=difference, over=over, kind=kind, candidates=candidates)


def test_the_headline_is_the_best_of_as_many_candidates_and_not_the_untrained_one():
    few = gain(0.3, "neurons of h", "neurons", 8)
    gains = [
        gain(-0.2, "untrained s", "untrained", 16),  # held down by its TopK, whatever it reaches
        gain(0.1, "random s", "random", 16),
        gain(-0.05, "k-means s", "k-means", 16),
        gain(-0.5, "pca s", "pca", 8),  # half as many
    ]
    sae = units("s", "sae", 16, 0.5, gain_over_neurons=few, gains=gains)
    assert sae.headline is not None and sae.headline.over == "k-means s"
    words = headline_words(sae)
    assert "best baseline of as many candidates (k-means, 16): -0.050" in words
    assert "over the raw neurons' (8 candidates) +0.300" in words
    alone = units("s", "sae", 16, 0.5, gain_over_neurons=few, gains=gains[:1])
    assert alone.headline is None
    assert headline_words(alone).startswith("no gain is claimed: no baseline chose from as many candidates (16)")
    wide = units("s", "sae", 8, 0.5, gain_over_neurons=few)  # two units a neuron are as many as its latents
    assert wide.headline == few and headline_words(wide).count("+0.300") == 1
