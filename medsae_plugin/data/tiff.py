"""TIFF's tags, and samples of more than 8 bits or with a sign, of which Pillow keeps a byte, or refuses the file."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from medsae_plugin.data.greys import Refused, check_size, luma

_KINDS = {1: "u", 2: "i", 3: "f"}  # TIFF 6.0, SampleFormat


@dataclass(frozen=True)
class Layout:
    """The one page of a TIFF file."""

    size: tuple[int, int]  # columns, rows
    bits: tuple[int, ...]
    kind: str  # u, i or f: unsigned, signed, float
    photometric: int  # 0 WhiteIsZero, 1 BlackIsZero, 2 RGB
    extra: tuple[int, ...]  # ExtraSamples: 0 unspecified, 1 premultiplied alpha, 2 alpha
    compression: int
    planar: bool
    orientation: int
    strips: tuple[tuple[int, int], ...]  # offset, length; none where the page is tiled
    big_endian: bool
    fill_order: int

    @property
    def is_deep(self) -> bool:
        return max(self.bits) > 8 or self.kind != "u"

    @property
    def words(self) -> str:
        kind = {"u": "unsigned", "i": "signed", "f": "floating point"}[self.kind]
        return f"{len(self.bits)} x {max(self.bits)}-bit {kind} samples, compression {self.compression}" + (
            ", in planes" if self.planar else ""
        )


def read_layout(content: bytes) -> Layout:
    """The layout of a TIFF file's page.

    Raises:
        Refused: it is cut short, has several pages, or does not say what its numbers mean.
    """
    tags = ImageFileDirectory_v2(content[: 16 if content[2:4] in (b"+\0", b"\0+") else 8])
    if not 8 <= tags.next < len(content):
        raise Refused("cut short: its directory is missing")
    file = io.BytesIO(content)
    file.seek(tags.next)
    tags.load(file)
    if tags.next:
        raise Refused("a TIFF file of several pages: save the page that is meant on its own")
    for tag, name in ((256, "ImageWidth"), (257, "ImageLength"), (262, "PhotometricInterpretation")):
        if tag not in tags:
            raise Refused(f"the TIFF tag {name} is missing (cut short or damaged)")
    formats = {kind if kind != 4 else 1 for kind in _several(tags.get(339, 1))}
    if len(formats) > 1 or not formats <= set(_KINDS):
        raise Refused(f"TIFF samples of the kinds {sorted(formats)} are not taken")
    samples = int(tags.get(277, 1))
    if samples > 8:
        raise Refused(f"a TIFF file of {samples} samples a pixel is not taken; save it as grey or RGB")
    bits = _several(tags.get(258, 1))
    strips = tuple(zip(_several(tags.get(273, ())), _several(tags.get(279, ())), strict=False))
    places = strips + tuple(zip(_several(tags.get(324, ())), _several(tags.get(325, ())), strict=False))
    missing = max((offset + length for offset, length in places), default=0) - len(content)
    if missing > 0:
        raise Refused(f"cut short: {missing:,} bytes are missing")
    check_size(int(tags[256]), int(tags[257]))
    return Layout(
        size=(int(tags[256]), int(tags[257])),
        bits=bits * samples if len(bits) == 1 else bits,
        kind=_KINDS[formats.pop()],
        photometric=int(tags[262]),
        extra=_several(tags.get(338, ())),
        compression=int(tags.get(259, 1)),
        planar=tags.get(284, 1) == 2 and samples > 1,
        orientation=int(tags.get(274, 1)),
        strips=strips,
        big_endian=content[:2] == b"MM",
        fill_order=int(tags.get(266, 1)),
    )


def _several(value: object) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, tuple) else (int(value),)  # type: ignore[call-overload]


def samples(content: bytes, layout: Layout) -> np.ndarray | None:
    """[rows, columns, samples] of a page stored as uncompressed strips; None where it is not."""
    columns, rows = layout.size
    bits = layout.bits[0]
    width = bits // 8
    if layout.compression != 1 or layout.fill_order != 1 or not layout.strips:
        return None
    if set(layout.bits) != {bits} or bits not in (8, 16, 32, 64):
        return None
    kind = np.dtype(f"{'>' if layout.big_endian else '<'}{layout.kind}{width}")
    count = rows * columns * len(layout.bits)
    data = bytearray()
    for offset, length in layout.strips:  # which may overlap, and may claim more than there is
        data += content[offset : offset + min(length, count * width - len(data))]
    if len(data) < count * width:
        raise Refused(f"cut short: {len(data):,} of {count * width:,} bytes of its pixels")
    values = np.frombuffer(data, kind, count)
    if layout.planar:
        return np.moveaxis(values.reshape(len(layout.bits), rows, columns), 0, -1)
    return values.reshape(rows, columns, len(layout.bits))


def to_grey(values: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray | None]:
    """[rows, columns, samples] to grey, white the highest, and its opacity (0..1; None where all is opaque).

    Raises:
        Refused: neither grey nor red, green and blue; extra samples that are not said to be alpha.
    """
    colours = {0: 1, 1: 1, 2: 3}.get(layout.photometric)
    extra = layout.extra
    if colours == 3 and values.shape[-1] == 4 and not extra:
        extra = (2,)  # as Pillow and libtiff take it
    if colours is None or values.shape[-1] != colours + len(extra):
        raise Refused(f"a TIFF file of a layout that is not taken: {layout.words}; save it as grey or RGB")
    colour = values[..., :colours].astype(np.float64)
    grey = luma(colour) if colours == 3 else colour[..., 0]
    if layout.photometric == 0:
        grey = -grey
    if not extra or extra[0] == 0:
        return grey, None
    most = np.iinfo(values.dtype).max if layout.kind != "f" else 1.0
    opacity = np.clip(values[..., colours].astype(np.float64) / most, 0, 1)
    if extra[0] == 1:
        if layout.photometric == 0:
            raise Refused("a TIFF file whose white is zero and whose alpha is premultiplied is not taken")
        grey = np.divide(grey, opacity, out=np.zeros_like(grey), where=opacity > 0)
    return grey, opacity
