"""DICOM to 8-bit grey: decoding, padding, lookup tables and windows as PS3.3 has them; else a reason."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.datadict import dictionary_description
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
)

from medsae_plugin.data import formats
from medsae_plugin.data.greys import MOST_PIXELS, Refused, check_size, luma, scaled

_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_REQUIRED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
             "PixelRepresentation")  # fmt: skip
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def read_dicom(content: bytes) -> Image.Image:
    """A file's content as an image of mode `L`: modality, VOI, then MONOCHROME1 inverted, then its own range scaled.

    Raises:
        Refused: no DICOM, no image, several frames, a compression without a decoder, or a header that does not say
            what the pixels mean.
        Exception: whatever pydicom raises of a damaged file.
    """
    dataset = _dataset(content)
    _check_header(dataset)
    syntax = _transfer_syntax(dataset)
    _check_length(dataset, syntax)
    if dataset.SamplesPerPixel == 3:
        return _colour(dataset, syntax)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return _palette(dataset, syntax)
    values, padding = _stored_values(dataset, syntax)
    values = _windowed(dataset, _rescaled(dataset, values))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = -values.astype(np.float64)
    return scaled(values, None if padding is None else ~padding)


# --- the header -------------------------------------------------------------------------------------------------------


def _dataset(content: bytes) -> pydicom.FileDataset:
    _check_deflated(content)
    try:
        dataset = pydicom.dcmread(io.BytesIO(content), force=True)
        is_dicom = any(name in dataset for name in ("SOPClassUID", "Rows", "PixelData"))
    except Exception as error:
        if content[128:132] == b"DICM" and isinstance(error, (EOFError, struct.error)):
            raise Refused("cut short: the DICOM file ends inside an element") from None
        if formats.looks_like_dicom(content):
            raise
        is_dicom = False
    if not is_dicom and content[128:132] != b"DICM":
        name = formats.taken(content)
        raise Refused(
            "no DICOM file, but " + (f"{name} under its name" if name else formats.other(content) or "something else")
        )
    return dataset


def _check_deflated(content: bytes) -> None:
    """Before pydicom unpacks all of a deflated file: may it, within what the largest image takes?"""
    if DeflatedExplicitVRLittleEndian.encode() not in content[:4000]:
        return
    start = 144 if content[128:132] == b"DICM" else 12
    start += int.from_bytes(content[start - 4 : start], "little")  # PS3.10, 7.1: the length of the meta information
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    packed, size = content[start:], 0
    while packed and not unpacker.eof:
        size += len(unpacker.decompress(packed, 1 << 24))
        if size > 8 * MOST_PIXELS:
            raise Refused(f"too large: it unpacks to more than {8 * MOST_PIXELS:,} bytes")
        packed = unpacker.unconsumed_tail
    if not unpacker.eof:
        raise Refused("cut short: its deflated data end too soon")


def _check_header(dataset: pydicom.Dataset) -> None:
    if not dataset.get("PixelData"):
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise Refused("floating point pixel data are not taken")
        if "Rows" in dataset:
            raise Refused("cut short: a DICOM file that has rows and columns, and no pixels")
        raise Refused("a DICOM file without an image (a report, a plan), or one cut short before it")
    if (frames := int(_number(dataset, "NumberOfFrames") or 1)) > 1:
        raise Refused(f"a DICOM file of several frames ({frames})")
    for name in _REQUIRED:
        if dataset.get(name) in (None, ""):
            raise Refused(f"{_words(name)} is missing from the DICOM header, so its pixels could mean anything")
    check_size(int(dataset.Columns), int(dataset.Rows))
    if not int(dataset.Columns) * int(dataset.Rows):
        raise Refused(f"an image of {dataset.Rows} rows and {dataset.Columns} columns")
    samples, photometric = dataset.SamplesPerPixel, str(dataset.PhotometricInterpretation)
    if photometric not in {1: _GREY, 3: _COLOUR}.get(samples, ()):
        raise Refused(f"Photometric Interpretation {photometric[:16]!r} of {samples} samples a pixel is not taken")


def _transfer_syntax(dataset: pydicom.FileDataset) -> UID:
    pixels = dataset["PixelData"]
    encapsulated = pixels.is_undefined_length or bytes(pixels.value[:4]) == b"\xfe\xff\x00\xe0"
    if not dataset.file_meta.get("TransferSyntaxUID"):
        if encapsulated:
            raise Refused("compressed, and the Transfer Syntax UID (0002,0010) that says how is missing")
        implicit, little = dataset.original_encoding
        syntaxes = {(True, True): ImplicitVRLittleEndian, (False, True): ExplicitVRLittleEndian}
        dataset.file_meta.TransferSyntaxUID = syntaxes.get((bool(implicit), bool(little)), ExplicitVRBigEndian)
    syntax = dataset.file_meta.TransferSyntaxUID
    if encapsulated and not syntax.is_private and syntax in pydicom.uid.UID_dictionary and not syntax.is_encapsulated:
        raise Refused(f"compressed, while its Transfer Syntax UID says {syntax.name}")
    return syntax


def _check_length(dataset: pydicom.Dataset, syntax: UID) -> None:
    """Of uncompressed pixels: all there, and of one image."""
    if not syntax.is_transfer_syntax or syntax.is_encapsulated:
        return
    bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated)
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits * 2 // 3
    expected, found = -(-bits // 8), len(dataset.PixelData)
    if found < expected:
        raise Refused(f"cut short: {found:,} of {expected:,} bytes of its pixels")
    if found >= 2 * expected and found > expected + 1:  # an odd length is padded by one
        raise Refused(f"{found:,} bytes of pixels where one image of its size has {expected:,}: several frames?")


def _words(name: str) -> str:
    return f"{dictionary_description(name)} {pydicom.tag.Tag(name)}"


def _number(dataset: pydicom.Dataset, name: str) -> float | None:
    """A number of the header, the first of several; None where it is absent or empty."""
    try:
        value = dataset.get(name)
        if isinstance(value, pydicom.multival.MultiValue):
            value = value[0] if value else None
        number = None if value in (None, "") else float(value)
    except (TypeError, ValueError):
        raise Refused(f"{_words(name)} is not a number") from None
    if number is not None and not np.isfinite(number):
        raise Refused(f"{_words(name)} is not a finite number")
    return number


# --- decoding ---------------------------------------------------------------------------------------------------------


def _decoded(dataset: pydicom.Dataset, syntax: UID, **options: Any) -> tuple[np.ndarray, str]:
    """The pixels and their photometric interpretation; the same whatever else is installed, where Pillow can."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise Refused(f"stored as {syntax.name}, which is not taken; decompress it with another tool") from None
    dataset.NumberOfFrames = 1
    for plugin in ("pillow", ""):  # "": each that is there
        if plugin and plugin not in decoder.available_plugins:
            continue
        try:
            pixels, properties = decoder.as_array(dataset, index=0, decoding_plugin=plugin, **options)
        except MemoryError:
            raise
        except Exception as error:
            if plugin:
                continue
            if not syntax.is_encapsulated:
                raise
            raise Refused(_no_decoder(decoder, dataset, syntax)) from error
        break
    return pixels, str(properties["photometric_interpretation"])


