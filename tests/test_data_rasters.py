"""PNG and TIFF of every depth, WebP and JPEG 2000; and a reason for pages, frames and formats that are not taken."""

import io
import struct
import zlib

import numpy as np
import pytest
from helpers.pictures import LUMA, as_array, drawn, png, reason, stretched, tiff
from PIL import Image

from medsae_plugin.data.formats import IMAGE_SUFFIXES
from medsae_plugin.data.images import UnreadableImage

GREY = drawn()
FULL = np.full_like(GREY, 65535)
COLOUR = np.stack([GREY, np.roll(GREY, 5, 0), 4095 - GREY], -1)
LOOK = np.round(GREY / 16).astype(np.uint8)


@pytest.mark.parametrize(
    ("colour", "samples", "value"),
    [
        (0, [GREY], GREY),
        (2, [GREY, GREY, GREY], GREY),
        (2, np.moveaxis(COLOUR, -1, 0), COLOUR @ LUMA),
        (4, [GREY, FULL], GREY),
        (6, [GREY, GREY, GREY, FULL], GREY),
        (6, [*np.moveaxis(COLOUR, -1, 0), FULL], COLOUR @ LUMA),
    ],
)
@pytest.mark.parametrize("factor", [1, 16])  # 12 bits in 16, and all 16
def test_16_bit_png_of_any_channels_is_scaled_from_its_own_range(tmp_path, colour, samples, value, factor):
    alpha = colour in (4, 6)
    stored = np.stack([s if alpha and i == len(samples) - 1 else s * factor for i, s in enumerate(samples)], -1)
    got = as_array(png(tmp_path / "a.png", stored, 16, colour))
    assert np.abs(got - stretched(value)).max() <= (0 if colour in (0, 4) else 1)  # 1: a half rounds either way


def test_16_bit_transparency_is_black_and_takes_no_part_in_the_range(tmp_path):
    alpha = FULL.copy()
    alpha[:, :4], alpha[:, 4:6] = 0, 32768
    values = np.where(alpha == 0, 60000, GREY + 500)
    expected = np.zeros(GREY.shape)
    expected[:, 4:] = stretched(values[:, 4:])
    for colour, parts in ((4, [values, alpha]), (6, [values, values, values, alpha])):
        got = as_array(png(tmp_path / "a.png", np.stack(parts, -1), 16, colour))
        assert (got[:, :4] == 0).all() and np.abs(got[:, 6:] - expected[:, 6:]).max() <= 1
        assert np.abs(got[:, 4:6] - expected[:, 4:6] / 2).max() <= 1
    grey = as_array(png(tmp_path / "a.png", values, 16, 0, (b"tRNS", struct.pack(">H", 60000))))
    assert np.array_equal(grey, expected)
    rgb = np.stack([values] * 3, -1)
    got = as_array(png(tmp_path / "a.png", rgb, 16, 2, (b"tRNS", struct.pack(">HHH", 60000, 60000, 60000))))
    assert np.abs(got - expected).max() <= 1
    assert "nothing but" in reason(png(tmp_path / "a.png", np.stack([GREY, GREY * 0], -1), 16, 4))


def test_transparent_grey_of_few_bits(tmp_path):
    nibbles = np.arange(16).reshape(2, 8)
    packed = png(tmp_path / "a.png", nibbles[:, ::2] * 16 + nibbles[:, 1::2], 8, 0, (b"tRNS", struct.pack(">H", 15)))
    content = bytearray(packed.read_bytes())
    content[16:25] = struct.pack(">IIB", 8, 2, 4)  # 8 columns of 4 bits
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))  # the chunk's checksum
    packed.write_bytes(content)
    assert np.array_equal(as_array(packed), np.where(nibbles == 15, 0, nibbles * 17))


def test_a_turned_16_bit_png_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = png(tmp_path / "a.png", np.stack([GREY] * 3, -1), 16, 2, (b"eXIf", exif.tobytes()[6:]))
    assert np.abs(as_array(path) - np.rot90(stretched(GREY), -1)).max() <= 1


