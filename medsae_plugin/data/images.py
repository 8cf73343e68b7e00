"""Image files to 8-bit greyscale PIL images: JPEG, PNG (8 and 16 bit), TIFF, BMP, DICOM."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from medsae_plugin.errors import MedSAEError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".dcm", ".dicom"})
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
# PIL's own bound on what a small file may claim; radiographs stay under 5,000 x 5,000.
_MOST_PIXELS = 178_956_970


class UnreadableImage(MedSAEError):
    """An image file that cannot be read; `path` says which, `reason` why, in a few words without the path."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = Path(path), reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        return type(self), (self.path, self.reason)  # so that a decoding worker can hand it on


def read_image(path: str | Path) -> Image.Image:
    """An image file as a PIL image of mode `L` (8-bit grey), upright.

    Colour becomes grey by ITU-R 601-2 luma; what is transparent shows black. Images of more than 8 bits are scaled from
    their own minimum and maximum to 0..255, since radiographs of 10 to 14 bits come in 16-bit files. DICOM: modality
    and VOI lookup or window are applied, MONOCHROME1 is inverted, then scaled likewise.

    Raises:
        UnreadableImage: the file is missing, empty, damaged, cut short, too large or no image of these formats.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(path, (error.strerror or type(error).__name__).lower()) from None
    if not content:
        raise UnreadableImage(path, "the file is empty")
    is_dicom = content[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read_dicom(content) if is_dicom else _read_raster(content)
    except _Refused as refusal:
        raise UnreadableImage(path, str(refusal)) from None
    except Image.DecompressionBombError:
        raise UnreadableImage(path, f"too large: more than {_MOST_PIXELS:,} pixels") from None
    except MemoryError:
        raise UnreadableImage(path, "not enough memory to read it") from None
    except Exception as error:  # decoders of damaged files raise whatever they stumble on
        raise UnreadableImage(path, f"damaged or not an image ({type(error).__name__})") from None


class _Refused(Exception):
    pass


def _read_raster(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
        return _scaled(np.asarray(upright, dtype=np.float64))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, upright).convert("RGB").convert("L")
    return upright.convert("L")


def _read_dicom(content: bytes) -> Image.Image:
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    if "PixelData" not in dataset:
        raise _Refused("a DICOM file without an image")
    if int(getattr(dataset, "NumberOfFrames", 1) or 1) > 1:
        raise _Refused("a DICOM file of several frames")
    if int(dataset.Columns) * int(dataset.Rows) > _MOST_PIXELS:
        raise Image.DecompressionBombError
    try:
        pixels = dataset.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        if "missing dependencies" in str(error):
            raise _Refused(
                f"compressed as {dataset.file_meta.TransferSyntaxUID.name}, which needs a decoder "
                "(pip install pylibjpeg[all])"
            ) from None
        raise
    if pixels.ndim == 3:
        return Image.fromarray(pixels.astype(np.uint8)).convert("L")
    if pixels.ndim != 2:
        raise _Refused(f"a DICOM image of {pixels.ndim} dimensions")
    values = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset).astype(np.float64)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() - values
    return _scaled(values)


def _scaled(values: np.ndarray) -> Image.Image:
    """From the values' own minimum and maximum to 0..255; a constant image is black."""
    if not np.isfinite(values).all():
        raise _Refused("pixel values that are not finite")
    low, high = float(values.min()), float(values.max())
    scale = 255.0 / (high - low) if high > low else 0.0
    return Image.fromarray(np.round((values - low) * scale).astype(np.uint8))
