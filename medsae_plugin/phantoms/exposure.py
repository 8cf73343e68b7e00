"""From the density that rays met to a picture: exposure, scatter, blur, noise, collimation, writing."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from medsae_plugin.phantoms.anatomy import Projection, View
from medsae_plugin.phantoms.grid import Field, Grid, edge


@dataclass(frozen=True)
class Exposure:
    """How one picture was taken; drawn before the findings are, so that they leave it as it is."""

    zoom: float
    turn: float
    shift: tuple[float, float]
    centre: float
    contrast: float
    gamma: float
    sharpening: float  # share of the veil that a scanner takes away, below 0 where scatter adds to it
    blur: float  # pixels at 224
    noise: float
    grain: float  # pixels at 224
    border: tuple[float, float, float, float]  # collimated strips: left, top, right, bottom
    backdrop: float  # grey value of the strips
    writing_seed: int
    shading_seed: int
    noise_seed: int


def sample_exposure(seed: int, view: View, projection: Projection) -> Exposure:
    """Bedside (AP) pictures are more turned, blurred, scattered and noisy."""
    rng = np.random.default_rng([seed, 3])
    bedside = projection == "AP"
    rough = 1.3 if bedside else 1.0
    border = tuple(rng.uniform(0.02, 0.12, 4) * (rng.random(4) < (0.4 if bedside else 0.3)))

    def vary(middle: float, deviation: float) -> float:
        return float(middle + deviation * np.clip(rng.normal(), -2, 2))

    return Exposure(
        zoom=vary(0.95, 0.06),
        turn=vary(0.0, 0.05 * rough),
        shift=(vary(0.0, 0.045 * rough), vary(0.0, 0.045)),
        centre=vary(0.43, 0.05),
        contrast=float(np.exp(vary(0.0, 0.25))) * (3.6 if view == "Frontal" else 3.4),
        gamma=float(np.exp(vary(0.0, 0.3))),
        sharpening=float(rng.uniform(-0.25, 0.8)),
        blur=float(rng.uniform(0.25, 0.6)) * rough,
        noise=float(np.exp(rng.uniform(np.log(0.003), np.log(0.01)))) * rough,
        grain=float(rng.uniform(0.3, 1.0)),
        border=(border[0], border[1], border[2], border[3]),
        backdrop=float(rng.uniform(0, 0.3) ** 2 * 2),
        writing_seed=int(rng.integers(2**31)),
        shading_seed=int(rng.integers(2**31)),
        noise_seed=int(rng.integers(2**31)),
    )


def expose(density: Field, grid: Grid, exposure: Exposure, *, marker: bool = False) -> np.ndarray:
    """The picture, uint8 of the grid's size, bright where the rays were stopped."""
    size = grid.size
    rng = np.random.default_rng(exposure.noise_seed)
    veiled = density - np.float32(exposure.sharpening) * (_veil(density) - density)
    veiled += _shading(size, exposure.shading_seed)
    pixel = size / 224
    veiled = gaussian_filter(veiled, exposure.blur * pixel, truncate=3.0)
    grain = rng.standard_normal((size, size), dtype=np.float32)
    grain = gaussian_filter(grain, exposure.grain * pixel, truncate=3.0) if pixel > 0.8 else grain
    # Fewer quanta get through dense parts: their noise grows as the root of the attenuation.
    veiled += np.float32(exposure.noise * pixel**0.5 * 1.8) * grain * np.exp(np.float32(1.1) * (veiled - 0.5))
    shown = 1 / (1 + np.exp(np.float32(-exposure.contrast * 1.45) * (veiled - np.float32(exposure.centre))))
    black = 1 / (1 + np.exp(exposure.contrast * 1.45 * exposure.centre))
    shown = np.clip((shown - black) / (1 - black) * 1.02, 0, 1) ** np.float32(exposure.gamma)
    shown = np.maximum(shown, _writing(size, exposure.writing_seed))
    field = collimation(size, exposure.border)
    shown = shown * field + np.float32(exposure.backdrop) * (1 - field)
    if marker:
        shown = np.maximum(shown, _tag(size))
    return (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)


def _shading(size: int, seed: int) -> Field:
    """Uneven exposure: a slope from side to side, as of the anode's heel, and hills a third of the picture wide."""
    rng = np.random.default_rng(seed)
    grid = Grid(size)
    right, down = rng.normal(0, 0.09, 2)
    hills = rng.uniform(0.03, 0.13) * grid.clouds(rng, 3)
    return (np.float32(right) * grid.x + np.float32(down) * grid.y + hills).astype(np.float32)


def _veil(density: Field) -> Field:
    """Scattered light: the density smeared over a tenth of the picture, found on a coarse copy."""
    return gaussian_filter(density, density.shape[0] / 16, truncate=2.0)


LETTERS: dict[str, list[list[tuple[float, float]]]] = {
    "L": [[(0, 0), (0, 1)], [(0, 1), (0.6, 1)]],
    "R": [[(0, 1), (0, 0)], [(0, 0), (0.6, 0.1), (0.6, 0.4), (0, 0.5)], [(0.2, 0.5), (0.6, 1)]],
    "A": [[(0, 1), (0.3, 0)], [(0.3, 0), (0.6, 1)], [(0.1, 0.6), (0.5, 0.6)]],
    "P": [[(0, 1), (0, 0)], [(0, 0), (0.6, 0.1), (0.6, 0.4), (0, 0.5)]],
    "7": [[(0, 0), (0.6, 0)], [(0.6, 0), (0.2, 1)]],
    "1": [[(0.3, 0), (0.3, 1)]],
    "0": [[(0.3, 0), (0.6, 0.5), (0.3, 1), (0, 0.5), (0.3, 0)]],
}


def _writing(size: int, seed: int) -> Field:
    """Nothing to six words of a few letters and figures near the picture's rim, in any brightness."""
    rng = np.random.default_rng(seed)
    lines: list[tuple[np.ndarray, float, float]] = []
    for _ in range(int(rng.integers(0, 7))):
        height, value = rng.uniform(0.05, 0.13), rng.uniform(0.5, 1.0)
        word = rng.choice([*LETTERS], int(rng.choice([1, 2, 5])))
        along, near = rng.uniform(-0.95, 0.8), rng.choice([-1, 1]) * rng.uniform(0.82, 0.93)
        start = (along, near) if rng.random() < 0.5 else (near, along)
        for i, letter in enumerate(word):
            corner = np.array([start[0] + 0.85 * height * i, start[1] - height / 2])
            lines += [(corner + height * np.array(stroke), 0.15 * height, value) for stroke in LETTERS[letter]]
    return Grid(size).strokes(lines)


def _tag(size: int) -> Field:
    """A round tag with a hole, low in the picture's left."""
    grid = Grid(size)
    return grid.disc(-0.86, 0.86, 0.09, 0.09) - grid.disc(-0.86, 0.86, 0.035, 0.035)


def collimation(size: int, border: tuple[float, float, float, float]) -> Field:
    """1 in the part of the picture that rays reach, 0 on its collimated strips."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    left, top, right, bottom = border
    width = 0.006

    def strip(near: float, far: float) -> Field:
        opened = edge(axis - near, width) if near else np.ones_like(axis)
        return opened * (edge(1 - far - axis, width) if far else 1)

    return (strip(top, bottom)[:, None] * strip(left, right)).astype(np.float32)
