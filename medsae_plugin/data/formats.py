"""What a file is, by its first bytes; a name for what is not taken, and whether a file was cut short."""

from __future__ import annotations

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".dcm", ".dicom"})

SUFFIXES_OF = {"jpg": (".jpg", ".jpeg"), "png": (".png",), "dicom": (".dcm", ".dicom")}
"""Where a data set has its images in several formats, what says which (`image_format`)."""

NAMES = "JPEG, PNG, TIFF, BMP, WebP, JPEG 2000, DICOM"
# PIL's names of the formats that are taken.
_TAKEN = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"BM", "BMP"),
    (8, b"WEBP", "WEBP"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
)
_OTHER_IMAGES = (
    (0, b"GIF8", "GIF"),
    *((0, b"P%d" % kind, "PNM (PBM, PGM, PPM)") for kind in range(1, 8)),
    (0, b"Pf", "PFM"),
    (0, b"PF", "PFM"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"8BPS", "Photoshop (PSD)"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\x93NUMPY", "NumPy (.npy)"),
    (0, b"\x89HDF", "HDF5"),
    (344, b"n+1\0", "NIfTI"),
    (344, b"ni1\0", "NIfTI"),
    (0, b"NRRD", "NRRD"),
    (0, b"DDS ", "DDS"),
    (0, b"\x01\xda", "SGI"),
    (0, b"%!PS", "PostScript"),
    (0, b"<svg", "SVG"),
)
_NO_IMAGES = (
    (0, b"version https://git-lfs", "a Git LFS pointer in the image's place (git lfs pull)"),
    (0, b"%PDF", "a PDF document, not an image"),
    (0, b"PK\x03\x04", "a ZIP archive, not an image"),
    (0, b"\x1f\x8b", "a gzip archive, not an image"),
    (0, b"<!doctype html", "a web page (HTML), not an image"),
    (0, b"<html", "a web page (HTML), not an image"),
    (0, b"<?xml", "XML, not an image"),
)


def taken(content: bytes) -> str | None:
    """PIL's name of the format, where it is one that is taken (and not DICOM)."""
    return _match(content, _TAKEN)


def looks_like_dicom(content: bytes) -> bool:
    """The preamble, or a first element of group 2 or 8 where the preamble is missing."""
    return content[128:132] == b"DICM" or (content[:2] in (b"\2\0", b"\10\0") and content[3:4] == b"\0")


def other(content: bytes) -> str | None:
    """What a file is that is none of the formats taken, as a reason; None where its first bytes say nothing."""
    if name := _match(content, _OTHER_IMAGES):
        return f"the format {name} is not taken; convert it to PNG or TIFF"
    return _match(content[:2000].lstrip(b"\xef\xbb\xbf \t\r\n").lower(), _LOWER) or _match(content, _NO_IMAGES)


_LOWER = tuple((at, start.lower(), name) for at, start, name in _NO_IMAGES)


def _match(content: bytes, signatures: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((name for at, start, name in signatures if content.startswith(start, at)), None)


def is_cut_short(content: bytes, name: str) -> bool:
    """Whether a file of `name` that did not decode lacks its end. TIFF has its end anywhere: see `tiff`."""
    tail = content.rstrip(b"\0")[-16:]
    if name == "PNG":
        return b"IEND" not in tail
    if name in ("JPEG", "JPEG2000"):
        return not tail.endswith(b"\xff\xd9")
    if name == "WEBP":
        return int.from_bytes(content[4:8], "little") + 8 > len(content)
    return name == "BMP" and int.from_bytes(content[2:6], "little") > len(content)


def jpeg_kind(content: bytes) -> str | None:
    """What kind of JPEG, where it is sound and not of the usual 8 bits (ITU-T T.81, B.1.1.3): '12-bit JPEG'."""
    at = 2
    while at + 5 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4])
        if marker == 0xF7:
            return "JPEG-LS"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            lossless = "lossless " if marker in (0xC3, 0xC7, 0xCB, 0xCF) else ""
            bits = content[at + 4]
            return f"{bits}-bit {lossless}JPEG" if lossless or bits != 8 else None
        at += 2 + length
    return None


def jpeg_2000_bits(content: bytes) -> int:
    """The most bits of a component, from the codestream's SIZ (ITU-T T.800, A.5.1); 0 where there is none."""
    at = content.find(b"\xff\x4f\xff\x51") + 4
    components = int.from_bytes(content[at + 36 : at + 38])
    if at < 4 or not components:
        return 0
    return max(((depth & 0x7F) + 1 for depth in content[at + 38 : at + 38 + 3 * components : 3]), default=0)


def without_suffix(name: str) -> str:
    """A file's name or path without the suffix of an image; other dots are of the name, as in a DICOM UID."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name
