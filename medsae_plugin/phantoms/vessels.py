"""Branching vessels of the lungs."""

from collections.abc import Sequence

import numpy as np

from medsae_plugin.phantoms.grid import Field, Grid

Line = tuple[np.ndarray, float, float]


def vessel_tree(
    grid: Grid, root: tuple[float, float], targets: Sequence[tuple[float, float]], rng: np.random.Generator
) -> Field:
    """Vessels from a root towards each target, forking and thinning on the way: a field in 0..1."""
    lines: list[Line] = []
    for target in targets:
        reach = np.subtract(target, root)
        length, angle = float(np.hypot(*reach)), float(np.arctan2(reach[1], reach[0]))
        start = np.asarray(root, float) + rng.normal(0, 0.025, 2)
        _grow(lines, start, angle, 0.42 * length, 0.030, 3, rng)
    return grid.blur(grid.strokes(lines), 0.007)


def _grow(
    lines: list[Line],
    start: np.ndarray,
    angle: float,
    length: float,
    width: float,
    forks: int,
    rng: np.random.Generator,
) -> None:
    bend = rng.normal(0, 0.18)
    along = np.linspace(0, 1, 6)
    heading = angle + bend * along
    steps = np.stack([np.cos(heading), np.sin(heading)], 1) * (length / 6)
    path = np.concatenate([start[None], start + np.cumsum(steps, 0)])
    lines.append((path, width, float(np.clip(width / 0.022, 0.25, 1.0))))
    if forks == 0:
        return
    spread = rng.uniform(0.25, 0.55)
    for turn in (spread * rng.uniform(0.5, 1.0), -spread * rng.uniform(0.5, 1.0)):
        child = length * rng.uniform(0.62, 0.85)
        _grow(lines, path[-1], angle + bend + turn, child, width * 0.66, forks - 1, rng)
