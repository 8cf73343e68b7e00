"""Drawing a case."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, find_objects, label

from medsae_plugin.errors import MedSAEError
from medsae_plugin.phantoms.anatomy import Canvas, Projection, Sex, View, sample_anatomy
from medsae_plugin.phantoms.cases import OPACITIES, Case, sample_case
from medsae_plugin.phantoms.exposure import Exposure, collimation, expose, sample_exposure
from medsae_plugin.phantoms.findings import PAINTERS
from medsae_plugin.phantoms.frontal import frontal_canvas
from medsae_plugin.phantoms.grid import Grid
from medsae_plugin.phantoms.lateral import lateral_canvas

SMALLEST = 32
# A finding covers the pixels whose density it changed by more than this share of its greatest change.
MASK_SHARE = 0.15

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Phantom:
    """A drawn chest and what is in it.

    Attributes:
        image: (size, size) uint8.
        case: what it was drawn from; `case.findings` maps what is present to its severity.
        masks: for each finding present, the (size, size) bool array of where it shows.
        boxes: for each finding present, boxes around the mask's parts in pixels: left, top, right, bottom, the last two
            exclusive.
    """

    image: np.ndarray
    case: Case
    masks: dict[str, np.ndarray]
    boxes: dict[str, list[Box]]

    @property
    def findings(self) -> dict[str, float]:
        """Severity of each observation that is present, No Finding (1.0) included, which has no mask."""
        return self.case.labels


def draw_phantom(
    seed: int,
    *,
    size: int = 224,
    findings: Mapping[str, float] | None = None,
    view: View | None = None,
    projection: Projection | None = None,
    sex: Sex | None = None,
    age: int | None = None,
) -> Phantom:
    """Draw the chest of a seed; what is given is kept, the rest follows from the seed.

    Args:
        seed: anatomy, findings, exposure and noise follow from it.
        size: pixels on a side, 32 or more.
        findings: severity in (0, 1] of each finding to draw, by CheXpert's names; {} draws a normal chest.

    Raises:
        MedSAEError: a finding, severity, sex or view that does not exist, or a size under 32.
    """
    case = sample_case(seed, findings=findings, view=view, projection=projection, sex=sex, age=age)
    return draw_case(case, size=size)


def draw_case(case: Case, *, size: int = 224) -> Phantom:
    """Draw a case, such as one read from `truth.jsonl`."""
    canvas, masks, exposure = paint(case, size)
    image = expose(canvas.density, canvas.grid, exposure, marker=case.marker)
    return Phantom(image, case, masks, {name: _boxes(mask) for name, mask in masks.items()})


def paint(case: Case, size: int) -> tuple[Canvas, dict[str, np.ndarray], Exposure]:
    """The case's chest before it is exposed, the (size, size) bool mask of each finding, and how it is exposed."""
    if size < SMALLEST:
        raise MedSAEError(f"phantoms of {size} pixels show nothing; take a size of {SMALLEST} or more")
    exposure = sample_exposure(case.image_seed, case.view, case.projection)
    grid = Grid(size, exposure.zoom, exposure.turn, exposure.shift)
    anatomy = sample_anatomy(case.patient_seed, case.sex, case.age)
    frontal = case.view == "Frontal"
    canvas = frontal_canvas(anatomy, grid, case.projection) if frontal else lateral_canvas(anatomy, grid)
    canvas.infected = case.study_seed % len(canvas.lungs)
    canvas.seen = seen = collimation(size, exposure.border)
    return canvas, _paint_findings(canvas, case, seen > 0.5), exposure


def _paint_findings(canvas: Canvas, case: Case, seen: np.ndarray) -> dict[str, np.ndarray]:
    masks: dict[str, np.ndarray] = {}
    implied = [name for name in OPACITIES if name in case.findings]
    for name, painter in PAINTERS.items():
        if name not in case.findings or (name == "Lung Opacity" and implied):
            continue
        before = canvas.density.copy()
        # Seeded by the finding's name, so that one finding more or less leaves the others where they are.
        rng = np.random.default_rng([case.study_seed, zlib.crc32(name.encode())])
        painter(canvas, case.findings[name], rng)
        canvas.painted.append(name)
        change = np.abs(canvas.density - before)
        masks[name] = (change > MASK_SHARE * change.max()) & seen
    if "Lung Opacity" in case.findings and implied:
        masks["Lung Opacity"] = np.logical_or.reduce([masks[name] for name in implied])
    return {name: masks[name] for name in case.findings}


def _boxes(mask: np.ndarray) -> list[Box]:
    """Boxes around the mask's parts; parts closer than a fortieth of the picture share a box."""
    near = binary_dilation(mask, iterations=max(1, mask.shape[0] // 80))
    parts, _ = label(near)
    boxes = []
    for rows, columns in find_objects(np.where(mask, parts, 0)):
        boxes.append((columns.start, rows.start, columns.stop, rows.stop))
    return boxes
