"""The picture plane of a phantom and the few shapes that everything is drawn with.

Patient coordinates run from -1 to 1 over the picture, x to the right of the picture (the patient's left in a frontal
view) and y downwards. Fields are float32 arrays of the picture's shape, so that a phantom looks the same at any size.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

Field = np.ndarray
Points = Sequence[tuple[float, float]]
Curve = Callable[[np.ndarray], np.ndarray]

SUPERSAMPLING = 2


@dataclass
class Grid:
    """A square picture of `size` pixels showing patient coordinates zoomed, turned (radians) and shifted."""

    size: int
    zoom: float = 1.0
    turn: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    x: Field = field(init=False, repr=False)
    y: Field = field(init=False, repr=False)

    def __post_init__(self) -> None:
        axis = (np.arange(self.size, dtype=np.float32) + 0.5) * (2 / self.size) - 1
        u, v = np.meshgrid((axis - self.shift[0]) / self.zoom, (axis - self.shift[1]) / self.zoom)
        cosine, sine = np.cos(self.turn), np.sin(self.turn)
        self.x = (cosine * u + sine * v).astype(np.float32)
        self.y = (cosine * v - sine * u).astype(np.float32)

    def zeros(self) -> Field:
        return np.zeros((self.size, self.size), np.float32)

    def pixels(self, length: float) -> float:
        """Pixels covered by a length in patient coordinates."""
        return length * self.zoom * self.size / 2

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Pixel positions (n, 2) of patient coordinates (n, 2)."""
        cosine, sine = np.cos(self.turn), np.sin(self.turn)
        u = cosine * points[:, 0] - sine * points[:, 1]
        v = sine * points[:, 0] + cosine * points[:, 1]
        return (np.stack([u, v], 1) * self.zoom + self.shift + 1) * self.size / 2

    def blur(self, image: Field, sigma: float) -> Field:
        """Gaussian blur; sigma in patient coordinates."""
        return gaussian_filter(image, self.pixels(sigma), truncate=3.0)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> Field:
        """Normalised radius: 0 at the centre, 1 on the ellipse, whose rx axis is turned clockwise by `angle`."""
        dx, dy = self.x - np.float32(cx), self.y - np.float32(cy)
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return np.hypot((cosine * dx + sine * dy) / np.float32(rx), (cosine * dy - sine * dx) / np.float32(ry))

    def blob(self, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> Field:
        """A Gaussian hill of height 1."""
        return np.exp(-(self.ellipse(cx, cy, rx, ry, angle) ** 2))

    def disc(self, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0, soft: float = 0.02) -> Field:
        """1 inside the ellipse and 0 outside, over an edge of width `soft`."""
        return edge((1 - self.ellipse(cx, cy, rx, ry, angle)) * np.float32(min(rx, ry)), soft)

    def strokes(self, lines: Iterable[tuple[Points | np.ndarray, float, float]]) -> Field:
        """Polylines (points, width, value in 0..1); where they cross, the greater value stays."""
        scale = self.size * SUPERSAMPLING
        picture = Image.new("L", (scale, scale))
        draw = ImageDraw.Draw(picture)
        for points, width, value in sorted(lines, key=lambda line: line[2]):
            thickness = self.pixels(width) * SUPERSAMPLING
            # A line thinner than one pixel of the fine picture is drawn as that pixel, paler.
            ink = round(255 * value * min(1.0, thickness))
            pixels = self.to_picture(np.asarray(points, float)) * SUPERSAMPLING
            draw.line([tuple(p) for p in pixels], fill=ink, width=max(1, round(thickness)), joint="curve")
        small = picture.resize((self.size, self.size), Image.Resampling.BOX)
        return np.asarray(small, np.float32) / 255

    def polygon(self, points: Points, soft: float = 0.01) -> Field:
        """A filled polygon with soft edges."""
        scale = self.size * SUPERSAMPLING
        picture = Image.new("L", (scale, scale))
        pixels = self.to_picture(np.asarray(points, float)) * SUPERSAMPLING
        ImageDraw.Draw(picture).polygon([tuple(p) for p in pixels], fill=255)
        small = picture.resize((self.size, self.size), Image.Resampling.BOX)
        return self.blur(np.asarray(small, np.float32) / 255, soft)

    def clouds(self, rng: np.random.Generator, cells: int, octaves: int = 1) -> Field:
        """Smooth random hills of mean 0 and deviation about 1, `cells` across; each octave is twice as fine."""
        total = self.zeros()
        for octave in range(octaves):
            n = cells * 2**octave + 1
            coarse = Image.fromarray(rng.standard_normal((n, n)).astype(np.float32))
            fine = coarse.resize((self.size, self.size), Image.Resampling.BICUBIC)
            total += np.asarray(fine, np.float32) * np.float32(1.4 * 0.6**octave)
        return total


def edge(distance: Field, width: float) -> Field:
    """A smooth step from 0 to 1 over `width`, 0.5 where the signed distance is 0."""
    u = np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1)
    return u * u * (3 - 2 * u)


def rounded_minimum(a: Field, b: Field) -> Field:
    """About the lesser of two positive fields, without the crease where they are equal."""
    return a + b - np.sqrt(a * a + b * b)


def curve(knots: Points) -> Curve:
    """A monotone-between-knots curve through (argument, value) pairs, held constant beyond its ends."""
    table = np.asarray(knots, float)
    fine = np.linspace(table[0, 0], table[-1, 0], 257)
    values = PchipInterpolator(table[:, 0], table[:, 1])(fine)
    return lambda argument: np.interp(argument, fine, values).astype(np.float32)


def smooth_path(points: Points, n: int = 24) -> np.ndarray:
    """A smooth polyline (n, 2) through the points."""
    given = np.asarray(points, float)
    at = np.linspace(0, len(given) - 1, n)
    knots = np.arange(len(given))
    return np.stack([PchipInterpolator(knots, given[:, axis])(at) for axis in (0, 1)], 1)
