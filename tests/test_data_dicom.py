"""DICOM to grey: PS3.3's order of tables, windows and inversion; padding; and headers that say too little."""

import io
import zlib

import numpy as np
import pydicom
import pytest
from helpers.pictures import LUMA, as_array, dicom, drawn, reason, stretched
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

GREY = drawn()
DEEP = GREY.astype(np.uint16)  # 12 bits in 16
SIGNED = (GREY - 2048).astype(np.int16)
COLOUR = np.stack([GREY, np.roll(GREY, 5, 0), 4095 - GREY], -1)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_grey_of_every_kind_of_number(tmp_path, kind):
    info = np.iinfo(kind)
    values = (info.min * 0.9 + GREY / 4095 * (float(info.max) - info.min) * 0.9).astype(kind)
    assert np.array_equal(as_array(dicom(tmp_path / "a.dcm", values)), stretched(values))
    inverted = as_array(dicom(tmp_path / "b.dcm", values, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(inverted, stretched(-values.astype(np.float64)))


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_every_encoding_of_uncompressed_values(tmp_path, syntax):
    for pixels, stored in ((DEEP, 12), (SIGNED, 12)):
        assert np.array_equal(
            as_array(dicom(tmp_path / "a.dcm", pixels, syntax=syntax, BitsStored=stored)), stretched(pixels)
        )


def test_only_the_stored_bits_count(tmp_path):
    overlay = (np.arange(GREY.size).reshape(GREY.shape) % 2 * 0x5000).astype(np.uint16)
    assert np.array_equal(as_array(dicom(tmp_path / "a.dcm", DEEP | overlay, BitsStored=12)), stretched(GREY))
    left = dicom(tmp_path / "b.dcm", DEEP << 4 | overlay >> 12, BitsStored=12, HighBit=15)
    assert np.array_equal(as_array(left), stretched(GREY))
    not_extended = (SIGNED.view(np.uint16) & 0x0FFF).view(np.int16)
    assert np.array_equal(as_array(dicom(tmp_path / "c.dcm", not_extended, BitsStored=12)), stretched(GREY))
    assert "High Bit 3" in reason(dicom(tmp_path / "d.dcm", DEEP, BitsStored=12, HighBit=3))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("pixels", "padding", "fields"),
    [
        (DEEP, 65535, {}),
        (DEEP, 65535, {"BitsStored": 12}),  # more than the stored bits hold
        (DEEP, 0, {}),
        (SIGNED, -2000, {}),
        (SIGNED, -32768, {"WindowCenter": 0, "WindowWidth": 1000}),
        (SIGNED, -2048, {"BitsStored": 12}),
        (DEEP, 4095, {"RescaleSlope": -1, "RescaleIntercept": 9}),
    ],
)
def test_padding_is_black_and_takes_no_part_in_the_range(tmp_path, photometric, pixels, padding, fields):
    outside = np.zeros(pixels.shape, bool)
    outside[:, :5] = True
    stored = np.where(outside, padding, np.clip(pixels, -1900, 4000)).astype(pixels.dtype)
    path = dicom(tmp_path / "a.dcm", stored, PixelPaddingValue=padding, PhotometricInterpretation=photometric, **fields)
    values = stored.astype(np.float64)[:, 5:] * fields.get("RescaleSlope", 1)
    if "WindowWidth" in fields:
        values = np.clip(values, -500, 499)
    got = as_array(path)
    assert (got[:, :5] == 0).all()
    assert np.array_equal(got[:, 5:], stretched(values if photometric == "MONOCHROME2" else -values))


def test_a_range_of_padding_and_padding_written_with_the_wrong_sign(tmp_path):
    stored = DEEP.copy()
    stored[:, :5] = np.arange(5) + 60_000
    for ends in ((60_000, 60_004), (60_004, 60_000)):
        path = dicom(tmp_path / "a.dcm", stored, PixelPaddingValue=ends[0], PixelPaddingRangeLimit=ends[1])
        assert np.array_equal(as_array(path)[:, 5:], stretched(GREY[:, 5:])) and (as_array(path)[:, :5] == 0).all()
    signed = SIGNED.copy()
    signed[:, :5] = -20_000
    ds = pydicom.dcmread(dicom(tmp_path / "b.dcm", signed))
    ds.add_new("PixelPaddingValue", "US", 45_536)  # -20,000 as unsigned
    ds.save_as(tmp_path / "b.dcm")
    assert np.array_equal(as_array(tmp_path / "b.dcm")[:, 5:], stretched(GREY[:, 5:]))
    assert "nothing but padding" in reason(dicom(tmp_path / "c.dcm", DEEP * 0 + 7, PixelPaddingValue=7))


@pytest.mark.parametrize(
    ("function", "value"),
    [
        ("LINEAR", lambda x, c, w: np.clip((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1)),
        ("LINEAR_EXACT", lambda x, c, w: np.clip((x - c) / w + 0.5, 0, 1)),
        ("SIGMOID", lambda x, c, w: 1 / (1 + np.exp(-4 * (x - c) / w))),
    ],
)
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -1024), (-1, 4095), (0.5, 3)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_windows_after_slope_and_intercept(tmp_path, function, value, slope, intercept, photometric):
    fields = {"WindowCenter": [2000, 9], "WindowWidth": [1500, 9], "RescaleSlope": slope, "RescaleIntercept": intercept}
    path = dicom(tmp_path / "a.dcm", DEEP, VOILUTFunction=function, PhotometricInterpretation=photometric, **fields)
    expected = value(GREY * float(slope) + intercept, 2000, 1500)
    got = as_array(path)
    assert np.abs(got - stretched(expected if photometric == "MONOCHROME2" else -expected)).max() <= 1


@pytest.mark.parametrize(
    "fields",
    [
        {"WindowCenter": 0, "WindowWidth": 0},
        {"WindowCenter": 2000, "WindowWidth": 0.5},
        {"WindowCenter": 2000, "WindowWidth": -100},
        {"WindowCenter": 2000, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 2000},
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"RescaleSlope": "2"},
        {"RescaleIntercept": "-1024"},
        {"VOILUTSequence": [], "ModalityLUTSequence": []},
        {"NumberOfFrames": 0},
        {"NumberOfFrames": ""},
        {"NumberOfFrames": 1},
        {"PresentationLUTShape": "INVERSE"},
    ],
)
def test_what_says_nothing_changes_nothing(tmp_path, fields):
    assert np.array_equal(as_array(dicom(tmp_path / "a.dcm", DEEP, **fields)), stretched(GREY))


