"""The normal chest from the side, facing the picture's left."""

import numpy as np

from medsae_plugin.phantoms.anatomy import AIR, Anatomy, Canvas, Lung
from medsae_plugin.phantoms.grid import Curve, Field, Grid, curve, edge, rounded_minimum, smooth_path
from medsae_plugin.phantoms.vessels import vessel_tree

SPINE_INSIDE = 0.14


def lateral_canvas(anatomy: Anatomy, grid: Grid) -> Canvas:
    """Draw a normal lateral chest."""
    front, back, floor_at = _front(anatomy), _back(anatomy), _floor(anatomy)

    def cover(heart_scale: float, mediastinum_scale: float) -> Field:
        return _cover(grid, heart_scale, mediastinum_scale)

    covered = cover(anatomy.heart, anatomy.mediastinum)
    lung = _lung(grid, anatomy, front, back, floor_at, covered)
    density = _soft_tissue(grid, anatomy, front, back)
    body = np.clip(density * 6, 0, 1)
    density += body * 0.14 * edge(-lung.floor, 0.04) * edge(lung.wall + 0.05, 0.14)
    # The other hemidiaphragm shows as a second, fainter edge.
    density += body * 0.07 * edge(grid.y + 0.05 - floor_at(grid.x), 0.02) * lung.field
    density -= AIR * lung.air
    density += 0.10 * covered * edge(grid.y - 0.0, 0.5)
    rng = np.random.default_rng(anatomy.tree_seed)
    targets = [lung.at(t, v) for t, v in [(0.2, 0.3), (0.4, 0.1), (0.8, 0.25), (0.85, 0.6), (0.75, 0.9), (0.4, 0.85)]]
    tree = vessel_tree(grid, lung.hilum, targets, rng)
    vessels = lung.field * (np.float32(0.75 * anatomy.vessels) * tree + 0.11 * grid.blob(*lung.hilum, 0.09, 0.11))
    density += vessels
    density += _aorta(grid, anatomy) - _trachea(grid)
    density += body * (_spine(grid, anatomy, back) + _ribs(grid, anatomy, front, back) + _sternum(grid, anatomy, front))
    if anatomy.gastric_bubble:
        size = anatomy.gastric_bubble
        shape = grid.disc(-0.02, float(floor_at(np.array(0.0))) + 0.13, 0.17 * size, 0.06 * size, 0.2, soft=0.03)
        density -= 0.16 * shape
    density = np.clip(density, 0, None)
    cage = grid.zeros()  # ribs are seen through the heart from the side
    scales = anatomy.heart, anatomy.mediastinum
    canvas = Canvas(grid, anatomy, "Lateral", "", density, [lung], vessels, cover, *scales, cage)
    canvas.spine = lambda y: back(y) - np.float32(SPINE_INSIDE)
    return canvas


def _front(anatomy: Anatomy) -> Curve:
    """Inner anterior chest wall: x over y."""
    s = anatomy.chest_width / 0.73
    top = anatomy.apex
    knots = [(top - 0.3, -0.08), (top, -0.10), (top + 0.14, -0.24), (top + 0.35, -0.40), (0.0, -0.53), (0.35, -0.58)]
    return curve([(y, x * s) for y, x in [*knots, (0.7, -0.55), (1.2, -0.5)]])


def _back(anatomy: Anatomy) -> Curve:
    """Inner posterior chest wall."""
    hump = 0.05 * anatomy.kyphosis
    top = anatomy.apex
    upper = [(top - 0.3, 0.25), (top, 0.30), (top + 0.2, 0.46 + hump), (-0.2, 0.60 + hump), (0.15, 0.66 + hump)]
    return curve([*upper, (0.5, 0.64), (0.8, 0.58), (1.2, 0.5)])


def _floor(anatomy: Anatomy) -> Curve:
    """The diaphragm: y over x, high in front and deep behind."""
    top = anatomy.right_dome - 0.13
    dome = [(-0.75, 0.14), (-0.5, 0.06), (-0.25, 0.0), (0.0, 0.03), (0.3, 0.17), (0.5, 0.33), (0.68, 0.46), (1.0, 0.5)]
    return curve([(x, top + y) for x, y in dome])


def _soft_tissue(grid: Grid, anatomy: Anatomy, front: Curve, back: Curve) -> Field:
    pad = 0.07 + 0.08 * (anatomy.bulk - 0.82) / 0.4
    arms = curve([(-1.3, 0.38), (-0.8, 0.26), (-0.55, 0.05), (-0.4, 0.0), (1.2, 0.0)])
    ahead = front(grid.y) - np.float32(pad) - 0.9 * arms(grid.y)
    behind = back(grid.y) + np.float32(pad) + 0.09 + arms(grid.y)
    if anatomy.breast:
        ahead = ahead - 0.13 * anatomy.breast * np.exp(-(((grid.y - 0.22) / 0.2) ** 2))
    middle, half = (ahead + behind) / 2, (behind - ahead) / 2
    thickness = np.clip(1 - ((grid.x - middle) / half) ** 2, 0, 1) ** np.float32(0.38)
    inside = edge(grid.x - ahead, 0.03) * edge(behind - grid.x, 0.03)
    # Both shoulders lie over the apices.
    shoulders = 0.10 * edge(-0.52 - grid.y, 0.35)
    return np.float32(0.64 * anatomy.bulk**0.5) * thickness * inside + shoulders * inside