def _no_decoder(decoder: Decoder, dataset: pydicom.Dataset, syntax: UID) -> str:
    """Why compressed pixels could not be decoded, and what to install where that can mend it."""
    twelve_bit = syntax == JPEGExtended12Bit and dataset.BitsStored != 8
    install = "pylibjpeg pylibjpeg-libjpeg (GPL-3.0)" if twelve_bit else '"medsae-plugin[dicom]"'
    missing = {words.split()[0] for words in decoder.missing_dependencies}
    if not decoder.is_available or (twelve_bit and "pylibjpeg" in missing):
        return f"compressed as {syntax.name}, which needs a decoder: pip install {install}"
    tried = f"compressed as {syntax.name}, which {', '.join(decoder.available_plugins)} could not decode: damaged"
    return tried + (f", or in need of another decoder: pip install {install}" if "gdcm" in missing else "")


def _stored_values(dataset: pydicom.Dataset, syntax: UID) -> tuple[np.ndarray, np.ndarray | None]:
    """Stored values [rows, columns], and where they are padding (None: nowhere)."""
    if syntax.is_encapsulated:
        stored, _ = _decoded(dataset, syntax)
        return stored, _padding(dataset, stored)
    raw, _ = _decoded(dataset, syntax, correct_unused_bits=False)
    padding = _padding(dataset, raw)  # may be a number that the stored bits alone do not hold
    width, bits = raw.dtype.itemsize * 8, int(dataset.BitsStored)
    high = int(dataset.get("HighBit") or bits - 1)
    if dataset.BitsAllocated == 1:
        return raw, padding
    if not bits - 1 <= high < width:
        raise Refused(f"High Bit {high} does not fit {bits} bits stored in {width}")
    stored = (raw << (width - 1 - high)) >> (width - bits)
    if (also := _padding(dataset, stored)) is not None and padding is not None:
        padding = padding | also
    return stored, padding