def test_the_narrowest_windows_are_steps(tmp_path):
    exact = dicom(tmp_path / "a.dcm", DEEP, WindowCenter=2000.5, WindowWidth=0.5, VOILUTFunction="LINEAR_EXACT")
    step = dicom(tmp_path / "b.dcm", DEEP, WindowCenter=2001, WindowWidth=1)
    for path in (exact, step):
        assert np.array_equal(as_array(path), np.where(GREY > 2000, 255, 0))


def test_what_a_header_says_wrongly_is_told(tmp_path):
    assert "'LOG'" in reason(dicom(tmp_path / "a.dcm", DEEP, WindowCenter=9, WindowWidth=9, VOILUTFunction="LOG"))
    assert "Rescale Slope" in reason(dicom(tmp_path / "b.dcm", DEEP, RescaleSlope=0, RescaleIntercept=0))
    path = dicom(tmp_path / "c.dcm", DEEP, WindowCenter=9, WindowWidth=1234567)
    path.write_bytes(path.read_bytes().replace(b"1234567", b"wide   "))
    assert "Window Width (0028,1051) is not a number" in reason(path)
    assert "'HSV'" in reason(dicom(tmp_path / "d.dcm", COLOUR.astype(np.uint8), PhotometricInterpretation="HSV"))


