"""Small picture files, built byte by byte or by the formats' own libraries, and what they should be read as."""

import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

from medsae_plugin.data.images import UnreadableImage, read_image

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2


def drawn(rows: int = 24, columns: int = 18, most: int = 4095) -> np.ndarray:
    """A gradient with a bright corner, so that a turn, a flip or an inversion shows; from above 0 to `most`."""
    y, x = np.mgrid[0:rows, 0:columns]
    grey = 0.1 + 0.4 * y / rows + 0.2 * x / columns + 0.3 * ((y < rows // 3) & (x < columns // 3))
    return np.round(grey / grey.max() * most).astype(np.int64)


def stretched(values: np.ndarray) -> np.ndarray:
    """Own minimum and maximum to 0..255, in float64."""
    values = np.asarray(values, np.float64)
    return np.round((values - values.min()) * (255 / (values.max() - values.min())))


def as_array(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "L"
    return np.asarray(image)


def reason(path: Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    return caught.value.reason


def png(path: Path, samples: np.ndarray, depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> Path:
    """A PNG of 8 or 16 bits; colour 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA; more chunks before the pixels."""
    samples = samples.reshape(*samples.shape[:2], -1)
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in samples)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def tiff(
    path: Path, *pages: np.ndarray, photometric: int = 1, order: str = "<", strips: int = 1, **tags: object
) -> Path:
    """A TIFF of pages in `strips` strips; `extra`, `planar`, `orientation`, `compression` (1, 8) as its tags."""
    endian = {"<": b"II", ">": b"MM"}[order]
    out, link = bytearray(endian + struct.pack(order + "HI", 42, 0)), 4
    for page in pages:
        samples = page.reshape(*page.shape[:2], -1)
        rows, columns, channels = samples.shape
        stored = np.moveaxis(samples, -1, 0) if tags.get("planar") == 2 else samples
        data = stored.astype(page.dtype.newbyteorder(order)).tobytes()
        bounds = [len(data) // rows * (-(-rows // strips) * i) for i in range(strips)] + [len(data)]
        parts = [data[a:b] for a, b in itertools.pairwise(bounds)]
        if tags.get("compression") == 8:
            parts = [zlib.compress(part) for part in parts]
        start = len(out)
        out += b"".join(parts) + b"\0" * (sum(map(len, parts)) % 2)
        starts = list(itertools.accumulate(map(len, parts), initial=start))
        kind = {"u": 1, "i": 2, "f": 3}[page.dtype.kind]
        entries = {256: [columns], 257: [rows], 258: [page.dtype.itemsize * 8] * channels,
                   259: [tags.get("compression", 1)], 262: [photometric],
                   273: starts[:-1], 274: [tags.get("orientation", 1)], 277: [channels],
                   278: [-(-rows // strips)], 279: [len(part) for part in parts],
                   284: [tags.get("planar", 1)], 338: tags.get("extra", []), 339: [kind] * channels}  # fmt: skip
        coded = []
        for tag, values in entries.items():
            if not values:
                continue
            value = struct.pack(f"{order}{len(values)}I", *values)
            if len(values) > 1:
                place = len(out)
                out += value
                value = struct.pack(order + "I", place)
            coded.append(struct.pack(order + "HHI", tag, 4, len(values)) + value)
        out[link : link + 4] = struct.pack(order + "I", len(out))
        out += struct.pack(order + "H", len(coded)) + b"".join(coded)
        link = len(out)
        out += bytes(4)
    path.write_bytes(bytes(out))
    return path


def dicom(path: Path, pixels: np.ndarray, **fields: object) -> Path:
    """A DICOM file; a field of None is left out, `syntax` is the transfer syntax, `encapsulated` compressed pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = fields.pop("syntax", ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    ds.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    bits = pixels.dtype.itemsize * 8
    ds.BitsAllocated = bits
    ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = (fields.get("BitsStored") or bits) - 1, int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    encapsulated = fields.pop("encapsulated", None)
    order = ">" if meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    ds.PixelData = encapsulated or pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    ds["PixelData"].VR = "OW" if bits > 8 and not encapsulated else "OB"
    ds["PixelData"].is_undefined_length = bool(encapsulated)
    for name, value in fields.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path
