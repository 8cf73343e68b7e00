"""Boxes, contours and run lengths against pycocotools, and against counting pixels."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medsae_plugin.data.regions import Box, Polygons, Region, Runs
from medsae_plugin.data.regions.parts import averaged, counts_of

masks = st.tuples(st.integers(1, 30), st.integers(1, 30)).flatmap(lambda shape: arrays(bool, shape))


def coco():
    return pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed (extra test)")


@given(masks)
@settings(max_examples=100, deadline=None)
def test_run_lengths_of_a_mask_draw_it_again(mask):
    runs = Runs.of(mask)
    np.testing.assert_array_equal(runs.drawn(), mask)
    assert runs.is_empty == (not mask.any()) and runs.counts.sum() == mask.size


@given(masks)
@settings(max_examples=100, deadline=None)
def test_compressed_run_lengths_are_cocos(mask):
    coded = coco().encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = counts_of(coded["counts"].decode())
    np.testing.assert_array_equal(Runs(counts, mask.shape).drawn(), mask)
    np.testing.assert_array_equal(counts, Runs.of(mask).counts)


def test_long_compressed_run_lengths_are_cocos():
    mask = np.zeros((2000, 1500), bool)
    mask[100:1900, 700:702], mask[5, 3], mask[40:1200, 1400] = True, True, True
    coded = coco().encode(np.asfortranarray(mask.astype(np.uint8)))
    np.testing.assert_array_equal(counts_of(coded["counts"].decode()), Runs.of(mask).counts)


@pytest.mark.parametrize("text", ["0 1", "é", "P", "\x7f"])
def test_damaged_compressed_run_lengths_are_refused(text):
    with pytest.raises(ValueError, match="run lengths"):
        counts_of(text)


def test_run_lengths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fill 2 x 3"):
        Runs(np.array([3, 4]), (2, 3))


def test_a_polygon_along_pixel_edges_covers_just_these_pixels():
    square = np.array([[10, 4], [15, 4], [15, 9], [10, 9]], float)
    mask = np.zeros((20, 20), bool)
    mask[4:9, 10:15] = True
    np.testing.assert_array_equal(Polygons([square], (20, 20)).drawn(), mask)
    np.testing.assert_array_equal(Polygons([square[::-1]], (20, 20)).drawn(), mask)


@given(st.integers(0, 10**6), st.integers(3, 12))
@settings(max_examples=60, deadline=None)
def test_a_pixel_is_inside_where_matplotlib_says_its_centre_is(seed, n):
    paths = pytest.importorskip("matplotlib.path", reason="matplotlib is not installed (extra figures)")
    rng = np.random.default_rng(seed)
    # Star-shaped, so that no edge crosses another, and reaching beyond the image.
    angles, radius = np.sort(rng.uniform(0, 2 * np.pi, n)), rng.uniform(5, 25, n)
    points = np.stack([20 + radius * np.cos(angles), 15 + radius * np.sin(angles)], axis=1)
    y, x = np.mgrid[0:30, 0:41] + 0.5
    inside = paths.Path(np.vstack([points, points[:1]])).contains_points(np.stack([x.ravel(), y.ravel()], axis=1))
    assume(inside.any())  # a sliver between the centres covers the pixels of its points
    np.testing.assert_array_equal(Polygons([points], (30, 41)).drawn(), inside.reshape(30, 41))


def test_contours_are_filled_as_coco_fills_them():
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    points = np.stack([150 + (90 + 20 * np.sin(5 * angles)) * np.cos(angles), 120 + 80 * np.sin(angles)], axis=1)
    theirs = coco().decode(coco().frPyObjects([points.ravel().tolist()], 240, 300))[..., 0].astype(bool)
    ours = Polygons([points], (240, 300)).drawn()
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.98


@given(masks, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_shares_of_cells_are_those_counted_in_finer_pixels(mask, seed):
    rng = np.random.default_rng(seed)
    fine = 10
    edges = [np.sort(rng.choice(np.arange(-20, (n + 2) * fine), 4, replace=False)) / fine for n in mask.shape]
    small = np.kron(mask, np.ones((fine, fine)))
    padded = np.pad(small, 2 * fine)
    at = [np.round(e * fine).astype(int) + 2 * fine for e in edges]
    expected = [
        [padded[a:b, c:d].mean() for c, d in zip(at[1], at[1][1:], strict=False)]
        for a, b in zip(at[0], at[0][1:], strict=False)
    ]
    np.testing.assert_allclose(averaged(mask, *edges), expected, atol=1e-9)


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_box_covers_what_its_mask_does(seed):
    rng = np.random.default_rng(seed)
    (left, right), (top, bottom) = np.sort(rng.choice(40, 2, replace=False)), np.sort(rng.choice(30, 2, replace=False))
    mask = np.zeros((30, 40), bool)
    mask[top:bottom, left:right] = True
    image = (15, 20)  # half as large as it was drawn on
    box = Region((Box(float(left), float(top), float(right), float(bottom), (30, 40)),), image)
    drawn = Region((Runs.of(mask),), image)
    np.testing.assert_allclose(box.cover(), drawn.cover(), atol=1e-12)
    np.testing.assert_allclose(box.area(), mask.mean())
    np.testing.assert_allclose(drawn.area(), mask.mean())
    np.testing.assert_allclose(box.boxes(), [[left / 2, top / 2, right / 2, bottom / 2]])


def test_areas_of_parts_laid_together_count_what_they_share_once():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 50, (5, 2, 2)), axis=1) + np.array([[0, 0], [3, 3]])
    mask = np.zeros((60, 60), bool)
    for (left, top), (right, bottom) in corners:
        mask[top:bottom, left:right] = True
    boxes = tuple(Box(*map(float, pair.ravel()), (60, 60)) for pair in corners)
    assert Region(boxes, (60, 60)).area() == pytest.approx(mask.mean())
    both = Region((*boxes, Runs.of(mask)), (60, 60))
    assert both.area() == pytest.approx(mask.mean()) and both.kind == "boxes and masks"
    cells = np.linspace(0, 60, 5)
    expected = mask.reshape(4, 15, 4, 15).mean((1, 3))
    np.testing.assert_allclose(Region(boxes, (60, 60)).cover((cells, cells)), expected)


def test_a_region_smaller_than_a_pixel_does_not_vanish():
    region = Region((Box(10.0, 10.0, 12.0, 12.0, (100, 100)),), (10, 10))
    assert np.argwhere(region.mask()).tolist() == [[1, 1]] and region.cover()[1, 1] == pytest.approx(0.04)
    thin = Polygons([np.array([[3.1, 2.1], [3.3, 2.1], [3.3, 2.3]])], (5, 5))
    assert np.argwhere(thin.drawn()).tolist() == [[2, 3]]
    assert not Region((Runs(np.array([25]), (5, 5)),), (5, 5)).mask().any()
