"""Image files of every kind to 8-bit grey, and bad ones to reasons."""

import io
import pickle
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, generate_uid

from medsae_plugin.data.images import UnreadableImage, read_image

RAMP = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def dicom(path: Path, pixels: np.ndarray, **fields: object) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = fields.pop("syntax", ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    ds.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    ds.BitsAllocated = pixels.dtype.itemsize * 8
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = ds.BitsAllocated, ds.BitsAllocated - 1, 0
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    for name, value in fields.items():
        setattr(ds, name, value)
    ds.PixelData = pixels.tobytes()
    ds.save_as(path, enforce_file_format=True)
    return path


def as_array(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "L"
    return np.asarray(image)


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


def test_dicom_monochrome_2_and_1(tmp_path):
    values = RAMP.astype(np.uint16) * 16
    plain = as_array(dicom(tmp_path / "a.dcm", values))
    assert np.array_equal(plain, np.round(RAMP * (255 / 191)))
    inverted = as_array(dicom(tmp_path / "b.dcm", values, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(inverted, np.round((191 - RAMP.astype(int)) * (255 / 191)))


def test_dicom_window_lookup_and_rescale(tmp_path):
    values = RAMP.astype(np.uint16)
    windowed = as_array(dicom(tmp_path / "w.dcm", values, WindowCenter=100, WindowWidth=51))
    centre, width = 99.5, 50.0  # DICOM PS3.3 C.11.2.1.2
    expected = np.clip((values - centre) / width + 0.5, 0, 1) * 255
    assert np.abs(windowed - expected).max() <= 1
    assert (windowed[values < 74] == 0).all() and (windowed[values > 126] == 255).all()
    rescaled = as_array(
        dicom(tmp_path / "r.dcm", values, RescaleSlope=2, RescaleIntercept=-50, WindowCenter=150, WindowWidth=101)
    )
    same = np.clip((values * 2.0 - 50 - 149.5) / 100 + 0.5, 0, 1) * 255
    assert np.abs(rescaled - same).max() <= 1
    item = pydicom.Dataset()
    item.LUTDescriptor = [192, 0, 8]
    item.add_new("LUTData", "US", list(range(191, -1, -1)))
    looked_up = as_array(dicom(tmp_path / "l.dcm", values, VOILUTSequence=pydicom.Sequence([item])))
    assert np.array_equal(looked_up, np.round((191 - RAMP.astype(int)) * (255 / 191)))


def test_dicom_in_colour_and_without_a_suffix(tmp_path):
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[..., 0] = 255
    assert (as_array(dicom(tmp_path / "c.dcm", rgb)) == 76).all()
    path = dicom(tmp_path / "IM0001", RAMP)
    assert as_array(path).shape == RAMP.shape


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
        "text.png": "damaged or not an image",
        "cut.png": "damaged or not an image",
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


@pytest.mark.parametrize(("syntax", "reason"), [(JPEGLSLossless, "needs a decoder"), (JPEG2000Lossless, "damaged")])
def test_compressed_dicom_without_a_decoder_says_what_to_install(tmp_path, syntax, reason):
    ds = pydicom.dcmread(dicom(tmp_path / "a.dcm", RAMP))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51 no codestream"])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match=reason):
        read_image(tmp_path / "b.dcm")


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    image = Image.fromarray(np.tile(RAMP, (4, 4)))
    return {
        "png": save(image, folder / "a.png").read_bytes(),
        "jpg": save(image, folder / "a.jpg").read_bytes(),
        "dcm": dicom(folder / "a.dcm", RAMP).read_bytes(),
        "tiff": save(image, folder / "a.tiff").read_bytes(),
    }


@settings(max_examples=150, deadline=None)
@given(data=st.data(), suffix=st.sampled_from(["png", "jpg", "dcm", "tiff"]))
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
