"""Where on an encoder's input an image lies: pixels, boxes and masks go the same way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medsae_plugin.data.regions import Box, Region, Runs
from medsae_plugin.encoders.preprocessing import Preprocessor

FITS = [("pad", None), ("crop", None), ("crop", 72), ("crop", 50), ("stretch", None)]
SHAPES = [(101, 80), (33, 90), (301, 203), (63, 63), (64, 64), (20, 31), (200, 31)]


def preprocessor(fit, resize=None, size=64, resample="bilinear"):
    return Preprocessor("L", size, fit, resample, (0.5,), (0.5,), resize)


@pytest.mark.parametrize(("fit", "resize"), FITS)
@pytest.mark.parametrize("size", [64, (48, 80)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_rectangle_lies_where_its_pixels_come_to_lie(fit, resize, size, shape):
    rows, columns = shape
    top, bottom, left, right = rows * 0.3 // 1, rows * 0.7 // 1, columns * 0.35 // 1, columns * 0.8 // 1
    drawn = np.zeros(shape, np.uint8)
    drawn[int(top) : int(bottom), int(left) : int(right)] = 255
    prepared = preprocessor(fit, resize, size)
    seen = prepared.to_array(Image.fromarray(drawn)) / 255
    framing = prepared.framing(shape)
    region = Region((Box(left, top, right, bottom, shape),), shape)
    # Where it is in the pixels: resampled edges are half grey.
    box = framing.boxes_to_input(region.boxes())[0]
    y, x = np.flatnonzero(seen.max(1) >= 0.5), np.flatnonzero(seen.max(0) >= 0.5)
    np.testing.assert_allclose(box, [x[0], y[0], x[-1] + 1, y[-1] + 1], atol=1)
    cover = region.cover(framing.edges())
    assert cover.shape == seen.shape and cover.sum() == pytest.approx(seen.sum(), rel=0.04)
    centre = [np.average(np.indices(seen.shape)[axis], weights=seen) for axis in (0, 1)]
    ours = [np.average(np.indices(seen.shape)[axis], weights=cover) for axis in (0, 1)]
    np.testing.assert_allclose(ours, centre, atol=0.25)
    assert np.abs(cover - seen).max() < 0.6 and np.abs(cover - seen)[(cover == 1) | (cover == 0)].mean() < 0.03
    # The same as a mask, and onto a grid: cells of 8 pixels.
    np.testing.assert_allclose(Region((Runs.of(drawn > 0),), shape).cover(framing.edges()), cover, atol=1e-9)
    rows, columns = seen.shape
    blocks = cover.reshape(rows // 8, 8, columns // 8, 8).mean((1, 3))
    np.testing.assert_allclose(region.cover(framing.edges((rows // 8, columns // 8))), blocks, atol=1e-9)


def test_framings_worked_out_by_hand():
    points = np.array([[0.0, 0.0], [90.0, 33.0]])
    # 33 rows of a canvas of 90 x 90, 28 below its top, and 64 pixels of the input to 90 of the canvas.
    np.testing.assert_allclose(
        preprocessor("pad").framing((33, 90)).to_input(points), [[0, 28 * 64 / 90], [64, 61 * 64 / 90]]
    )
    # 64 rows and 174 columns, of which those from 55 on are cut out.
    np.testing.assert_allclose(preprocessor("crop").framing((33, 90)).to_input(points), [[-55, 0], [119, 64]])
    np.testing.assert_allclose(preprocessor("stretch").framing((33, 90)).to_input(points), [[0, 0], [64, 64]])
    # Smaller than the input: not enlarged.
    np.testing.assert_allclose(preprocessor("pad").framing((20, 31)).to_input(points[:1]), [[16, 22]])


@given(st.sampled_from(FITS), st.tuples(*[st.integers(8, 400)] * 2), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_points_go_to_the_input_and_back(fitted, shape, seed):
    framing = preprocessor(*fitted, size=(64, 56)).framing(shape)
    points = np.random.default_rng(seed).uniform(-50, 500, (10, 2))
    np.testing.assert_allclose(framing.to_image(framing.to_input(points)), points, atol=1e-8)
    rows, columns = framing.edges()
    corner = framing.to_input(np.array([[columns[-1], rows[-1]], [columns[0], rows[0]]]))
    np.testing.assert_allclose(corner, [[56, 64], [0, 0]], atol=1e-9)
    box = framing.boxes_to_input(np.array([[-1e4, -1e4, 1e4, 1e4]]))
    np.testing.assert_allclose(box, [[0, 0, 56, 64]])


@given(st.sampled_from(FITS), st.tuples(*[st.integers(8, 300)] * 2))
@settings(max_examples=60, deadline=None)
def test_what_covers_the_image_covers_all_of_the_input_but_its_padding(fitted, shape):
    prepared = preprocessor(*fitted, resample="box")
    white = prepared.to_array(Image.fromarray(np.full(shape, 255, np.uint8))) / 255
    cover = Region((Box(0.0, 0.0, float(shape[1]), float(shape[0]), shape),), shape).cover(
        prepared.framing(shape).edges()
    )
    assert cover.min() >= 0 and cover.max() <= 1 + 1e-9
    assert ((cover > 0.999) == (white > 0.999)).mean() > 0.95 and np.abs(cover - white).mean() < 0.02
