"""The normal chest from the front."""

import numpy as np

from medsae_plugin.phantoms.anatomy import AIR, HIDDEN, Anatomy, Canvas, Lung, Projection, Rib
from medsae_plugin.phantoms.grid import Curve, Field, Grid, curve, edge, rounded_minimum, smooth_path
from medsae_plugin.phantoms.vessels import vessel_tree

SPINE = 0.075
DOME_CENTRE = 0.36


def frontal_canvas(anatomy: Anatomy, grid: Grid, projection: Projection) -> Canvas:
    """Draw a normal frontal chest; AP enlarges heart and mediastinum, lifts the diaphragm and shows the scapulae."""
    bedside = projection == "AP"
    lift = 0.07 if bedside else 0.0
    heart = anatomy.heart * (1.10 if bedside else 1.0)
    mediastinum = anatomy.mediastinum * (1.15 if bedside else 1.0)
    wall = _wall(anatomy)

    def cover(heart_scale: float, mediastinum_scale: float) -> Field:
        return _cover(grid, anatomy, heart_scale, mediastinum_scale, lift)

    covered = cover(heart, mediastinum)
    lungs = [
        _lung(grid, anatomy, -1, anatomy.right_dome - lift, wall, covered),
        _lung(grid, anatomy, 1, anatomy.left_dome - lift, wall, covered),
    ]
    density = _soft_tissue(grid, anatomy, bedside)
    body = np.clip(density * 6, 0, 1)
    for lung in lungs:
        density += body * _abdomen(grid, lung)
        density -= AIR * lung.air
    density += 0.10 * covered * grid.blob(0.05, 0.40, 0.4, 0.6)
    density += _breasts(grid, anatomy)
    rng = np.random.default_rng(anatomy.tree_seed)
    vessels = sum((_vessels(grid, lung, anatomy.vessels, rng) for lung in lungs), grid.zeros())
    density += vessels
    density += _spine(grid, anatomy) - _airways(grid)
    if anatomy.gastric_bubble:
        density -= _gastric_bubble(grid, anatomy, anatomy.left_dome - lift, upright=not bedside)
    ribs = _ribs(anatomy, wall)
    cage = body * sum((rib.paint(grid) for rib in ribs), grid.zeros())
    density += cage * (1 - HIDDEN * covered)
    density += body * (_clavicles(grid, anatomy, bedside) + _scapulae(grid, anatomy, bedside))
    density = np.clip(density, 0, None)
    return Canvas(grid, anatomy, "Frontal", projection, density, lungs, vessels, cover, heart, mediastinum, cage, ribs)


def _abdomen(grid: Grid, lung: Lung) -> Field:
    """Liver or spleen and stomach below the diaphragm, on the lung's side."""
    return 0.13 * edge(-lung.floor, 0.04) * edge(lung.wall + 0.03, 0.12) * edge(grid.x * lung.side, 0.3)


def _wall(anatomy: Anatomy) -> Curve:
    """Inner chest wall: |x| over y."""
    width, apex = anatomy.chest_width, anatomy.apex
    peak = 0.22
    u = np.linspace(0, 1, 24) ** 2
    upper = [(apex + t * (peak - apex), 0.22 + (width - 0.22) * (1 - (1 - t) ** 2.3) ** 0.62) for t in u]
    return curve([*upper, (0.55, width - 0.005), (0.85, width - 0.03), (1.2, width - 0.06)])


def _soft_tissue(grid: Grid, anatomy: Anatomy, bedside: bool) -> Field:
    drop = 0.05 if bedside else 0.0
    skin = anatomy.chest_width + 0.10 + 0.09 * (anatomy.bulk - 0.82) / 0.4
    neck = [(-1.2, 0.21), (-0.95, 0.22), (-0.86 - drop, 0.27), (-0.76 - drop, 0.52)]
    shoulders = [(-0.66 - drop, 0.86), (-0.5, 1.12), (-0.3, 1.15), (-0.12, skin + 0.1)]
    outline = curve([*neck, *shoulders, (0.1, skin), (0.5, skin - 0.01), (1.2, skin + 0.02)])
    width = outline(grid.y)
    thickness = np.clip(1 - (grid.x / width) ** 2, 0, 1) ** np.float32(0.33)
    # The trunk is thicker than neck and shoulders.
    trunk = 0.80 + 0.20 * edge(grid.y + 0.35, 0.9)
    return np.float32(0.62 * anatomy.bulk**0.5) * thickness * trunk * edge(width - np.abs(grid.x), 0.03)