def table(descriptor: list[int], data: object, vr: str) -> pydicom.Sequence:
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "SS" if min(descriptor) < 0 else "US", descriptor)
    item.add_new("LUTData", vr, data)
    return pydicom.Sequence([item])


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_lookup_tables_of_every_depth(tmp_path, bits, vr, name, syntax):
    entries = np.round((1 - np.arange(1000) / 999) ** 2 * (2**bits - 1)).astype(int)  # falling
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    data = entries.astype(order).tobytes() if vr == "OW" else entries.tolist()
    path = dicom(tmp_path / "a.dcm", DEEP, syntax=syntax, **{name: table([1000, 500, bits], data, vr)})
    expected = entries[np.clip(GREY - 500, 0, 999)]
    assert np.array_equal(as_array(path), stretched(expected))


def test_lookup_tables_for_signed_values_of_bytes_and_of_65536_entries(tmp_path):
    entries = np.arange(1000) * 4
    for first in (-500, 65036):  # 65036: -500 as unsigned
        sequence = table([1000, first, 12], entries.astype("<u2").tobytes(), "OW")
        path = dicom(tmp_path / "a.dcm", SIGNED, VOILUTSequence=sequence, PhotometricInterpretation="MONOCHROME1")
        assert np.array_equal(as_array(path), stretched(-np.clip(SIGNED.astype(int) + 500, 0, 999)))
    octets = np.arange(3000) // 12
    path = dicom(tmp_path / "b.dcm", DEEP, VOILUTSequence=table([3000, 0, 8], octets.astype("u1").tobytes(), "OW"))
    assert np.array_equal(as_array(path), stretched(octets[np.clip(GREY, 0, 2999)]))
    whole = np.arange(65536)[::-1]
    path = dicom(tmp_path / "c.dcm", DEEP * 16, VOILUTSequence=table([0, 0, 16], whole.astype("<u2").tobytes(), "OW"))
    assert np.array_equal(as_array(path), stretched(-GREY))
    rescaled = dicom(tmp_path / "d.dcm", DEEP, VOILUTSequence=table([1000, 0, 12], entries.tolist(), "US"),
                     RescaleSlope=0.2, RescaleIntercept=0, WindowCenter=1, WindowWidth=2)  # fmt: skip
    assert np.array_equal(as_array(rescaled), stretched(np.round(GREY * 0.2)))
    short = dicom(tmp_path / "e.dcm", DEEP, VOILUTSequence=table([1000, 0, 12], [1, 2, 3], "US"))
    assert "too few for 1000 entries" in reason(short)


def test_an_empty_table_beside_a_window(tmp_path):
    item = pydicom.Dataset()
    item.LUTExplanation = "Normal"
    path = dicom(tmp_path / "a.dcm", DEEP, VOILUTSequence=[item], WindowCenter=2048, WindowWidth=2000)
    assert np.array_equal(as_array(path), stretched(np.clip(GREY, 1048, 3047)))


@pytest.mark.parametrize("kind", ["u2", "u4"])
@pytest.mark.parametrize("planar", [0, 1])
def test_colour_of_more_than_8_bits_is_scaled_from_its_own_range(tmp_path, kind, planar):
    pixels = COLOUR.astype(kind)
    stored = np.moveaxis(pixels, -1, 0).copy() if planar else pixels
    path = dicom(tmp_path / "a.dcm", pixels, PlanarConfiguration=planar, PixelData=stored.tobytes())
    assert np.abs(as_array(path) - stretched(COLOUR @ LUMA)).max() <= 1


