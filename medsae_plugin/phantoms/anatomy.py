"""What a patient's chest measures, and the canvas on which it is drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from medsae_plugin.phantoms.grid import Curve, Field, Grid

if TYPE_CHECKING:
    Sex = Literal["Female", "Male"]
    View = Literal["Frontal", "Lateral"]
    Projection = Literal["PA", "AP", ""]
else:  # what a caller or a file gives is checked by `Case`, which says in words what is wrong
    Sex = View = Projection = str

# How much darker a full depth of lung is than soft tissue, in units of density (0 air, about 1 the densest tissue).
AIR = 0.44


# The share of the ribs' shadow that heart and mediastinum outshine.
HIDDEN = 0.75

# The share of a full depth of air that a place needs for something in it to stand out.
AIRY = 0.4


@dataclass(frozen=True)
class Anatomy:
    """One patient's measures in patient coordinates; the same in all the patient's pictures."""

    sex: Sex
    age: int
    chest_width: float  # from the midline to the inner chest wall
    apex: float  # y of the lungs' tops
    right_dome: float  # y of the right hemidiaphragm
    left_dome: float
    heart: float  # scale of the heart, 1 is a cardiothoracic ratio of about 0.45
    mediastinum: float  # scale of the upper mediastinum's width
    knob: float  # radius of the aortic knob
    bulk: float  # soft tissue, 1 is lean
    breast: float  # size of the breast shadow, 0 for men
    bone: float  # density of bone
    rib_spacing: float
    rib_slope: float
    kyphosis: float
    gastric_bubble: float  # size, 0 for none
    aeration: float  # air in the lungs, 1 at full breath
    vessels: float  # density of the lungs' vessels
    tree_seed: int


def sample_anatomy(seed: int, sex: Sex, age: int) -> Anatomy:
    """A patient's measures: women are narrower, with breasts; age enlarges heart and aorta and thins bone."""
    rng = np.random.default_rng([seed, 1])
    old = np.clip((age - 20) / 70, 0, 1)
    male = sex == "Male"
    right_dome = np.clip(rng.normal(0.48, 0.055), 0.36, 0.60)
    return Anatomy(
        sex=sex,
        age=age,
        chest_width=float(np.clip(rng.normal(0.74 if male else 0.70, 0.032), 0.6, 0.83)),
        apex=float(np.clip(rng.normal(-0.75, 0.04), -0.85, -0.65)),
        right_dome=float(right_dome),
        left_dome=float(right_dome + rng.uniform(-0.05, 0.14)),
        heart=float(rng.normal(0.93 + 0.06 * old, 0.05)),
        mediastinum=float(rng.normal(0.97 + 0.08 * old, 0.09)),
        knob=float(rng.normal(0.062 + 0.025 * old, 0.006)),
        bulk=float(np.clip(rng.normal(1.0, 0.14), 0.75, 1.4)),
        breast=0.0 if male else float(rng.uniform(0.4, 1.4)),
        bone=float(np.clip(rng.normal(1.05 - 0.25 * old, 0.2), 0.5, 1.6)),
        rib_spacing=float(rng.normal(0.126, 0.008)),
        rib_slope=float(rng.normal(1.0, 0.2)),
        kyphosis=float(0.5 + old * rng.uniform(0.4, 1.0)),
        gastric_bubble=float(rng.uniform(0.5, 1.2)) if rng.random() < 0.7 else 0.0,
        aeration=float(rng.uniform(0.72, 1.1)),
        vessels=float(rng.uniform(0.05, 0.17)),
        tree_seed=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class Rib:
    """One pair of ribs in the frontal view: the height of their middle over |x|, from `start` to `end`."""

    height: Curve
    start: float
    end: float
    half_width: float
    density: float

    def paint(self, grid: Grid, shift: Field | float = 0.0) -> Field:
        """Their density; `shift` moves them down, as a field over the picture."""
        reach = np.abs(grid.x)
        u = (grid.y - self.height(reach) - shift) * np.float32(1 / self.half_width)
        u2 = u * u
        # The cortex at the rims is denser than the marrow.
        profile = np.exp(-u2 * u2) * (np.float32(0.65) + np.float32(0.5) * u2)
        inside = (reach > self.start) & (reach < self.end)
        return np.where(inside, profile, 0).astype(np.float32) * np.float32(self.density)


@dataclass
class Lung:
    """One lung of a frontal view (side -1 in the picture's left half, the patient's right) or both in a lateral view.

    Attributes:
        field: 0..1, where air is seen, outside mediastinum and diaphragm.
        wall: distance inwards from the chest wall.
        floor: height above the diaphragm.
        depth: 0..1, air along the ray.
        at: patient coordinates of (across, down), both 0..1: from the mediastinum to the wall (in a lateral view from
            front to back) and from the apex to the diaphragm.
        hilum: its root.
    """

    side: int
    field: Field
    wall: Field
    floor: Field
    depth: Field
    at: Callable[[float, float], tuple[float, float]]
    hilum: tuple[float, float]

    @property
    def air(self) -> Field:
        return self.field * self.depth


@dataclass
class Canvas:
    """The chest while it is drawn: `density` is what the rays met, 0 in air."""

    grid: Grid
    anatomy: Anatomy
    view: View
    projection: Projection
    density: Field
    lungs: list[Lung]
    vessels: Field
    # (scale of the heart, scale of the upper mediastinum) -> where they cover the lungs, 0..1
    cover: Callable[[float, float], Field]
    heart_scale: float
    mediastinum_scale: float
    cage: Field  # density of the ribs
    ribs: list[Rib] = field(default_factory=list)
    infected: int = 0  # which of the lungs consolidation and pneumonia share
    painted: list[str] = field(default_factory=list)  # findings so far
    seen: Field | None = None  # where rays reach the picture, 0..1; None for everywhere
    collapsed_side: int = 0  # of a pneumothorax, which a chest tube drains; 0 for none
    # y -> the middle of the spine
    spine: Curve = np.zeros_like

    def place(self, lung: Lung, places: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """The first of a lung's places (across, down) that still holds air and is in the picture, else the airiest.

        In patient coordinates.
        """
        open_air = lung.air if self.seen is None else lung.air * self.seen
        points = [lung.at(*place) for place in places]
        column, row = np.floor(self.grid.to_picture(np.array(points))).astype(int).T
        inside = (np.minimum(column, row) >= 0) & (np.maximum(column, row) < self.grid.size)
        air = np.where(inside, open_air[np.clip(row, 0, self.grid.size - 1), np.clip(column, 0, self.grid.size - 1)], 0)
        return points[int(np.argmax(np.minimum(air, AIRY)))]

    def fill(self, lung: Lung, share: Field) -> None:
        """Replace a share (clipped to 0..1) of the air that the lung still holds by fluid or tissue."""
        share = np.clip(share, 0, 1)
        self.density += np.float32(AIR) * lung.air * share
        lung.depth = lung.depth * (1 - share)

    def widen(self, heart: float, mediastinum: float) -> None:
        """Redraw heart and mediastinum at other scales; lungs give way."""
        before = self.cover(self.heart_scale, self.mediastinum_scale)
        self.heart_scale, self.mediastinum_scale = heart, mediastinum
        after = self.cover(heart, mediastinum)
        for lung in self.lungs:
            # Adding soft tissue is taking away air, together with the vessels that crossed it.
            open_before = np.maximum(1 - before, np.float32(0.02))
            free = lung.field / open_before
            self.density += (np.float32(AIR) * lung.depth - self.vessels / open_before) * free * (after - before)
            lung.field = np.clip(free * (1 - after), 0, 1)
        self.density -= HIDDEN * self.cage * (after - before)
        self.vessels = self.vessels * (1 - np.clip(after - before, 0, 1))