def _cover(grid: Grid, anatomy: Anatomy, heart: float, mediastinum: float, lift: float) -> Field:
    """Heart and mediastinum as an opaque silhouette."""
    m = mediastinum
    low, wide = -0.6 * lift, heart**1.3
    tall = -0.10 * (heart - 1)  # a big heart also reaches higher
    wider = 0.17 * (m - 1)
    upper = [(-1.1, 0.085), (-0.85, 0.09), (-0.66, 0.105 + 0.35 * wider), (-0.52, 0.11 + 0.9 * wider)]
    cava = [(-0.32, 0.125 + 1.1 * wider), (-0.10, 0.125 + 0.7 * wider)]
    atrium = [(0.06 + low + tall, 0.155 * wide), (0.25 + low, 0.215 * wide), (0.40 + low, 0.20 * wide)]
    right = curve([*upper, *cava, *atrium, (0.52 + low, 0.15 * wide), (0.8, 0.12)])
    knob = anatomy.knob * m**0.7
    bulge = [(-0.43, 0.25), (-0.37, 0.9), (-0.31, 1.15), (-0.25, 0.9)]
    arch = [(y, 0.086 + wider + share * knob) for y, share in bulge]
    trunk = [(-0.18, 0.12 + 0.9 * wider), (-0.08 + tall, 0.165 * wide**0.6)]
    ventricle = [(0.06 + tall, 0.23), (0.22, 0.345), (0.36, 0.435), (0.45, 0.45), (0.56, 0.40), (0.9, 0.30)]
    left = curve([*upper, *arch, *trunk, *((y + low, x * wide) for y, x in ventricle)])
    soft = 0.035 + 0.03 * edge(grid.y - 0.1, 0.6)
    return edge((right(grid.y) + grid.x) / soft, 1.0) * edge((left(grid.y) - grid.x) / soft, 1.0)


def _lung(grid: Grid, anatomy: Anatomy, side: int, dome: float, wall: Curve, covered: Field) -> Lung:
    reach = grid.x * np.float32(side)
    width, apex = anatomy.chest_width, anatomy.apex
    lateral = np.clip((reach - DOME_CENTRE) / (width - DOME_CENTRE), 0, None)
    medial = np.clip((DOME_CENTRE - reach) / DOME_CENTRE, 0, None)
    floor = np.float32(dome) + 0.25 * lateral**2.2 + 0.05 * medial**2 - grid.y
    edge_x = wall(grid.y)
    slope = (wall(grid.y + 0.01) - wall(grid.y - 0.01)) / 0.02
    from_wall = rounded_minimum((edge_x - reach) / np.hypot(1, slope), grid.y - np.float32(apex))
    inner = 0.22 - 0.17 * np.sqrt(np.clip((grid.y - apex) / 0.16, 0, 1))
    whole = edge(from_wall, 0.02) * edge(reach - inner, 0.04) * edge(floor, 0.018)
    across = np.clip((reach - 0.02) / (edge_x - 0.02), 0.001, 0.999)
    depth = (4 * across * (1 - across)) ** np.float32(0.42)
    depth *= np.float32(anatomy.aeration) * (0.80 + 0.20 * edge(grid.y + 0.30, 0.6))
    depth *= 1 - 0.22 * np.exp(-np.clip(floor, 0, None) / 0.14)

    def at(t: float, v: float) -> tuple[float, float]:
        y = apex + 0.06 + v * (dome - apex - 0.10)
        heart = 0.24 if side < 0 else 0.42
        near = 0.15 + (heart - 0.15) * float(np.clip((y + 0.05) / 0.25, 0, 1))
        far = float(wall(np.array(y))) - 0.03
        return side * (near + t * (far - near)), y

    hilum = (side * 0.17, -0.03 if side < 0 else -0.07)
    return Lung(side, whole * (1 - covered), from_wall, floor, depth, at, hilum)


def _vessels(grid: Grid, lung: Lung, density: float, rng: np.random.Generator) -> Field:
    ends = [(0.35, 0.10), (0.75, 0.25), (0.9, 0.5), (0.85, 0.75), (0.6, 0.92), (0.25, 0.9)]
    tree = vessel_tree(grid, lung.hilum, [lung.at(t, v) for t, v in ends], rng)
    x, y = lung.hilum
    root = 0.10 * grid.blob(x, y, 0.07, 0.10, -0.5 * lung.side) * (0.6 + 0.6 * tree)
    return lung.field * (np.float32(density) * tree + root)


def _spine(grid: Grid, anatomy: Anatomy) -> Field:
    column = edge(SPINE - np.abs(grid.x), 0.02)
    discs = 0.5 + 0.5 * np.cos(2 * np.pi * grid.y / 0.118)
    spinous = np.exp(-((grid.x / 0.014) ** 2)) * edge(np.cos(2 * np.pi * (grid.y + 0.03) / 0.118) - 0.4, 0.9)
    return np.float32(anatomy.bone) * (column * (0.07 + 0.05 * discs) + 0.05 * spinous)


