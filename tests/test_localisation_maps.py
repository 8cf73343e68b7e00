"""Figures of maps against regions, beside brute force on small made maps and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from medsae_plugin.localisation import maps as figures

RNG = np.random.default_rng(0)
MAPS = np.maximum(RNG.integers(-3, 6, (40, 4, 5)), 0).astype(np.float32)  # with ties and zeros
COVERS = np.where(RNG.random((40, 4, 5)) < 0.6, 0, RNG.choice([0.25, 0.5, 1.0], (40, 4, 5)))
MAPS[0] = 0
COVERS[1] = 0


def cells(k):
    return [(float(MAPS[k, r, c]), float(COVERS[k, r, c])) for r in range(4) for c in range(5)]


def test_pointing_is_the_cover_of_the_strongest_cells():
    for k, found in enumerate(figures.pointing(MAPS, COVERS)):
        best = max(value for value, _ in cells(k))
        hits = [cover for value, cover in cells(k) if value == best and best > 0]
        assert found == pytest.approx(sum(hits) / len(hits) if hits else 0)


@pytest.mark.parametrize("threshold", [0.0, 1.5, 4.0])
def test_iou_and_dice_by_counting_parts_of_cells(threshold):
    iou, dice = figures.iou(MAPS, COVERS, threshold), figures.dice(MAPS, COVERS, threshold)
    for k in range(len(MAPS)):
        both = sum(cover for value, cover in cells(k) if value > threshold)
        above, region = sum(value > threshold for value, _ in cells(k)), sum(cover for _, cover in cells(k))
        if region == 0:
            assert np.isnan(iou[k]) and np.isnan(dice[k])
            continue
        assert iou[k] == pytest.approx(both / (above + region - both))
        assert dice[k] == pytest.approx(2 * both / (above + region))


def test_average_precision_is_scikit_learns_of_cells_in_two_parts():
    found = figures.average_precision(MAPS, COVERS)
    for k in range(len(MAPS)):
        value, cover = (np.array(x) for x in zip(*cells(k), strict=True))
        if cover.sum() == 0:
            assert np.isnan(found[k])
            continue
        expected = average_precision_score(
            np.repeat([1, 0], len(value)), np.tile(value, 2), sample_weight=np.concatenate([cover, 1 - cover])
        )
        assert found[k] == pytest.approx(expected)
    assert found[0] == pytest.approx(COVERS[0].mean()), "a silent map knows nothing"


def test_mass_is_what_lies_inside_and_of_a_silent_map_unknown():
    found = figures.mass_inside(MAPS, COVERS)
    assert np.isnan(found[0])
    for k in range(1, len(MAPS)):
        assert found[k] == pytest.approx(sum(v * c for v, c in cells(k)) / sum(v for v, _ in cells(k)))
    assert figures.mass_inside(-MAPS[1:2], np.ones((1, 4, 5))).tolist() == pytest.approx([np.nan], nan_ok=True)


def test_morans_i_by_its_definition_and_of_made_boards():
    found = figures.morans_i(MAPS)
    assert np.isnan(found[0])
    places = [(r, c) for r in range(4) for c in range(5)]
    for k in range(1, len(MAPS)):
        z = MAPS[k].astype(np.float64) - MAPS[k].astype(np.float64).mean()
        weight = {(a, b): abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a in places for b in places}
        products = sum(z[a] * z[b] for (a, b), near in weight.items() if near)
        assert found[k] == pytest.approx(len(places) / sum(weight.values()) * products / (z**2).sum())
    board = np.indices((4, 4)).sum(0) % 2
    halves = np.arange(16).reshape(1, 4, 4) // 8
    assert figures.morans_i(board[None].astype(float)) == pytest.approx([-1])
    assert figures.morans_i(halves.astype(float)) == pytest.approx([(24 - 2 * 4) / 24]), "4 of 24 pairs differ"


def test_the_best_threshold_is_that_of_the_largest_mean():
    truth = RNG.random((10, 6, 6)) < 0.3
    made = np.where(truth, 2.0, 1.0) + 0.1 * RNG.random((10, 6, 6))
    covers = truth.astype(float)
    parts = [(made[:4], covers[:4]), (made[4:], covers[4:])]
    tried = figures.thresholds_to_try(made)
    chosen = figures.best_threshold(tried, parts, figures.iou)
    assert chosen == max(tried, key=lambda t: figures.iou(made, covers, t).mean())
    assert 1 < chosen < 2.1
    assert figures.iou(made, truth.astype(float), chosen).mean() > 0.9
    assert figures.thresholds_to_try(np.zeros((2, 3, 3))) == [0]


@pytest.mark.parametrize("figure", [figures.pointing, figures.average_precision, figures.mass_inside])
def test_covers_of_several_rounds_are_those_of_each(figure):
    rounds = np.stack([COVERS, np.roll(COVERS, 3, axis=0)])
    found = figure(MAPS, rounds)
    assert np.array_equal(found, np.stack([figure(MAPS, covers) for covers in rounds]), equal_nan=True)
    assert not np.array_equal(found[0], found[1], equal_nan=True)


def test_bilinear_keeps_a_plane_and_goes_between_the_centres_of_cells():
    rows = np.arange(4, dtype=np.float64)
    plane = np.broadcast_to(rows[None, :, None], (1, 4, 4)).copy()
    found = figures.bilinear(plane, (16, 16))[0, :, 0]
    assert found == pytest.approx(np.clip((np.arange(16) + 0.5) / 4 - 0.5, 0, 3))