def test_colour_of_8_bits_is_luma_and_ybr_is_what_rgb_would_be(tmp_path):
    rgb = (COLOUR // 16).astype(np.uint8)
    expected = np.round(rgb @ LUMA)
    assert np.abs(as_array(dicom(tmp_path / "a.dcm", rgb)) - expected).max() <= 1
    assert np.abs(as_array(dicom(tmp_path / "b.dcm", rgb.astype(np.uint16), BitsStored=8)) - expected).max() <= 1
    to_ybr = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    for depth, kind in ((8, np.uint8), (12, np.uint16)):
        source = (COLOUR >> 12 - depth).astype(float)
        ybr = np.round(source @ to_ybr.T + [0, 2 ** (depth - 1), 2 ** (depth - 1)]).clip(0, 2**depth - 1).astype(kind)
        path = dicom(tmp_path / "c.dcm", ybr, PhotometricInterpretation="YBR_FULL", BitsStored=depth)
        luma = source @ LUMA
        assert np.abs(as_array(path) - (luma if depth == 8 else stretched(luma))).max() <= 2
    assert "YBR_PARTIAL" in reason(dicom(tmp_path / "d.dcm", rgb, PhotometricInterpretation="YBR_PARTIAL_422"))
    assert "YBR_RCT" in reason(dicom(tmp_path / "e.dcm", rgb, PhotometricInterpretation="YBR_RCT"))


@pytest.mark.parametrize("label", ["YBR_FULL_422", "RGB"])
def test_a_jpeg_in_colour_whatever_it_is_labelled(tmp_path, label):
    rgb = (COLOUR // 16).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=98)
    path = dicom(tmp_path / "a.dcm", rgb, PhotometricInterpretation=label, syntax=JPEGBaseline8Bit,
                 encapsulated=encapsulate([buffer.getvalue()]))  # fmt: skip
    assert np.abs(as_array(path) - np.asarray(Image.open(buffer).convert("L")).astype(int)).max() <= 1


@pytest.mark.parametrize(("depth", "kind"), [(8, "u1"), (16, "u2")])
@pytest.mark.parametrize("stored", ["u1", "u2", "i2"])
def test_palette_colour_is_the_luma_of_its_colours(tmp_path, depth, kind, stored):
    random = np.random.default_rng(0)
    entries = random.integers(0, 2**depth, (3, 200)).astype(kind)
    first = -60 if stored == "i2" else 20
    pixels = (
        (np.arange(GREY.size).reshape(GREY.shape) % 230 + first - 10).clip(0 if stored != "i2" else None).astype(stored)
    )
    fields = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, column in zip(("Red", "Green", "Blue"), entries, strict=True):
        fields[f"{name}PaletteColorLookupTableDescriptor"] = [200, first, depth]
        fields[f"{name}PaletteColorLookupTableData"] = column.tobytes()
    luma = entries.T[np.clip(pixels.astype(int) - first, 0, 199)] @ LUMA
    got = as_array(dicom(tmp_path / "a.dcm", pixels, **fields))
    assert np.abs(got - (np.round(luma) if depth == 8 else stretched(luma))).max() <= 1
    assert "without a palette" in reason(dicom(tmp_path / "b.dcm", pixels, PhotometricInterpretation="PALETTE COLOR"))


def pydicom_file(name: str):
    path = pydicom.data.get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom's {name} is not installed")
    return path


def test_pydicoms_own_palette_in_segments():
    path = pydicom_file("examples_palette.dcm")
    ds = pydicom.dcmread(path)
    luma = apply_color_lut(ds.pixel_array, ds)[..., :3] @ LUMA
    assert np.abs(as_array(path) - (stretched(luma) if luma.max() > 255 else luma)).max() <= 1


@pytest.mark.parametrize("name", ["SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm"])
def test_pydicoms_own_deep_colour(name):
    path = pydicom_file(name)
    assert np.abs(as_array(path) - stretched(pydicom.dcmread(path).pixel_array @ LUMA)).max() <= 1


def test_frames_are_refused(tmp_path):
    two = np.concatenate([DEEP, DEEP])
    assert "several frames (2)" in reason(dicom(tmp_path / "a.dcm", two, NumberOfFrames=2, Rows=len(DEEP)))
    assert "several frames?" in reason(dicom(tmp_path / "b.dcm", two, Rows=len(DEEP)))


@pytest.mark.parametrize("name", ["Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated",
                                  "BitsStored", "PixelRepresentation"])  # fmt: skip
def test_what_gives_pixels_their_meaning_must_be_there(tmp_path, name):
    words = f"{pydicom.datadict.dictionary_description(name)} {pydicom.tag.Tag(name)} is missing"
    assert words in reason(dicom(tmp_path / "a.dcm", DEEP, **{name: None}))


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("preamble", [b"", bytes(128) + b"DICM"])
def test_files_without_meta_information(tmp_path, implicit, preamble):
    ds = pydicom.Dataset()
    ds.update(pydicom.dcmread(dicom(tmp_path / "a.dcm", DEEP)))
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    for name in ("b.dcm", "IM0001"):
        (tmp_path / name).write_bytes(preamble + buffer.getvalue().removeprefix(bytes(128) + b"DICM"))
        assert np.array_equal(as_array(tmp_path / name), stretched(GREY))


def test_compressed_pixels_of_an_unnamed_compression_are_refused(tmp_path):
    path = dicom(tmp_path / "a.dcm", DEEP, syntax=JPEG2000Lossless, encapsulated=encapsulate([b"1234"]))
    ds = pydicom.dcmread(path)
    del ds.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(tmp_path / "b.dcm", ds, implicit_vr=False, little_endian=True, enforce_file_format=False)
    assert "Transfer Syntax UID (0002,0010)" in reason(tmp_path / "b.dcm")


def test_what_is_no_dicom_file_is_named(tmp_path):
    (tmp_path / "page.dcm").write_bytes(b"<!DOCTYPE html><html><body>401 Unauthorized</body></html>" * 10)
    assert "no DICOM file, but a web page" in reason(tmp_path / "page.dcm")
    Image.fromarray(DEEP).save(tmp_path / "png.dcm", "PNG")
    assert "no DICOM file, but PNG under its name" in reason(tmp_path / "png.dcm")
    (tmp_path / "noise.dcm").write_bytes(np.random.default_rng(0).bytes(4000))
    assert "no DICOM file" in reason(tmp_path / "noise.dcm")


def test_lengths(tmp_path):
    odd = (GREY[:23, :17] // 16).astype(np.uint8)
    padded = dicom(tmp_path / "a.dcm", odd, PixelData=odd.tobytes() + b"\0")
    assert np.array_equal(as_array(padded), stretched(odd))
    short = dicom(tmp_path / "b.dcm", DEEP, PixelData=DEEP.tobytes()[:-200])
    assert reason(short).startswith(f"cut short: {DEEP.nbytes - 200:,} of {DEEP.nbytes:,} bytes")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_a_cut_file_is_said_to_be_cut(tmp_path, syntax):
    whole = dicom(tmp_path / "a.dcm", DEEP)
    ds = pydicom.dcmread(whole)
    if syntax == RLELossless:
        ds.compress(RLELossless)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(whole)
    content = whole.read_bytes()
    for part in (0.75, 0.9):
        (tmp_path / "b.dcm").write_bytes(content[: int(len(content) * part)])
        assert "cut short" in reason(tmp_path / "b.dcm")


def test_deflated_data_are_bounded_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("medsae_plugin.data.dicom.MOST_PIXELS", 10_000)
    path = dicom(tmp_path / "a.dcm", DEEP, syntax=DeflatedExplicitVRLittleEndian)
    assert np.array_equal(as_array(path), stretched(GREY))
    head = path.read_bytes()[: 144 + int.from_bytes(path.read_bytes()[140:144], "little")]
    packer = zlib.compressobj(wbits=-15)
    path.write_bytes(head + packer.compress(bytes(100_000)) + packer.flush())
    assert "too large" in reason(path)


def test_compressions_that_pydicom_and_pillow_decode(tmp_path):
    for pixels in (DEEP, SIGNED):
        ds = pydicom.dcmread(dicom(tmp_path / "a.dcm", pixels))
        ds.compress(RLELossless)
        ds.save_as(tmp_path / "a.dcm")
        assert np.array_equal(as_array(tmp_path / "a.dcm"), stretched(pixels))
    buffer = io.BytesIO()
    Image.fromarray(DEEP).save(buffer, "JPEG2000", no_jp2=True)
    path = dicom(tmp_path / "b.dcm", DEEP, syntax=JPEG2000Lossless, encapsulated=encapsulate([buffer.getvalue()]))
    assert np.array_equal(as_array(path), stretched(GREY))


COMPRESSIONS = {
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Lossy",
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
}


@pytest.mark.parametrize("uid", COMPRESSIONS)
def test_a_missing_decoder_is_named_with_its_compression(tmp_path, uid, monkeypatch):
    decoder = get_decoder(uid)
    monkeypatch.setattr(decoder, "_unavailable", {**decoder._unavailable, **dict.fromkeys(decoder._available, ("x",))})
    monkeypatch.setattr(decoder, "_available", {})
    path = dicom(tmp_path / "a.dcm", DEEP, syntax=UID(uid), encapsulated=encapsulate([b"\xff\xd8" + bytes(30)]))
    assert COMPRESSIONS[uid] in reason(path) and 'pip install "medsae-plugin[dicom]"' in reason(path)


def test_12_bit_jpeg_names_the_one_decoder_that_has_it(tmp_path):
    if "pylibjpeg" in get_decoder("1.2.840.10008.1.2.4.51").available_plugins:
        pytest.skip("pylibjpeg-libjpeg is installed")
    path = dicom(tmp_path / "a.dcm", DEEP, syntax=UID("1.2.840.10008.1.2.4.51"), BitsStored=12,
                 encapsulated=encapsulate([b"\xff\xd8" + bytes(30)]))  # fmt: skip
    assert "JPEG Extended" in reason(path) and "pylibjpeg-libjpeg" in reason(path)


def test_compressions_that_are_not_taken_and_damage_are_told_apart(tmp_path):
    video = dicom(tmp_path / "a.dcm", DEEP, syntax=UID("1.2.840.10008.1.2.4.102"), encapsulated=encapsulate([b"1234"]))
    assert "MPEG-4" in reason(video) and "not taken" in reason(video)
    damaged = dicom(
        tmp_path / "b.dcm", DEEP, syntax=JPEG2000Lossless, encapsulated=encapsulate([b"\xff\x4f\xff\x51 none"])
    )
    assert "JPEG 2000" in reason(damaged) and "damaged" in reason(damaged)


def transcoded(path, syntax_name: str):
    """The file compressed by GDCM."""
    gdcm = pytest.importorskip("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax_name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()
    return path


@pytest.mark.parametrize(
    "name",
    ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"],
)
@pytest.mark.parametrize("pixels", [DEEP, SIGNED, (GREY // 16).astype(np.uint8)])
def test_the_dicom_extra_decodes_what_it_is_for(tmp_path, name, pixels):
    path = transcoded(dicom(tmp_path / "a.dcm", pixels), name)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_encapsulated
    assert np.array_equal(as_array(path), stretched(pixels))


def test_the_dicom_extra_decodes_jpeg_2000_in_deep_colour(tmp_path):
    path = transcoded(dicom(tmp_path / "a.dcm", COLOUR.astype(np.uint16)), "JPEG2000Lossless")
    assert np.abs(as_array(path) - stretched(COLOUR @ LUMA)).max() <= 1


def test_jpeg_ls_of_pydicoms_own_is_its_uncompressed_twin():
    if not get_decoder(JPEGLSLossless).is_available:
        pytest.skip("no decoder of JPEG-LS is installed")
    twin = as_array(pydicom_file("MR_small.dcm"))
    assert np.array_equal(as_array(pydicom_file("MR_small_jpeg_ls_lossless.dcm")), twin)
