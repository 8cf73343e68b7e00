"""The painter of support devices: tubes, lines, pacemakers, electrodes and wires."""

from collections.abc import Callable

import numpy as np

from medsae_plugin.phantoms.anatomy import Canvas
from medsae_plugin.phantoms.grid import Field, smooth_path

Device = Callable[[Canvas, np.random.Generator], Field]


def support_devices(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """One to four devices, more of them and denser when more severe."""
    table = FRONTAL_DEVICES if canvas.view == "Frontal" else LATERAL_DEVICES
    devices = [table[int(i)] for i in rng.permutation(len(table))]
    if "Pneumothorax" in canvas.painted:
        devices.sort(key=lambda device: device not in (chest_tube, lateral_chest_tube))
    fields = [device(canvas, np.random.default_rng(rng.integers(2**31))) for device in devices]
    total = canvas.grid.zeros()
    for i, shape in enumerate(fields):
        total = np.maximum(total, np.float32(np.clip(4 * severity - i + 0.6, 0, 1)) * shape)
    canvas.density += np.float32(0.30 + 0.22 * severity) * total


def _tube(canvas: Canvas, points: list[tuple[float, float]], width: float) -> Field:
    """A tube with dense walls and a radio-opaque stripe."""
    path = smooth_path(points, 40)
    return canvas.grid.strokes([(path, width, 0.45), (path, width * 0.3, 1.0)])


def endotracheal_tube(canvas: Canvas, rng: np.random.Generator) -> Field:
    tip = rng.uniform(-0.42, -0.30)
    return _tube(canvas, [(0.02, -1.1), (0.01, -0.8), (-0.01, tip)], 0.036)


def gastric_tube(canvas: Canvas, rng: np.random.Generator) -> Field:
    end = rng.uniform(0.25, 0.4)
    return _tube(canvas, [(0.02, -1.1), (0.03, -0.4), (0.03, 0.2), (0.10, 0.52), (end, 0.72), (end + 0.1, 0.70)], 0.026)


def central_line(canvas: Canvas, rng: np.random.Generator) -> Field:
    """From the neck or under the clavicle into the superior vena cava."""
    side = -1 if rng.random() < 0.7 else 1
    tip = rng.uniform(-0.15, 0.05)
    if rng.random() < 0.5:
        points = [(side * 0.18, -1.1), (side * 0.16, -0.75), (-0.06, -0.5), (-0.10, tip)]
    else:
        points = [(side * 0.75, -0.45), (side * 0.5, -0.62), (side * 0.2, -0.58), (-0.07, -0.42), (-0.10, tip)]
    return canvas.grid.strokes([(smooth_path(points, 40), 0.018, 0.9)])


def pacemaker(canvas: Canvas, rng: np.random.Generator) -> Field:
    """A generator under the left clavicle, rarely the right, with leads to atrium and ventricle."""
    side = 1 if rng.random() < 0.85 else -1
    x, y = side * rng.uniform(0.5, 0.6), rng.uniform(-0.50, -0.42)
    box = canvas.grid.disc(x, y, 0.105, 0.085, rng.uniform(-0.3, 0.3), soft=0.015)
    start = [(x - side * 0.05, y - 0.05), (side * 0.32, -0.60), (side * 0.1, -0.52), (-0.09, -0.30)]
    atrial = smooth_path([*start, (-0.14, 0.08), (-0.09, 0.12)], 48)
    ventricular = smooth_path([*start, (-0.08, 0.15), (0.05, 0.38), (0.26, 0.42)], 48)
    leads = canvas.grid.strokes([(atrial, 0.016, 0.85), (ventricular, 0.016, 0.85)])
    return np.maximum(box, leads)


def chest_tube(canvas: Canvas, rng: np.random.Generator) -> Field:
    side = canvas.collapsed_side or (-1 if rng.random() < 0.5 else 1)
    top = rng.uniform(-0.5, -0.25)
    points = [(side * 1.1, 0.45), (side * 0.72, 0.30), (side * 0.55, 0.0), (side * 0.36, top)]
    return _tube(canvas, points, 0.034)


def electrodes(canvas: Canvas, rng: np.random.Generator) -> Field:
    """Electrodes on the skin with their wires."""
    lines, spots = [], canvas.grid.zeros()
    hub = (rng.uniform(-0.3, 0.3), 1.1)
    for x, y in [(-0.5, -0.45), (0.5, -0.45), (0.55, 0.35)]:
        x, y = x + rng.normal(0, 0.06), y + rng.normal(0, 0.06)
        spots = np.maximum(spots, canvas.grid.disc(x, y, 0.034, 0.034, soft=0.012))
        bend = ((x + hub[0]) / 2 + rng.normal(0, 0.12), (y + hub[1]) / 2)
        lines.append((smooth_path([(x, y), bend, hub], 32), 0.011, 0.6))
    return np.maximum(spots, canvas.grid.strokes(lines))


def sternal_wires(canvas: Canvas, rng: np.random.Generator) -> Field:
    lines = []
    across = 0.0 if canvas.view == "Frontal" else None
    for y in np.arange(-0.45, 0.36, 0.16):
        y = float(y + rng.normal(0, 0.01))
        x = across if across is not None else -0.50 - 0.10 * (y > 0) + 0.25 * max(0.0, -0.2 - y)
        angles = np.linspace(0, 2 * np.pi, 16)
        lines.append((np.stack([x + 0.032 * np.cos(angles), y + 0.018 * np.sin(angles)], 1), 0.012, 1.0))
    return canvas.grid.strokes(lines)


def lateral_pacemaker(canvas: Canvas, rng: np.random.Generator) -> Field:
    x, y = -0.42 + rng.normal(0, 0.02), rng.uniform(-0.48, -0.40)
    box = canvas.grid.disc(x, y, 0.04, 0.10, rng.uniform(0.2, 0.6), soft=0.015)
    start = [(x, y - 0.08), (-0.2, -0.55), (-0.08, -0.30)]
    lines = [
        (smooth_path([*start, (-0.12, 0.1), (-0.32, 0.33)], 40), 0.016, 0.85),
        (smooth_path([*start, (-0.06, 0.0), (-0.14, 0.06)], 40), 0.016, 0.85),
    ]
    return np.maximum(box, canvas.grid.strokes(lines))


def lateral_central_line(canvas: Canvas, rng: np.random.Generator) -> Field:
    tip = rng.uniform(-0.1, 0.05)
    path = smooth_path([(0.0, -1.1), (-0.05, -0.7), (-0.08, -0.4), (-0.06, tip)], 40)
    return canvas.grid.strokes([(path, 0.018, 0.9)])


def lateral_chest_tube(canvas: Canvas, rng: np.random.Generator) -> Field:
    top = rng.uniform(-0.5, -0.25)
    return _tube(canvas, [(-0.85, 0.25), (-0.35, 0.2), (0.05, 0.0), (0.25, top)], 0.034)


FRONTAL_DEVICES: tuple[Device, ...] = (
    endotracheal_tube,
    gastric_tube,
    central_line,
    pacemaker,
    chest_tube,
    electrodes,
    sternal_wires,
)
LATERAL_DEVICES: tuple[Device, ...] = (lateral_pacemaker, lateral_central_line, lateral_chest_tube, sternal_wires)