KINDS = ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"]


def of_kind(kind: str) -> np.ndarray:
    """The drawing over much of a kind's range, over zero where it has a sign, over half its range where it has none."""
    unit = GREY / 4095
    if kind == "f2":
        return (unit - 0.3).astype(kind)
    if kind[0] == "f":
        return (unit * 3e5 - 1e5).astype(kind)
    info = np.iinfo(kind)
    return (info.min * 0.9 + unit * (float(info.max) - info.min) * 0.9).astype(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("photometric", [0, 1])
def test_tiff_grey_of_every_kind_of_number(tmp_path, kind, order, photometric):
    values = of_kind(kind)
    path = tiff(tmp_path / "a.tif", values, photometric=photometric, order=order, strips=3)
    signed = values.astype(np.float64) * (1 if photometric else -1)
    expected = (values if photometric else 255 - values) if kind == "u1" else stretched(signed)
    assert np.array_equal(as_array(path), expected)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("kind", ["u2", "u4", "f4"])
def test_tiff_colour_and_alpha_of_more_than_8_bits(tmp_path, order, planar, kind):
    most = 1.0 if kind == "f4" else float(np.iinfo(kind).max)
    opacity = np.ones(GREY.shape)
    opacity[:, :4], opacity[:, 4:6] = 0, 0.5
    colour, grey = COLOUR / 4095, GREY / 4095
    inked = [stretched((colour @ LUMA)[:, 4:]), stretched(grey[:, 4:])]
    layouts = {
        "rgb": (2, colour, [], None),
        "rgba": (2, np.dstack([colour, opacity]), [2], inked[0]),
        "premultiplied": (2, np.dstack([colour * opacity[..., None], opacity]), [1], inked[0]),
        "grey and alpha": (1, np.dstack([grey, opacity]), [2], inked[1]),
        "unspecified": (2, np.dstack([colour, opacity]), [0], None),
    }
    for name, (photometric, samples, extra, shown) in layouts.items():
        stored = (samples * most).astype(kind)
        path = tiff(tmp_path / "a.tif", stored, photometric=photometric, order=order, planar=planar, extra=extra)
        got = as_array(path)
        if shown is None:
            assert np.abs(got - stretched(colour @ LUMA)).max() <= 1, name
        else:
            assert (got[:, :4] == 0).all(), name
            assert np.abs(got[:, 6:] - shown[:, 2:]).max() <= 1, name
            assert np.abs(got[:, 4:6] - shown[:, :2] / 2).max() <= 1, name


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff_of_more_than_8_bits(tmp_path, compression):
    cases = {
        "16 bits": (Image.fromarray(GREY.astype(np.uint16)), {}, GREY),
        "white is zero": (Image.fromarray(GREY.astype(np.uint16)), {262: 0}, -GREY),
        "float": (Image.fromarray((GREY / 7).astype(np.float32)), {}, GREY),
        "turned": (Image.fromarray(GREY.astype(np.uint16)), {274: 6}, np.rot90(GREY, -1)),
    }
    for name, (image, tags, value) in cases.items():
        image.save(tmp_path / "a.tif", compression=compression, tiffinfo=tags)
        assert np.abs(as_array(tmp_path / "a.tif") - stretched(value)).max() <= (name == "float"), name


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("photometric", [1, 2])
def test_compressed_tiff_is_read_as_its_uncompressed_twin_or_refused(tmp_path, order, photometric):
    random = np.random.default_rng(0)
    colours = {1: 1, 2: 3}[photometric]
    read = []
    for kind in ("u2", "i2", "u4", "i4", "f4", "f8"):
        for extra in ([], [0], [1], [2]):
            info = np.iinfo(kind) if kind[0] != "f" else None
            noise = random.random((24, 18, colours + len(extra)))
            values = (info.min + noise * (float(info.max) - info.min) if info else noise).astype(kind)
            options = {"photometric": photometric, "order": order, "strips": 2, "extra": extra}
            twin = as_array(tiff(tmp_path / "a.tif", values, **options))
            path = tiff(tmp_path / "b.tif", values, compression=8, **options)
            try:
                got = as_array(path)
            except UnreadableImage as error:
                assert "layout that is not taken" in error.reason and f"{values.itemsize * 8}-bit" in error.reason
                continue
            assert np.array_equal(got, twin), (kind, extra)
            read.append((kind, *extra))
    assert set(read) >= ({("u2",), ("i2",), ("i4",), ("f4",)} if photometric == 1 else {("u2",), ("u2", 0), ("u2", 2)})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_is_as_pillow_turns_it(tmp_path, orientation):
    for pixels, expected in ((LOOK, LOOK), (GREY.astype(np.uint16), stretched(GREY))):
        turned = {1: expected, 2: expected[:, ::-1], 3: expected[::-1, ::-1], 4: expected[::-1], 5: expected.T,
                  6: np.rot90(expected, -1), 7: expected[::-1, ::-1].T, 8: np.rot90(expected)}[orientation]  # fmt: skip
        assert np.array_equal(as_array(tiff(tmp_path / "a.tif", pixels, orientation=orientation)), turned)


def test_numbers_that_are_none_are_told(tmp_path):
    values = (GREY / 4095).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    assert reason(tiff(tmp_path / "a.tif", values)).startswith("3 pixel values that are not finite")
    assert (as_array(tiff(tmp_path / "b.tif", np.full((4, 4), 7, np.float32))) == 0).all()


def test_tiff_without_a_meaning_is_refused(tmp_path):
    two = np.dstack([GREY, GREY]).astype(np.uint16)
    assert "2 x 16-bit unsigned" in reason(tiff(tmp_path / "a.tif", two))
    assert "layout" in reason(tiff(tmp_path / "b.tif", np.dstack([two, two]), photometric=5))
    content = bytearray(tiff(tmp_path / "c.tif", GREY.astype(np.uint16)).read_bytes())
    at = content.index(struct.pack("<HHI", 262, 4, 1))
    content[at : at + 2] = struct.pack("<H", 261)
    (tmp_path / "c.tif").write_bytes(content)
    assert "PhotometricInterpretation is missing" in reason(tmp_path / "c.tif")


def test_pages_and_frames_are_refused(tmp_path):
    pages = GREY.astype(np.uint16)
    assert "several pages" in reason(tiff(tmp_path / "a.tif", pages[::4, ::4], pages))
    assert "several pages" in reason(tiff(tmp_path / "b.tif", LOOK * 0, LOOK))
    first, second = Image.fromarray(LOOK * 0), Image.fromarray(LOOK)
    for suffix in ("png", "webp"):
        first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second])
        assert "2 frames" in reason(tmp_path / f"a.{suffix}")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert "GIF is not taken" in reason(tmp_path / "a.gif")


