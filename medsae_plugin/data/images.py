"""Image files to 8-bit greyscale PIL images: JPEG, PNG, TIFF, BMP, WebP, JPEG 2000, DICOM."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from medsae_plugin.data.formats import IMAGE_SUFFIXES, looks_like_dicom
from medsae_plugin.data.greys import MOST_PIXELS, Refused
from medsae_plugin.data.rasters import ORIENTATION, read_raster
from medsae_plugin.errors import MedSAEError

__all__ = ["IMAGE_SUFFIXES", "UnreadableImage", "image_shape", "read_image"]


class UnreadableImage(MedSAEError):
    """An image file that cannot be read; `path` says which, `reason` why, in a few words without the path."""

    def __init__(self, path: str | Path | ImageFile, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = Path(str(path)), reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        return type(self), (self.path, self.reason)  # so that a decoding worker can hand it on


@runtime_checkable
class ImageFile(Protocol):
    """What an image is read from, where it is no file: it is called and read like one."""

    @property
    def name(self) -> str: ...

    def read_bytes(self) -> bytes: ...


@runtime_checkable
class ImageFolder(Protocol):
    """What stands for a folder of images that are no files: `folder / path` is an image of it."""

    def __truediv__(self, path: str, /) -> ImageFile: ...


def read_image(path: str | Path | ImageFile) -> Image.Image:
    """An image file as a PIL image of mode `L` (8-bit grey), upright.

    Colour becomes grey by ITU-R 601-2 luma, a palette by its colours; what is transparent shows black. Images of more
    than 8 bits, of any number of channels, are scaled from their own minimum and maximum to 0..255, since radiographs
    of 10 to 14 bits come in 16-bit files; what is padding or wholly transparent takes no part in that and is black.
    What has white for zero (TIFF's WhiteIsZero, DICOM's MONOCHROME1) is inverted. DICOM: the modality's and the VOI
    lookup table or window are applied first; grey of 8 bits is scaled likewise.

    Raises:
        UnreadableImage: the file is missing, empty, damaged, cut short, too large, of several pages or frames, of a
            format or a compression that is not taken, or does not say what its numbers mean.
    """
    path = Path(path) if isinstance(path, str) else path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(path, (error.strerror or type(error).__name__).lower()) from None
    if not content:
        raise UnreadableImage(path, "the file is empty")
    is_dicom = path.name.lower().endswith((".dcm", ".dicom")) or looks_like_dicom(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not is_dicom:
                return read_raster(content)
            from medsae_plugin.data.dicom import read_dicom  # pydicom takes long to import

            return read_dicom(content)
    except Refused as refusal:
        raise UnreadableImage(path, str(refusal)) from None
    except Image.DecompressionBombError:
        raise UnreadableImage(path, f"too large: more than {MOST_PIXELS:,} pixels") from None
    except MemoryError:
        raise UnreadableImage(path, "not enough memory to read it") from None
    except Exception as error:  # decoders of damaged files raise whatever they stumble on
        raise UnreadableImage(path, f"damaged or not an image ({_words(error)})") from None


def image_shape(path: str | Path | ImageFile) -> tuple[int, int]:
    """(rows, columns) of an image file, upright, as `read_image` has it; of common files from the header alone.

    Raises:
        UnreadableImage: as `read_image`, of what is wrong with a header.
    """
    try:
        path = Path(path) if isinstance(path, str) else path
        with (
            path.open("rb") if isinstance(path, Path) else io.BytesIO(path.read_bytes()) as content,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            if looks_like_dicom(content.read(132)):
                import pydicom

                content.seek(0)
                header = pydicom.dcmread(
                    content, stop_before_pixels=True, specific_tags=["Rows", "Columns"], force=True
                )
                return int(header.Rows), int(header.Columns)
            content.seek(0)
            with Image.open(content, formats=("JPEG", "PNG")) as opened:
                width, height = opened.size
                # A PNG's orientation may come behind its pixels, and asking for it decodes them.
                turned = width != height and opened.getexif().get(ORIENTATION, 1) > 4
                return (width, height) if turned else (height, width)
    except Exception:  # what is wrong with the file, or that it is of another format, is found below
        pass
    image = read_image(path)
    return image.height, image.width


def _words(error: Exception) -> str:
    """An error's kind and first words, which may quote the file."""
    said = "".join(c if c.isprintable() else " " for c in str(error).split("<_io")[0])
    return f"{type(error).__name__}: {said[:120]}".strip(": ")
