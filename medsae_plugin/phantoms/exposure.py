"""From the density that rays met to a picture: exposure, scatter, blur, noise, collimation and the side marker."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from medsae_plugin.phantoms.anatomy import Projection, View
from medsae_plugin.phantoms.grid import Field, Grid, edge, smooth_path


@dataclass(frozen=True)
class Exposure:
    """How one picture was taken; drawn before the findings are, so that they leave it as it is."""

    zoom: float
    turn: float
    shift: tuple[float, float]
    centre: float
    contrast: float
    scatter: float
    blur: float  # pixels at 224
    noise: float
    border: tuple[float, float, float, float]  # collimated strips: left, top, right, bottom
    marker: bool
    noise_seed: int


def sample_exposure(seed: int, view: View, projection: Projection) -> Exposure:
    """Bedside (AP) pictures are more turned, blurred, scattered and noisy."""
    rng = np.random.default_rng([seed, 3])
    bedside = projection == "AP"
    rough = 1.5 if bedside else 1.0
    border = tuple(rng.uniform(0.02, 0.09, 4) * (rng.random(4) < (0.35 if bedside else 0.2)))
    return Exposure(
        zoom=float(rng.normal(0.99, 0.03)),
        turn=float(rng.normal(0, 0.018 * rough)),
        shift=(float(rng.normal(0, 0.02 * rough)), float(rng.normal(0.0, 0.025))),
        centre=float(rng.normal(0.43, 0.025)),
        contrast=float(rng.normal(3.6 if view == "Frontal" else 3.4, 0.25)) * (0.90 if bedside else 1.0),
        scatter=float(rng.uniform(0.10, 0.18)) * rough,
        blur=float(rng.uniform(0.35, 0.6)) * rough,
        noise=float(rng.uniform(0.006, 0.012)) * rough,
        border=(border[0], border[1], border[2], border[3]),
        marker=bool(rng.random() < 0.6),
        noise_seed=int(rng.integers(2**31)),
    )


def expose(density: Field, grid: Grid, exposure: Exposure) -> np.ndarray:
    """The picture, uint8 of the grid's size, bright where the rays were stopped."""
    size = grid.size
    rng = np.random.default_rng(exposure.noise_seed)
    veiled = density + np.float32(exposure.scatter) * (_veil(density) - density)
    pixel = size / 224
    veiled = gaussian_filter(veiled, exposure.blur * pixel, truncate=3.0)
    grain = rng.standard_normal((size, size), dtype=np.float32)
    grain = gaussian_filter(grain, 0.6 * pixel, truncate=3.0) if pixel > 0.8 else grain
    # Fewer quanta get through dense parts: their noise grows as the root of the attenuation.
    veiled += np.float32(exposure.noise * pixel**0.5 * 1.8) * grain * np.exp(np.float32(1.1) * (veiled - 0.5))
    shown = 1 / (1 + np.exp(np.float32(-exposure.contrast * 1.45) * (veiled - np.float32(exposure.centre))))
    black = 1 / (1 + np.exp(exposure.contrast * 1.45 * exposure.centre))
    shown = (shown - black) / (1 - black) * 1.02
    if exposure.marker:
        shown = np.maximum(shown, _marker(grid))
    shown *= _collimation(size, exposure.border)
    return (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)


def _veil(density: Field) -> Field:
    """Scattered light: the density smeared over a tenth of the picture, found on a coarse copy."""
    return gaussian_filter(density, density.shape[0] / 16, truncate=2.0)


def _marker(grid: Grid) -> Field:
    """The letter L on the patient's left."""
    upright = Grid(grid.size)
    letter = smooth_path([(0.80, -0.93), (0.80, -0.83)], 4), smooth_path([(0.795, -0.83), (0.86, -0.83)], 4)
    return upright.strokes([(path, 0.02, 0.95) for path in letter])


def _collimation(size: int, border: tuple[float, float, float, float]) -> Field:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    left, top, right, bottom = border
    width = 0.006

    def strip(near: float, far: float) -> Field:
        opened = edge(axis - near, width) if near else np.ones_like(axis)
        return opened * (edge(1 - far - axis, width) if far else 1)

    return (strip(top, bottom)[:, None] * strip(left, right)).astype(np.float32)