def test_webp_and_jpeg_2000_are_read(tmp_path):
    Image.fromarray(LOOK).save(tmp_path / "a.webp", lossless=True)
    assert np.array_equal(as_array(tmp_path / "a.webp"), LOOK)
    Image.fromarray(LOOK).save(tmp_path / "a.jp2")
    assert np.array_equal(as_array(tmp_path / "a.jp2"), LOOK)
    Image.fromarray(GREY.astype(np.uint16)).save(tmp_path / "b.jp2")
    assert np.array_equal(as_array(tmp_path / "b.jp2"), stretched(GREY))
    rgb = np.dstack([LOOK, LOOK[::-1], 255 - LOOK])
    for suffix in ("webp", "jp2"):
        Image.fromarray(rgb).save(tmp_path / f"c.{suffix}", lossless=True)
        assert np.array_equal(as_array(tmp_path / f"c.{suffix}"), np.asarray(Image.fromarray(rgb).convert("L")))
    assert {".webp", ".jp2"} <= IMAGE_SUFFIXES


def test_jpeg_2000_in_colour_of_more_than_8_bits_is_refused(tmp_path):
    Image.fromarray(np.dstack([LOOK] * 3)).save(tmp_path / "a.jp2")
    content = bytearray((tmp_path / "a.jp2").read_bytes())
    at = content.index(b"\xff\x4f\xff\x51") + 42
    content[at] = 11  # SIZ: 12 bits in the first component
    (tmp_path / "a.jp2").write_bytes(content)
    assert "12 bits in colour" in reason(tmp_path / "a.jp2")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"P5 2 2 255\n1234", "PNM"),
        (b"\0\0\0 ftypavif", "AVIF"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\xff\x0a\1\2\3", "JPEG XL"),
        (bytes(344) + b"n+1\0", "NIfTI"),
        (b"\x93NUMPY\1\0", "NumPy"),
        (b"%!PS-Adobe-3.0", "PostScript"),
        (b"\x01\xda\0\1", "SGI"),
        (b"%PDF-1.7", "PDF"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\n <!DOCTYPE HTML><html>401", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    ],
)
def test_sound_files_of_other_formats_are_not_called_damaged(tmp_path, content, words):
    (tmp_path / "a.png").write_bytes(content)
    assert words in reason(tmp_path / "a.png") and "damaged" not in reason(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("marker", "bits", "words"), [(0xC1, 12, "12-bit JPEG"), (0xC3, 8, "8-bit lossless JPEG"), (0xF7, 8, "JPEG-LS")]
)
def test_jpeg_of_other_kinds_is_named(tmp_path, marker, bits, words):
    frame = bytes([0xFF, 0xD8, 0xFF, marker, 0, 11, bits, 0, 8, 0, 8, 1, 1, 0x11, 0])
    (tmp_path / "a.jpg").write_bytes(frame + bytes([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0, 1, 2, 3, 0xFF, 0xD9]))
    assert words in reason(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["PNG", "JPEG", "JPEG progressive", "BMP", "WEBP", "JPEG2000", "TIFF", "TIFF lzw"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
def test_a_cut_file_is_said_to_be_cut(tmp_path, name, part):
    options = {"TIFF lzw": {"compression": "tiff_lzw"}, "JPEG progressive": {"progressive": True}}.get(name, {})
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (120, 90)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, name.split()[0], **options)
    content = buffer.getvalue()
    (tmp_path / "a.png").write_bytes(content[: int(len(content) * part)])
    assert "cut short" in reason(tmp_path / "a.png")


def test_a_cut_16_bit_file_is_said_to_be_cut(tmp_path):
    for path in (
        png(tmp_path / "a.png", COLOUR * 13 % 65536, 16, 2),
        tiff(tmp_path / "a.tif", COLOUR.astype(np.uint16), photometric=2),
    ):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        assert "cut short" in reason(path)


def test_size_is_bounded_before_anything_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as scripts on pathology slides set it
    wide = tiff(tmp_path / "a.tif", np.zeros((2, 2), np.uint16))
    content = bytearray(wide.read_bytes())
    for tag in (256, 257):
        at = content.index(struct.pack("<HHI", tag, 4, 1))
        content[at + 8 : at + 12] = struct.pack("<I", 60_000)
    wide.write_bytes(content)
    assert "too large" in reason(wide)
    Image.new("1", (60_000, 5_000)).save(tmp_path / "a.png")
    assert "too large" in reason(tmp_path / "a.png")


def test_strips_that_claim_too_much_are_cut_to_what_the_picture_holds(tmp_path):
    path = tiff(tmp_path / "a.tif", GREY.astype(np.uint16), strips=2)
    content = bytearray(path.read_bytes())
    at = content.index(struct.pack("<HHI", 279, 4, 2))
    counts = int.from_bytes(content[at + 8 : at + 12], "little")
    content[counts + 4 : counts + 8] = struct.pack("<I", GREY.size + 6)  # the second strip, into what follows it
    path.write_bytes(content)
    assert np.array_equal(as_array(path), stretched(GREY))
    at = content.index(struct.pack("<HHI", 277, 4, 1))
    content[at + 8 : at + 12] = struct.pack("<I", 2**31)
    path.write_bytes(content)
    assert "samples a pixel" in reason(path)