def _cover(grid: Grid, heart: float, mediastinum: float) -> Field:
    m, h = mediastinum, heart
    atrium = [(-0.3, -0.10), (-0.1, 0.02 * h), (0.1, 0.10 + 0.42 * (h - 1)), (0.25, 0.11 + 0.5 * (h - 1))]
    behind = curve([*atrium, (0.42, 0.03 + 0.45 * (h - 1)), (0.7, -0.05)])
    top = 0.02 - 0.35 * (h - 1) - 0.25 * (grid.x + 0.2)
    ventricles = 0.85 * edge(behind(grid.y) - grid.x, 0.07) * edge(grid.y - top, 0.24)
    # Great vessels and upper mediastinum, seen through both lungs.
    vessels = 0.42 * grid.disc(-0.10, -0.18, 0.125 * m**2.2, 0.40, 0.20, soft=0.13)
    return 1 - (1 - ventricles) * (1 - vessels)


def _lung(grid: Grid, anatomy: Anatomy, front: Curve, back: Curve, floor_at: Curve, covered: Field) -> Lung:
    x, y = grid.x, grid.y
    ahead, behind = front(y), back(y)
    floor = floor_at(x) - y
    sides = rounded_minimum(x - ahead, behind - x)
    from_wall = rounded_minimum(sides, y - np.float32(anatomy.apex) - 0.9 * (x - 0.1) ** 2)
    whole = edge(from_wall, 0.035) * edge(floor, 0.02)
    across = np.clip((x - ahead) / np.clip(behind - ahead, 0.05, None), 0.001, 0.999)
    depth = (4 * across * (1 - across)) ** np.float32(0.30)
    depth *= np.float32(anatomy.aeration) * (0.62 + 0.38 * edge(y + 0.15, 1.1))
    # The lungs reach behind the spine, where less of them is met.
    depth *= 1 - 0.20 * edge(across - 0.78, 0.15)

    def at(t: float, v: float) -> tuple[float, float]:
        low = float(floor_at(np.array(-0.4 + 0.9 * t))) - 0.04
        height = anatomy.apex + 0.10 + v * (low - anatomy.apex - 0.10)
        a, b = float(front(np.array(height))) + 0.04, float(back(np.array(height))) - 0.05
        return a + t * (b - a), height

    return Lung(0, whole * (1 - covered), from_wall, floor, depth, at, (0.07, -0.02))


def _trachea(grid: Grid) -> Field:
    lines = [
        (smooth_path([(-0.04, -1.05), (0.0, -0.6), (0.08, -0.12)]), 0.075, 0.9),
        (smooth_path([(0.07, -0.12), (0.09, -0.08)]), 0.07, 1.0),
    ]
    return 0.13 * grid.blur(grid.strokes(lines), 0.012)


def _aorta(grid: Grid, anatomy: Anatomy) -> Field:
    lift = -0.28 - (anatomy.knob - 0.06)
    path = smooth_path(
        [(-0.1, 0.0), (-0.08, lift + 0.1), (0.08, lift), (0.26, lift + 0.1), (0.34, 0.1), (0.36, 0.6)], 40
    )
    return np.float32(0.9 * anatomy.knob) * grid.blur(grid.strokes([(path, 0.13, 1.0)]), 0.02)


def _spine(grid: Grid, anatomy: Anatomy, back: Curve) -> Field:
    middle = back(grid.y) - np.float32(SPINE_INSIDE)
    offset = grid.x - middle
    column = edge(0.085 - np.abs(offset), 0.02)
    phase = np.cos(2 * np.pi * (grid.y + 0.25 * offset) / 0.135)
    bodies = edge(phase + 0.55, 0.5)
    rim = np.exp(-(((np.abs(offset) - 0.08) / 0.012) ** 2)) * bodies + column * np.exp(-(((phase + 0.45) / 0.2) ** 2))
    # Brighter at the shoulders, darker towards the diaphragm.
    fade = np.clip(0.9 - 0.45 * grid.y, 0.4, 1.3)
    processes = 0.5 * edge(0.05 - np.abs(offset - 0.17), 0.03) * edge(phase, 0.6)
    return np.float32(0.11 * anatomy.bone) * fade * (column * (0.55 + 0.45 * bodies) + 0.45 * rim + processes)


def _ribs(grid: Grid, anatomy: Anatomy, front: Curve, back: Curve) -> Field:
    lines = []
    for i in range(9):
        y = anatomy.apex + 0.10 + 0.128 * i
        for shift in (0.0, 0.035):  # left and right do not quite coincide
            start = (float(back(np.array(y))) - 0.03, y + shift)
            end_y = y + 0.24 + 0.02 * i + shift
            middle = (0.22 - 0.03 * i / 9, y + 0.13 + shift)
            end = (float(front(np.array(end_y))) * (0.75 - 0.05 * i), end_y)
            lines.append((smooth_path([start, middle, end]), 0.032, 1.0 if shift else 0.7))
    return np.float32(0.045 * anatomy.bone) * grid.blur(grid.strokes(lines), 0.006)


def _sternum(grid: Grid, anatomy: Anatomy, front: Curve) -> Field:
    heights = np.linspace(anatomy.apex + 0.17, 0.35, 14)
    path = np.stack([front(heights) - 0.025, heights], 1)
    return np.float32(0.13 * anatomy.bone) * grid.blur(grid.strokes([(path, 0.045, 1.0)]), 0.008)
