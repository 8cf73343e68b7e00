"""JPEG, PNG, TIFF, BMP, WebP and JPEG 2000 to 8-bit grey."""

from __future__ import annotations

import io
import sys

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medsae_plugin.data import formats, tiff
from medsae_plugin.data.greys import Refused, check_size, luma, scaled

ORIENTATION = 0x0112  # Exif's and TIFF's tag


def read_raster(content: bytes) -> Image.Image:
    """A file's content as an upright image of mode `L`.

    Raises:
        Refused: a format, a layout or a depth that is not taken; several pages or frames; a file cut short.
        Exception: whatever Pillow raises of a damaged file.
    """
    name = formats.taken(content)
    if name is None:
        raise Refused(formats.other(content) or f"no image of a format that is taken ({formats.NAMES}), or damaged")
    if name == "TIFF":
        layout = tiff.read_layout(content)
        if layout.is_deep:
            return _deep_tiff(content, layout)
    try:
        return _read(content, name)
    except (Refused, Image.DecompressionBombError, MemoryError):
        raise
    except Exception as error:
        if name == "JPEG" and (kind := formats.jpeg_kind(content)):
            raise Refused(f"a {kind}, which is not taken; convert it to PNG") from None
        if name == "TIFF" and isinstance(error, UnidentifiedImageError):
            raise Refused(
                f"a TIFF file of a layout that is not taken: {layout.words}; save it as grey or RGB"
            ) from None
        if formats.is_cut_short(content, name):
            raise Refused("cut short: the end of the file is missing") from None
        raise


def _read(content: bytes, name: str) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=(name,)) as image:
        check_size(*image.size)
        if (frames := getattr(image, "n_frames", 1)) > 1:
            raise Refused(f"a {name} file of {frames} frames: save the one that is meant on its own")
        bits = _bits(content, name)
        if bits > 8 and name == "JPEG2000" and (bits > 16 or not image.mode.startswith("I")):
            raise Refused(f"JPEG 2000 of {bits} bits in colour or over 16 bits is not taken; convert it to PNG or TIFF")
        if bits > 8 and name == "PNG" and not image.mode.startswith("I"):
            deep = scaled(*_png_16(content, image.info.get("transparency")))
            return _upright(deep, image.getexif().get(ORIENTATION, 1))
        image.load()
        if image.mode == "L" and bits < 8 and "transparency" in image.info:
            image.info["transparency"] *= 255 // (2**bits - 1)  # Pillow scales the pixels and not this
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        values = np.asarray(upright)
        clear = upright.info.get("transparency")
        return scaled(values, None if clear is None else values != clear)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, upright).convert("RGB").convert("L")
    if upright.mode == "LAB":
        raise Refused("CIE L*a*b* colour is not taken; convert it to RGB")
    return upright.convert("L")


def _bits(content: bytes, name: str) -> int:
    if name == "PNG":
        return content[24]
    return formats.jpeg_2000_bits(content) if name == "JPEG2000" else 8


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    image.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


def _png_16(content: bytes, clear: tuple[int, int, int] | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Grey and opacity of a 16-bit PNG in colour or with alpha; `clear` is the colour that is transparent."""
    if content[25] == 4:  # grey and alpha: as four bytes a pixel
        parts = _unpacked(content, "PNG", "RGBA").astype(np.uint16)
        grey, alpha = parts[..., 0] << 8 | parts[..., 1], parts[..., 2] << 8 | parts[..., 3]
        return grey, alpha / 65535
    bands = "RGBA" if content[25] == 6 else "RGB"
    values = _halves(content, "PNG", f"{bands};16B", f"{bands};16L")
    if bands == "RGBA":
        return luma(values), values[..., 3] / 65535
    return luma(values), None if clear is None else (values != np.array(clear)).any(-1)


def _deep_tiff(content: bytes, layout: tiff.Layout) -> Image.Image:
    values = tiff.samples(content, layout)
    if values is not None:
        return _upright(scaled(*tiff.to_grey(values, layout)), layout.orientation)
    try:
        values = _compressed_tiff(content, layout)
    except UnidentifiedImageError:
        values = None
    if values is None:
        raise Refused(f"a TIFF file of a layout that is not taken: {layout.words}; save it uncompressed, or as PNG")
    return scaled(*tiff.to_grey(values, layout))


def _compressed_tiff(content: bytes, layout: tiff.Layout) -> np.ndarray | None:
    """[rows, columns, samples], upright, by Pillow; None where it would not keep every bit."""
    with Image.open(io.BytesIO(content), formats=("TIFF",)) as image:
        mode, bits, is_native = image.mode, set(layout.bits), image.tile[0][0] == "libtiff"
    if mode.startswith(("I", "F")):
        # libtiff gives numbers in the machine's order; Pillow takes some for the file's.
        native = {"i16": "I;16NS", "i32": "I;32NS", "u32": "I;32N", "f32": "F;32NF"}.get(
            f"{layout.kind}{layout.bits[0]}"
        )
        values = _unpacked(content, "TIFF", native if is_native else None)
        return (values.view(np.uint32) if layout.kind == "u" and values.dtype == np.int32 else values)[..., None]
    if mode not in ("RGB", "RGBA") or not is_native or layout.planar or bits != {16} or layout.kind != "u":
        return None
    is_unspecified = layout.extra[:1] == (0,)
    bands = "RGBX" if is_unspecified else mode
    values = _halves(content, "TIFF", *(f"{bands};16{order}" for order in ("BL" if sys.byteorder == "big" else "LB")))
    return np.pad(values, ((0, 0), (0, 0), (0, 1))) if is_unspecified else values


def _halves(content: bytes, name: str, high: str, low: str) -> np.ndarray:
    """16-bit samples, of which Pillow unpacks the first byte or the second: so it is asked twice."""
    return _unpacked(content, name, high).astype(np.uint16) << 8 | _unpacked(content, name, low)


def _unpacked(content: bytes, name: str, raw_mode: str | None) -> np.ndarray:
    """What Pillow makes of a file's numbers when it takes them for `raw_mode`; None: for what it thinks itself."""
    with Image.open(io.BytesIO(content), formats=(name,)) as image:
        if raw_mode is not None:
            tile = image.tile[0]
            image.tile = [
                tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *(tile.args or ())[1:]))
            ]
        image.load()
        return np.asarray(image)
