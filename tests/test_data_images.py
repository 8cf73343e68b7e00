"""Image files of every kind to 8-bit grey, and bad ones to reasons."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import as_array, dicom, png, tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medsae_plugin.data.images import UnreadableImage, read_image

RAMP = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_8_bit_grey_is_kept_to_the_bit(tmp_path):
    for suffix in ("png", "bmp", "tiff"):
        assert np.array_equal(as_array(save(Image.fromarray(RAMP), tmp_path / f"a.{suffix}")), RAMP)


def test_jpeg_is_what_pil_decodes(tmp_path):
    path = save(Image.fromarray(RAMP), tmp_path / "a.jpg")
    assert np.array_equal(as_array(path), np.asarray(Image.open(path)))
    assert np.abs(as_array(path).astype(int) - RAMP).max() < 12


@pytest.mark.parametrize("low", [0, 200])
def test_16_bit_png_is_scaled_from_its_own_range(tmp_path, low):
    values = (np.linspace(0, 1, 192).reshape(12, 16) * 3000).astype(np.uint16) + low  # 12 bits in 16
    path = save(Image.fromarray(values), tmp_path / "a.png")
    expected = np.round((values - low) * (255 / 3000.0))
    assert np.array_equal(as_array(path), expected) and as_array(path).max() == 255


def test_colour_is_luma_and_transparency_is_black(tmp_path):
    red = save(Image.new("RGB", (4, 4), (255, 0, 0)), tmp_path / "red.png")
    assert (as_array(red) == 76).all()  # 0.299 * 255
    half = save(Image.new("RGBA", (4, 4), (255, 255, 255, 128)), tmp_path / "half.png")
    assert (as_array(half) == 128).all()
    grey_alpha = save(Image.new("LA", (4, 4), (200, 0)), tmp_path / "la.png")
    assert (as_array(grey_alpha) == 0).all()


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.fromarray((RAMP % 3).astype(np.uint8)).copy()
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([10, 10, 10, 100, 100, 100, 250, 250, 250])
    expected = np.array([10, 100, 250])[RAMP % 3]
    assert np.array_equal(as_array(save(image, tmp_path / "p.png")), expected)
    expected[RAMP % 3 == 2] = 0
    assert np.array_equal(as_array(save(image, tmp_path / "t.png", transparency=2)), expected)


def test_one_bit_and_exif_orientation(tmp_path):
    assert set(np.unique(as_array(save(Image.fromarray(RAMP > 90), tmp_path / "bit.png")))) == {0, 255}
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    path = save(
        Image.fromarray(np.repeat(np.repeat(RAMP, 8, 0), 8, 1)), tmp_path / "turned.jpg", exif=exif, quality=100
    )
    turned = as_array(path)
    assert turned.shape == (128, 96)
    plain = np.asarray(Image.open(path))
    assert np.array_equal(turned, np.rot90(plain, -1))


def test_what_cannot_be_read_has_a_reason(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not an image")
    whole = save(Image.fromarray(np.tile(RAMP, (20, 20))), tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "no.dcm").write_bytes(b"\0" * 128 + b"DICM")
    dicom(tmp_path / "frames.dcm", np.tile(RAMP, (2, 1)), NumberOfFrames=2, Rows=12)
    wide = io.BytesIO()
    Image.new("1", (65_000, 10_000)).save(wide, "png")
    (tmp_path / "bomb.png").write_bytes(wide.getvalue())
    reasons = {
        "empty.jpg": "empty",
        "text.png": "no image of a format that is taken",
        "cut.png": "cut short",
        "folder.png": "is a directory",
        "absent.png": "no such file",
        "no.dcm": "without an image",
        "frames.dcm": "several frames",
        "bomb.png": "too large",
    }
    for name, reason in reasons.items():
        with pytest.raises(UnreadableImage, match=reason) as caught:
            read_image(tmp_path / name)
        assert caught.value.path == tmp_path / name and str(tmp_path) not in caught.value.reason
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own, as between processes
    assert (again.path, again.reason) == (caught.value.path, caught.value.reason)


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    image = Image.fromarray(np.tile(RAMP, (4, 4)))
    return {
        "png": save(image, folder / "a.png").read_bytes(),
        "jpg": save(image, folder / "a.jpg").read_bytes(),
        "dcm": dicom(folder / "a.dcm", RAMP).read_bytes(),
        "tiff": save(image, folder / "a.tiff").read_bytes(),
        "deep.tiff": tiff(folder / "b.tiff", np.dstack([RAMP] * 3).astype(np.uint16), photometric=2).read_bytes(),
        "deep.png": png(folder / "b.png", np.dstack([RAMP] * 2), 16, 4).read_bytes(),
        "webp": save(image, folder / "a.webp").read_bytes(),
        "jp2": save(image, folder / "a.jp2").read_bytes(),
    }


@settings(max_examples=200, deadline=None)
@given(data=st.data(), suffix=st.sampled_from(["png", "jpg", "dcm", "tiff", "deep.tiff", "deep.png", "webp", "jp2"]))
def test_damage_gives_an_image_or_a_reason_and_nothing_else(tmp_path_factory, samples, data, suffix):
    content = bytearray(samples[suffix])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    path.write_bytes(content)
    try:
        assert read_image(path).mode == "L"
    except UnreadableImage as error:
        assert error.reason


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=300))
def test_random_bytes_are_unreadable(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.dcm"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage):
        read_image(path)


def test_real_radiographs_are_read(shared):
    paths = sorted((shared / "realcxr").rglob("*.jpg"))
    assert len(paths) == 185
    for path in paths[::20]:
        assert np.array_equal(as_array(path), np.asarray(Image.open(path).convert("L")))
