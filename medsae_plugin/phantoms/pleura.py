"""Painters of findings at the chest wall: pleura and ribs."""

import numpy as np

from medsae_plugin.phantoms.anatomy import AIR, Canvas, Rib
from medsae_plugin.phantoms.grid import edge


def pneumothorax(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """Air without vessels between the chest wall and a fine pleural line; the lung within it is denser."""
    grid = canvas.grid
    lung = canvas.lungs[int(rng.random() * len(canvas.lungs))]
    canvas.collapsed_side = lung.side
    gap = 0.10 + 0.20 * severity
    # Air rises: the gap is widest at the apex and closes towards the base.
    height = np.clip((grid.y - canvas.anatomy.apex) / 1.2, 0, 1)
    wave = 0.012 * np.sin(9 * grid.y + rng.uniform(0, 6))
    beyond = gap * np.clip(1.15 - height * (1.45 - 0.7 * severity), 0, None) + wave - lung.wall
    free = edge(beyond, 0.012) * lung.field
    line = np.exp(-((beyond / 0.011) ** 2)) * lung.field * (height < 1.1 / (1.45 - 0.7 * severity))
    darker = canvas.vessels + np.float32(0.11 + 0.07 * severity) * np.clip(lung.depth, 0.4, 1)
    collapsed = np.float32(AIR * 0.30 * max(0.0, severity - 0.4)) * lung.air * (1 - free)
    canvas.density += collapsed - free * darker + np.float32(0.20 + 0.08 * severity) * line
    np.clip(canvas.density, 0.0, None, out=canvas.density)


def pleural_effusion(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """Fluid above the diaphragm with a meniscus along the wall; lying (AP), part of it veils the lung behind."""
    both = rng.random() < 0.25
    chosen = int(rng.random() * len(canvas.lungs))
    share = rng.uniform(0.5, 0.9)
    veiled = canvas.projection == "AP" and rng.random() < 0.6
    for i, lung in enumerate(canvas.lungs):
        if i != chosen and not both:
            continue
        amount = severity * (1.0 if i == chosen else share)
        # Heights count from the depth of the costophrenic angle.
        angle = lung.at(1.0, 1.0)[1] + (0.16 if canvas.view == "Frontal" else 0.22)
        level = angle - (0.17 + 0.25 * amount)
        meniscus = 0.16 * np.exp(-np.clip(lung.wall, 0, None) / (0.05 + 0.05 * amount)) - 0.03
        fluid = edge(canvas.grid.y - (level - meniscus), 0.05)
        if veiled:
            fluid = np.maximum(fluid, np.float32(0.15 * amount) * edge(canvas.grid.y - (level - 0.5), 0.5))
        canvas.fill(lung, np.float32(0.97) * fluid)


def pleural_other(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """Thickened pleura along the outer wall, calcified in plaques."""
    grid = canvas.grid
    lung = canvas.lungs[int(rng.random() * len(canvas.lungs))]
    v0, v1 = rng.uniform(0.15, 0.35), rng.uniform(0.72, 0.95)
    top, bottom = lung.at(1.0, v0)[1], lung.at(1.0, v1)[1]
    rough = np.clip(1 + 0.35 * grid.clouds(rng, 16), 0.3, 1.8)
    width = (0.025 + 0.065 * severity) * rough
    outer = edge(grid.x * (lung.side or 1) - np.float32(0.05), 0.1)
    along = edge(grid.y - top, 0.12) * edge(bottom - grid.y, 0.12) * outer
    rind = edge(width - lung.wall, 0.02) * edge(lung.wall + 0.03, 0.03) * along
    calcified = np.clip(0.7 * grid.clouds(rng, 20, 2) - 0.2, 0, 1) * rind
    visible = np.clip(lung.field * 2, 0, 1)
    canvas.density += visible * (
        np.float32(0.18 + 0.14 * severity) * rind + np.float32(0.15 + 0.25 * severity) * calcified
    )


def fracture(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """Ribs broken with a gap and a step in the frontal view, a crushed vertebra in the lateral one."""
    if canvas.view == "Lateral":
        _crushed_vertebra(canvas, severity, rng)
        return
    side = -1 if rng.random() < 0.5 else 1
    posterior = [rib for rib in canvas.ribs if rib.start < 0.1]
    first = int(rng.integers(2, 5))
    along = rng.uniform(0.50, 0.80)
    for i in range(4):
        present = float(np.clip(3 * severity - i + 2, 0, 1))
        offset = rng.normal(0, 0.03)
        if present:
            _break(canvas, posterior[first + i], side, along + offset, severity * present)


def _break(canvas: Canvas, rib: Rib, side: int, along: float, severity: float) -> None:
    """The part beyond the break drops; blood around its ends."""
    grid = canvas.grid
    at = rib.start + along * (rib.end - rib.start)
    reach = grid.x * np.float32(side)
    drop = np.float32(0.045 + 0.04 * severity)
    beyond = edge(reach - at, 0.012) * edge(at + 0.22 - reach, 0.18)
    before = rib.paint(grid)
    moved = rib.paint(grid, drop * beyond)
    y = float(rib.height(np.array(at)))
    gap = grid.blob(at * side, y + float(drop) / 2, 0.016 + 0.014 * severity, 0.06)
    canvas.density += np.float32(2.2 + 0.8 * severity) * (moved * (1 - gap) - before)
    bruise = grid.blob(at * side, y + 0.01, 0.055, 0.05)
    canvas.density += np.float32(0.12 + 0.10 * severity) * bruise * np.clip(1 - gap, 0.3, 1)


def _crushed_vertebra(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """A wedge of dense, collapsed bone in the thoracic spine."""
    grid = canvas.grid
    y = rng.uniform(-0.15, 0.45)
    x = float(canvas.spine(np.array(y)))
    tilt = rng.uniform(0.1, 0.3)
    body = grid.disc(x, y, 0.095, 0.055, tilt, soft=0.015)
    line = np.exp(-((grid.ellipse(x, y, 0.10, 0.015, tilt)) ** 2))
    spur = grid.disc(x - 0.10, y + 0.01, 0.02 + 0.03 * severity, 0.03, soft=0.015)
    canvas.density += np.float32(0.06 + 0.14 * severity) * (0.7 * body + 0.5 * line + 0.8 * spur)