def _airways(grid: Grid) -> Field:
    lines = [
        (smooth_path([(0.0, -1.05), (0.0, -0.6), (-0.02, -0.22)]), 0.068, 1.0),
        (smooth_path([(-0.02, -0.24), (-0.07, -0.16), (-0.15, -0.08)]), 0.05, 0.8),
        (smooth_path([(-0.02, -0.24), (0.05, -0.17), (0.16, -0.11)]), 0.042, 0.7),
    ]
    return 0.15 * grid.blur(grid.strokes(lines), 0.01)


def _breasts(grid: Grid, anatomy: Anatomy) -> Field:
    if not anatomy.breast:
        return 0.05 * (grid.blob(-0.5, -0.15, 0.3, 0.3) + grid.blob(0.5, -0.15, 0.3, 0.3))
    size = anatomy.breast
    total = grid.zeros()
    for side in (-1, 1):
        radius = grid.ellipse(side * 0.46, 0.26, 0.27 * size**0.5, 0.27 * size**0.5)
        hang = edge(grid.y - np.float32(0.05), 0.5)
        total += np.sqrt(np.clip(1 - radius**2, 0, 1)) * hang
    return np.float32(0.17 * size) * grid.blur(total, 0.012)


def _gastric_bubble(grid: Grid, anatomy: Anatomy, dome: float, upright: bool) -> Field:
    size = anatomy.gastric_bubble
    bubble = grid.disc(0.36, dome + 0.07 + 0.06 * size, 0.15 * size, 0.075 * size, 0.15, soft=0.03)
    if upright:  # a fluid level
        bubble = bubble * edge(dome + 0.07 + 0.08 * size - grid.y, 0.02)
    return np.float32(0.20) * bubble


def _ribs(anatomy: Anatomy, wall: Curve) -> list[Rib]:
    ribs = []
    for i in range(10):
        y0 = anatomy.apex + 0.03 + i * anatomy.rib_spacing
        droop = (0.24 if i > 1 else 0.18) * anatomy.rib_slope
        back = _posterior(y0, droop, anatomy.chest_width, arch=0.05 - 0.004 * i)
        end = _meets_wall(back, wall)
        ribs.append(Rib(back, SPINE, end, 0.025, 0.105 * anatomy.bone))
        if 0 < i < 8:
            front = _anterior(float(back(np.array(end))), end, anatomy.rib_slope)
            ribs.append(Rib(front, 0.24 + 0.022 * i, end, 0.030, 0.05 * anatomy.bone))
    return ribs


def _posterior(y0: float, droop: float, width: float, arch: float) -> Curve:
    s = np.linspace(0, 1.1, 24)
    y = y0 - arch * np.sin(np.pi * np.clip(1.3 * s, 0, 1)) + droop * s**3.2
    return curve(list(zip(s * width, y, strict=True)))


def _anterior(y_end: float, end: float, slope: float) -> Curve:
    reach = np.linspace(0, 1.0, 24)
    inward = np.clip(end - reach, 0, None)
    return curve(list(zip(reach, y_end + 0.02 + slope * 0.50 * inward**0.9, strict=True)))


def _meets_wall(height: Curve, wall: Curve) -> float:
    reach = np.linspace(0.1, 0.9, 161)
    inside = reach < wall(height(reach)) + 0.02
    return float(reach[inside].max(initial=0.3))


def _clavicles(grid: Grid, anatomy: Anatomy, bedside: bool) -> Field:
    rise = 0.03 if bedside else 0.12
    base = anatomy.apex + (0.15 if bedside else 0.22)
    lines, cortex = [], np.array([0, 0.024])
    for side in (-1, 1):
        points = [(0.07, base), (0.25, base - 0.25 * rise), (0.5, base - 0.9 * rise), (0.8, base - rise)]
        path = smooth_path([(side * x, y) for x, y in points])
        lines += [(path, 0.058, 0.75), (path + cortex, 0.008, 1.0), (path - cortex, 0.008, 1.0)]
    return np.float32(0.12 * anatomy.bone) * grid.blur(grid.strokes(lines), 0.005)


def _scapulae(grid: Grid, anatomy: Anatomy, bedside: bool) -> Field:
    """Over the lungs' upper outer parts in AP, turned out of them in PA; with the heads of the humeri."""
    inward = 0.52 if bedside else 0.76
    total = grid.zeros()
    for side in (-1, 1):
        corners = [(inward, -0.52), (inward + 0.34, -0.60), (inward + 0.30, -0.35), (inward + 0.10, 0.10)]
        points = [(side * x, y) for x, y in corners]
        total += 0.045 * grid.polygon(points, 0.02)
        total += 0.05 * grid.blur(grid.strokes([([*points, points[0]], 0.02, 1.0)]), 0.008)
        total += 0.12 * grid.disc(side * 1.0, -0.60, 0.11, 0.12, soft=0.03)
    return np.float32(anatomy.bone) * total
