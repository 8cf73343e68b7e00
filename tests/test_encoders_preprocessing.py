"""Images to pixel values: rows are rows, columns are columns, whatever the fit, on results that are not square."""

import numpy as np
import pytest
import torch
from PIL import Image

from medsae_plugin.encoders import Preprocessor


def preprocessor(fit: str, size, **more) -> Preprocessor:
    return Preprocessor("L", size, fit, "bilinear", (0.5,), (0.25,), **more)


def spotted(rows: int, columns: int, at: tuple[int, int]) -> Image.Image:
    """A grey image with a white spot of a tenth of each side around a place."""
    pixels = np.full((rows, columns), 64, np.uint8)
    r, c = at
    pixels[max(0, r - rows // 20) : r + rows // 20, max(0, c - columns // 20) : c + columns // 20] = 255
    return Image.fromarray(pixels)


def brightest(pixels: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(pixels > 0.8 * pixels.max())
    return float(rows.mean()), float(columns.mean())


def test_stretch_takes_each_side_to_its_own_length():
    image = spotted(400, 200, (100, 150))
    pixels = preprocessor("stretch", (30, 90)).to_array(image)
    assert pixels.shape == (30, 90)
    row, column = brightest(pixels)
    assert row == pytest.approx(30 / 4, abs=1) and column == pytest.approx(90 * 3 / 4, abs=2)


def test_crop_covers_then_takes_the_centre():
    """400 x 200 to 40 rows x 60 columns: the columns by 0.3, so the rows to 120, of which 40 to 80 are kept."""
    pixels = preprocessor("crop", (40, 60)).to_array(spotted(400, 200, (180, 150)))
    assert pixels.shape == (40, 60)
    row, column = brightest(pixels)
    assert row == pytest.approx(180 * 0.3 - 40, abs=1) and column == pytest.approx(150 * 0.3, abs=1)
    wide = preprocessor("crop", (60, 40)).to_array(spotted(200, 400, (150, 180)))
    row, column = brightest(wide)
    assert wide.shape == (60, 40) and row == pytest.approx(150 * 0.3, abs=1)
    assert column == pytest.approx(180 * 0.3 - 40, abs=1)


def test_crop_after_a_larger_resize():
    pixels = preprocessor("crop", 40, resize=80).to_array(spotted(400, 200, (200, 100)))
    assert pixels.shape == (40, 40)
    assert brightest(pixels) == pytest.approx((19.5, 19.5), abs=1)


def test_pad_keeps_the_aspect_on_black():
    """400 x 200 to 40 rows x 60 columns: a tenth, so the image is 40 x 20 amid 60 columns."""
    pixels = preprocessor("pad", (40, 60)).to_array(spotted(400, 200, (100, 150)))
    assert pixels.shape == (40, 60)
    assert (pixels[:, :19] == 0).all() and (pixels[:, 41:] == 0).all() and (pixels[:, 22:38] > 0).all()
    row, column = brightest(pixels)
    assert row == pytest.approx(10, abs=1) and column == pytest.approx(20 + 15, abs=1)
    small = preprocessor("pad", (40, 60)).to_array(spotted(20, 20, (10, 10)))
    assert (small > 0).sum() == 400 and (small[10:30, 20:40] > 0).all(), "one that fits is not enlarged"


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_truncated_values_are_those_of_a_resize_in_float(mode):
    """As torch's, which like Pillow's takes every pixel under the cubic; beyond black and white it is cut off."""
    rng = np.random.default_rng(0)
    pixels = rng.choice([0, 9, 120, 255], size=(60, 90, 3)[: 2 if mode == "L" else 3], p=[0.5, 0.05, 0.05, 0.4]).astype(
        np.uint8
    )
    one = Preprocessor(mode, (40, 50), "stretch", "bicubic", (0.5,), (0.5,), truncate=True)
    found = one.to_array(Image.fromarray(pixels)).astype(int)
    planes = torch.from_numpy(pixels.reshape(60, 90, -1)).double().permute(2, 0, 1)[None]
    fitted = torch.nn.functional.interpolate(planes, (40, 50), mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    expected = fitted.numpy().reshape(found.shape)
    assert expected.min() < -1 and expected.max() > 256
    whole = expected.clip(0, 255).astype(int)
    clear = np.abs(expected - expected.round()) > 1e-2  # or float32 may fall on the other side
    np.testing.assert_array_equal(found[clear], whole[clear])
    assert (found.min(), found.max()) == (0, 255)
    rounded = Preprocessor(mode, (40, 50), "stretch", "bicubic", (0.5,), (0.5,)).to_array(Image.fromarray(pixels))
    assert (rounded != found).mean() > 0.2


def test_pixel_values_are_centred_and_scaled_by_channel():
    grey = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    x = preprocessor("stretch", (3, 4)).normalize(grey)
    assert x.shape == (2, 3, 3, 4)
    torch.testing.assert_close(x[:, 2], (torch.from_numpy(grey) / 255 - 0.5) / 0.25)
    colours = Preprocessor("RGB", (3, 4), "stretch", "bicubic", (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    rgb = np.stack([grey, grey + 50, grey + 100], axis=-1)
    x = colours.normalize(rgb)
    for k, (mean, std) in enumerate(zip((0.1, 0.2, 0.3), (1.0, 2.0, 4.0), strict=True)):
        torch.testing.assert_close(x[:, k], (torch.from_numpy(rgb[..., k]) / 255 - mean) / std)
    assert colours.to_array(Image.new("L", (9, 9), 7)).shape == (3, 4, 3)


def test_its_config_makes_it_again():
    for one in (preprocessor("pad", 32), preprocessor("crop", (20, 30), resize=64)):
        assert Preprocessor.from_config(one.config) == one
    assert "resize" not in preprocessor("pad", 32).config and preprocessor("pad", 32).shape == (32, 32)


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("resize", [None, 70])
@pytest.mark.parametrize("shape", [(100, 80), (33, 90), (300, 200)])
def test_grey_is_fitted_as_each_of_three_like_channels_is(fit, resize, shape):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    fitted = Preprocessor("RGB", 64, fit, "bicubic", (0.5,) * 3, (0.5,) * 3, resize)
    np.testing.assert_array_equal(fitted.to_array(image), fitted.to_array(image.convert("RGB")))