def _padding(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Where values are Pixel Padding Value, or between it and Pixel Padding Range Limit (PS3.3 C.7.5.1.1.2)."""
    value = _number(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = _number(dataset, "PixelPaddingRangeLimit")
    ends = np.array([value, value if limit is None else limit]).astype(np.int64)
    low, high = sorted(ends.astype(stored.dtype).tolist())  # 63536 is -2000 where 16 bits are signed
    return (stored >= low) & (stored <= high)


def _colour(dataset: pydicom.Dataset, syntax: UID) -> Image.Image:
    photometric, is_scaled = dataset.PhotometricInterpretation, dataset.BitsStored != 8
    if photometric in ("YBR_ICT", "YBR_RCT") and syntax not in JPEG2000TransferSyntaxes:
        raise Refused(f"Photometric Interpretation {photometric} in other data than JPEG 2000")
    if is_scaled and photometric.startswith("YBR_FULL"):
        values, _ = _decoded(dataset, syntax, raw=True)  # whose first sample is luma (PS3.3 C.7.6.3.1.2)
        return scaled(values[..., 0])
    values, became = _decoded(dataset, syntax)
    if became != "RGB":
        raise Refused(f"colour that stays {became} when decoded")
    if is_scaled or dataset.PixelRepresentation:
        return scaled(luma(values))
    return Image.fromarray(values.astype(np.uint8)).convert("L")


# --- lookup tables and windows ----------------------------------------------------------------------------------------


def _rescaled(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    """The modality's lookup table, or slope and intercept; empty is absent (PS3.3 C.11.1)."""
    if table := _table_item(dataset, "ModalityLUTSequence"):
        return _looked_up(stored, *_table(table, "Modality LUT", dataset))
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    if slope == 0:
        raise Refused("Rescale Slope (0028,1053) is 0, which makes every pixel alike")
    if slope is None and intercept is None:
        return stored
    return stored * (1.0 if slope is None else slope) + (intercept or 0.0)


def _windowed(dataset: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    """The first VOI lookup table, or else the first window, to 0..1 (PS3.3 C.11.2).

    A window narrower than its function allows (PS3.3 C.11.2.1.2: 1, or for LINEAR_EXACT and SIGMOID above 0) is none.
    """
    if table := _table_item(dataset, "VOILUTSequence"):
        return _looked_up(values, *_table(table, "VOI LUT", dataset))
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    if centre is None or width is None:
        return values
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _FUNCTIONS:
        raise Refused(f"VOI LUT Function {function[:16]!r} of its window is not known")
    if width <= 0 or (width < 1 and function == "LINEAR"):
        return values
    if function == "SIGMOID":
        return 0.5 + 0.5 * np.tanh(2 * (values - centre) / width)  # 1 / (1 + exp(-4 x)), which does not overflow
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (values > centre).astype(np.float64)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _table_item(dataset: pydicom.Dataset, name: str) -> pydicom.Dataset | None:
    """The first item of a sequence, where it holds a table."""
    item = next(iter(dataset.get(name) or ()), None)
    whole = item is not None and item.get("LUTDescriptor") and item.get("LUTData") not in (None, b"", "")
    return item if whole else None


def _table(item: pydicom.Dataset, name: str, dataset: pydicom.Dataset, prefix: str = "LUT") -> tuple[np.ndarray, int]:
    """A lookup table's entries, and the value that the first is for (PS3.3 C.11.1.1, C.7.6.3.1.5)."""
    count, first, bits = (int(v) for v in item[f"{prefix}Descriptor"].value)
    count = count & 0xFFFF or 65536
    data = item[f"{prefix}Data"].value
    big = dataset.original_encoding[1] is False
    if not isinstance(data, bytes):  # US or SS
        words = np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
        data, big = words.astype("<u2").tobytes(), False
    if len(data) >= 2 * count:
        return np.frombuffer(data, ">u2" if big else "<u2", count), first
    if bits > 8 or len(data) < count:
        raise Refused(f"{name} Data hold {len(data)} bytes, which are too few for {count} entries of {bits} bits")
    return np.frombuffer(data, np.uint8, count), first


def _looked_up(values: np.ndarray, entries: np.ndarray, first: int) -> np.ndarray:
    """Entries for values; those before the first get the first, those after the last the last."""
    values = np.round(values).astype(np.int64)
    if first >= 32768 and values.size and values.min() < 0:
        first -= 65536  # written as US where it is SS
    return entries[np.clip(values - first, 0, len(entries) - 1)]


def _palette(dataset: pydicom.Dataset, syntax: UID) -> Image.Image:
    """The luma of the colours that stored values stand for (PS3.3 C.7.9)."""
    stored, _ = _decoded(dataset, syntax)
    if "RedPaletteColorLookupTableData" in dataset:
        tables = [
            _table(dataset, f"{colour} Palette", dataset, f"{colour}PaletteColorLookupTable")
            for colour in ("Red", "Green", "Blue")
        ]
        colours = np.stack([_looked_up(stored, *table) for table in tables], -1)
    elif "SegmentedRedPaletteColorLookupTableData" in dataset:
        count, first, _bits = (int(v) for v in dataset.RedPaletteColorLookupTableDescriptor)
        ramp = np.arange(count & 0xFFFF or 65536, dtype=np.int64)
        whole = apply_color_lut(ramp + first, dataset)[:, :3]
        colours = np.stack([_looked_up(stored, entries, first) for entries in whole.T], -1)
    else:
        raise Refused("PALETTE COLOR without a palette")
    if colours.max() > 255:
        return scaled(luma(colours))
    return Image.fromarray(colours.astype(np.uint8)).convert("L")
