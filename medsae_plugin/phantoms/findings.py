"""The painters of the findings: one function each, called as `painter(canvas, severity, rng)`.

A painter draws all its random numbers whatever the severity, so that severity alone grades a finding, and leaves what
it does not cover as it was: the mask of a finding is where its painter changed the density.
"""

from collections.abc import Callable

import numpy as np

from medsae_plugin.phantoms.anatomy import Canvas, Lung
from medsae_plugin.phantoms.devices import support_devices
from medsae_plugin.phantoms.grid import Field, edge, smooth_path
from medsae_plugin.phantoms.pleura import fracture, pleural_effusion, pleural_other, pneumothorax
from medsae_plugin.phantoms.vessels import vessel_tree

Painter = Callable[[Canvas, float, np.random.Generator], None]


def enlarged_cardiomediastinum(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """A wide upper mediastinum with a prominent aorta."""
    growth = rng.uniform(0.9, 1.1) * (0.25 + 0.5 * severity)
    canvas.widen(canvas.heart_scale, canvas.mediastinum_scale + growth)


def cardiomegaly(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """A cardiothoracic ratio of about 0.50 to 0.62."""
    growth = rng.uniform(0.95, 1.05) * (0.12 + 0.20 * severity)
    canvas.widen(canvas.heart_scale + growth, canvas.mediastinum_scale)


def lung_opacity(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """An ill-defined ground-glass haze, through which vessels are seen."""
    lung = _pick(canvas, rng)
    x, y = canvas.place(lung, [(rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.85)) for _ in range(6)])
    shape = canvas.grid.blob(x, y, rng.uniform(0.15, 0.26), rng.uniform(0.15, 0.26), rng.uniform(0, np.pi))
    texture = np.clip(1 + 0.4 * canvas.grid.clouds(rng, 10), 0.2, 1.9)
    canvas.fill(lung, np.float32(0.30 + 0.40 * severity) * shape * texture)


def lung_lesion(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """A nodule or mass with a sharp, slightly lobulated edge, and satellites when severe."""
    lung = _pick(canvas, rng)
    places = [(rng.uniform(0.15, 0.85), rng.uniform(0.12, 0.9)) for _ in range(8)]
    satellites = [lung.at(rng.uniform(0.15, 0.85), rng.uniform(0.12, 0.9)) for _ in range(2)]
    lobes = [(rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.5)) for _ in range(3)]
    radius = 0.06 + 0.07 * severity
    x, y = canvas.place(lung, places)
    parts = [canvas.grid.disc(x, y, radius, radius * 0.9, soft=0.02)]
    for angle, offset in lobes:
        cx, cy = x + offset * radius * np.cos(angle), y + offset * radius * np.sin(angle)
        parts.append(canvas.grid.disc(cx, cy, 0.75 * radius, 0.7 * radius, soft=0.02))
    for share, (px, py) in zip((0.2, 0.6), satellites, strict=True):
        size = 0.55 * radius * float(np.clip((severity - share) * 5, 0, 1))
        if size > 0.005:
            parts.append(canvas.grid.disc(px, py, size, size, soft=0.02))
    mass = np.maximum.reduce(parts)
    canvas.fill(lung, np.float32(0.6 + 0.4 * severity) * mass)


def edema(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """Bat's wing haze around both hila, engorged vessels and Kerley B lines."""
    grid = canvas.grid
    texture = np.clip(1 + 0.35 * grid.clouds(rng, 14, 2), 0.2, 2.0)
    for lung in canvas.lungs:
        x, y = lung.hilum
        # The outer rim stays clear longest.
        rim = 0.45 + 0.55 * edge(lung.wall - 0.10, 0.12)
        wing = grid.blob(x + 0.10 * lung.side, y + 0.10, 0.24, 0.34)
        low = 0.35 * edge(0.35 - lung.floor, 0.5)
        haze = (wing + low * severity) * rim * texture
        canvas.fill(lung, np.float32(0.05 + 0.12 * severity) * np.clip(haze, 0, 1.1))
        targets = [lung.at(t, v) for t, v in [(0.35, 0.02), (0.7, 0.1), (0.8, 0.35), (0.7, 0.7), (0.4, 0.9)]]
        tree = vessel_tree(grid, lung.hilum, targets, rng)
        canvas.density += np.float32(0.09 + 0.05 * severity) * lung.field * tree
        canvas.density += np.float32(0.12 + 0.10 * severity) * lung.field * _kerley_lines(canvas, lung, rng)


def consolidation(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """Dense airspace filling bounded by a fissure, with air bronchograms."""
    grid = canvas.grid
    lung = canvas.lungs[canvas.infected]
    upper = rng.random() < 0.5
    cut = rng.uniform(0.32, 0.45)
    slant = rng.normal(0, 0.10)
    lobes = [(0.5, 0.12), (0.5, 0.78)] if upper else [(0.5, 0.78), (0.5, 0.12)]
    centre, size = canvas.place(lung, lobes), rng.uniform(0.9, 1.15)
    upper = centre[1] < lung.at(0.5, 0.45)[1]
    fissure = lung.at(0.5, cut if upper else 1 - cut)[1] + slant * (grid.x - centre[0])
    side_of_fissure = edge((fissure - grid.y) if upper else (grid.y - fissure), 0.03)
    reach = (0.18 + 0.10 * severity) * size
    patch = np.clip(1.5 * grid.blob(*centre, reach * 1.15, reach * 1.1), 0, 1) * side_of_fissure
    texture = np.clip(1 + 0.12 * grid.clouds(rng, 12, 2), 0.5, 1.4)
    targets = [(centre[0] + dx, centre[1] + dy) for dx, dy in rng.normal(0, 0.13, (3, 2))]
    bronchi = vessel_tree(grid, ((lung.hilum[0] + centre[0]) / 2, (lung.hilum[1] + centre[1]) / 2), targets, rng)
    aerated = 1 - 0.6 * np.clip(2 * bronchi, 0, 1)
    canvas.fill(lung, np.float32(0.55 + 0.40 * severity) * patch * texture * aerated)


def pneumonia(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """A cluster of fluffy, partly merging foci along the bronchi."""
    lung = canvas.lungs[canvas.infected]
    places = [(rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.85)) for _ in range(6)]
    middle = canvas.place(lung, places)
    across, down = min(places, key=lambda place: np.hypot(*np.subtract(lung.at(*place), middle)))
    foci = canvas.grid.zeros()
    count = 12
    for i in range(count):
        t, v = across + rng.normal(0, 0.20), down + rng.normal(0, 0.14)
        x, y = lung.at(float(np.clip(t, 0, 1)), float(np.clip(v, 0, 1)))
        radius = rng.uniform(0.045, 0.085)
        present = float(np.clip(0.7 * severity * count - i + 3, 0, 1))
        foci = np.maximum(foci, present * canvas.grid.blob(x, y, radius, radius * rng.uniform(0.7, 1.3)))
    fluffy = np.clip(foci * (1 + 0.45 * canvas.grid.clouds(rng, 12, 2)), 0, 1)
    canvas.fill(lung, np.float32(0.50 + 0.45 * severity) * fluffy)


def atelectasis(canvas: Canvas, severity: float, rng: np.random.Generator) -> None:
    """Plates of collapsed lung above the diaphragm, and a wedge of lost volume at its base."""
    grid = canvas.grid
    lung = _pick(canvas, rng)
    lines = []
    for i in range(4):
        t, v = rng.uniform(0.1, 0.4), rng.uniform(0.68, 0.95)
        # From the side, behind the heart.
        x, y = lung.at(t, v) if lung.side else lung.at(t + 0.42, v - 0.1)
        far, tilt = rng.uniform(0.22, 0.34), rng.normal(0.0, 0.35)
        outward = far * (lung.side or 1)
        middle = x + 0.5 * outward, y - 0.02 + 0.3 * far * tilt
        path = smooth_path([(x, y), middle, (x + outward, y + far * tilt)])
        present = float(np.clip(4 * severity - i + 1, 0, 1))
        lines.append((path, rng.uniform(0.03, 0.045), 0.7 * present + 0.3 * (present > 0)))
    plates = grid.blur(grid.strokes(lines), 0.006)
    base = np.exp(-np.clip(lung.floor, 0, None) / 0.07) * edge(lung.floor + 0.05, 0.05)
    inner = grid.blob(lung.at(0.2, 1.0)[0], lung.at(0.2, 1.0)[1], 0.22, 0.25)
    canvas.density += np.float32(0.22 + 0.12 * severity) * lung.field * plates
    canvas.fill(lung, np.float32(0.45 * severity) * base * inner)


def _kerley_lines(canvas: Canvas, lung: Lung, rng: np.random.Generator) -> Field:
    """Short horizontal lines that reach the lower chest wall."""
    lines = []
    for v in np.arange(0.62, 0.98, 0.035):
        x, y = lung.at(1.0, float(v) + rng.normal(0, 0.006))
        length = rng.uniform(0.05, 0.09)
        inward = lung.side or 1
        lines.append(([(x + 0.02 * inward, y), (x - length * inward, y + 0.01)], 0.008, 1.0))
    return canvas.grid.strokes(lines)


def _pick(canvas: Canvas, rng: np.random.Generator) -> Lung:
    """A side at random; a lateral view has but one lung field."""
    return canvas.lungs[int(rng.random() * len(canvas.lungs))]


# In the order in which they are painted: silhouettes first, then what fills much of the lungs, what keeps to a place
# that is left, the pleura, bone and devices.
PAINTERS: dict[str, Painter] = {
    "Enlarged Cardiomediastinum": enlarged_cardiomediastinum,
    "Cardiomegaly": cardiomegaly,
    "Edema": edema,
    "Pleural Effusion": pleural_effusion,
    "Lung Opacity": lung_opacity,
    "Consolidation": consolidation,
    "Pneumonia": pneumonia,
    "Lung Lesion": lung_lesion,
    "Atelectasis": atelectasis,
    "Pneumothorax": pneumothorax,
    "Pleural Other": pleural_other,
    "Fracture": fracture,
    "Support Devices": support_devices,
}
