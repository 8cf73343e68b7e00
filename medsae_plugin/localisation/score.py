"""Where the top units of each finding fire, against regions, on patients that had no part in the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from tqdm import tqdm

from medsae_plugin.data.regions import Regions
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.localisation import maps as figures
from medsae_plugin.localisation.estimates import estimate, other_patients
from medsae_plugin.localisation.inside import inside_units
from medsae_plugin.localisation.places import Places
from medsae_plugin.localisation.results import FIGURES, Localisation, LocalisedUnit, LocalisedUnits, SizeBand
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import Aggregate, LatentMatrix
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.protocols import kept_or_scratch, unit_matrices
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.scoring import least_firing
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.units import Units
from medsae_plugin.statistics.correlation import pearson_of
from medsae_plugin.store.reader import ActivationStore

TOP = 3
_BANDS = 3


def score_regions(
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    regions: Regions,
    out: str | Path | None = None,
    *,
    latents: Sequence[str] = (),
    inside: str | None = None,
    maps: Literal["grid", "pixels"] = "grid",
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Localisation:
    """Score the maps of SAEs' latents, of untrained ones' and of raw neurons against the regions of findings.

    For each label that has regions, the `TOP` units of the largest r with it on `select` (of those that fire often
    enough), and of the SAEs `latents` too; on the images of `report` where the table has the label present and a region
    is given. Beside each figure the same maps with the regions of other patients with the finding, drawn with `seed`.

    Args:
        latents: more latents of every SAE, by number.
        inside: a finding that every image may have a region of, such as `lungs`; see `inside_units`.
        maps: `grid` scores the cells of the hook's grid, against the share of each that is covered; `pixels` brings
            them to the encoder's input, bilinear.
        out: a folder, for `localisation.json`, `localisation.parquet` and `inside.parquet`; one that `evaluate` wrote
            has the latent matrices already.

    Raises:
        MedSAEError: a hook without positions, or of which the store keeps some; no region of any label on `report`; and
            what `evaluate` refuses.
    """
    images = LabelledImages.of(store, table).held_out(select, report)
    units = open_units(store, saes, seed, device)
    places = Places(store, images, regions, maps == "pixels")
    for hook in dict.fromkeys(one.hook for one in units):
        places.check(hook)
    findings = [f for f in images.label_names if len(places.with_region(images.rows("report"), f))]
    if not findings and inside is None:
        has = ", ".join(regions.findings) or "none"
        raise MedSAEError(f"no image of {report!r} has a region of a label of the table (regions are of: {has})")
    with kept_or_scratch(out) as folder:
        matrices = unit_matrices(store, units, folder / "latents", aggregate, progress) if findings else []
        scored = [
            _localised(places, one, matrix, findings, latents, seed)
            for one, matrix in zip(tqdm(units[: len(matrices)], "maps", disable=not progress), matrices, strict=True)
        ]
    splits = counts(images)
    found = Localisation(
        encoder=Encoder.of(store),
        regions=regions.source,
        maps=maps,
        seed=seed,
        select=splits["select"],
        report=splits["report"],
        without_regions=[label for label in images.label_names if label not in findings],
        not_shown={f: n for f in findings if (n := int((~_shown(places, "report", f)[1]).sum()))},
        units=scored,
    )
    if inside is not None:
        inside_units(places, units, inside, found, progress)
    if out is not None:
        found.save(out)
    return found


def _shown(places: Places, role: str, finding: str) -> tuple[Int[np.ndarray, " images"], np.ndarray]:
    """Images of a role with a region of the finding, and whether the table has it present there."""
    rows = places.with_region(places.images.rows(role), finding)
    return rows, places.images.labels[rows, places.images.label_names.index(finding)] == 1


def _localised(
    places: Places, units: Units, matrix: LatentMatrix, findings: list[str], asked: Sequence[str], seed: int
) -> LocalisedUnits:
    r = _r_on_select(places.images, matrix)
    more = [units.index(label) for label in asked] if units.kind == "sae" else []
    made = []
    for finding in findings:
        of_label = r[:, places.images.label_names.index(finding)]
        order = np.argsort(-np.nan_to_num(of_label, nan=-np.inf), kind="stable")[:TOP]
        top = [int(j) for j in order if np.isfinite(of_label[j])]
        which = [*top, *(j for j in more if j not in top)]
        case = _Case.of(places, units, finding, which, seed)
        if case is not None and which:
            made += [case.scored(k, top, of_label) for k in range(len(which))]
    return LocalisedUnits(
        name=units.name, kind=units.kind, hook=units.hook, baseline_of=units.baseline_of, latents=made
    )


def _r_on_select(images: LabelledImages, matrix: LatentMatrix) -> Float[np.ndarray, "units labels"]:
    """r of those units that fire on enough images of `select`; nan of the others."""
    rows = images.rows("select")
    r = np.full((matrix.n_latents, len(images.label_names)), np.nan)
    for first, columns in matrix.blocks():
        mine = sparse.csr_array(columns)[rows]
        found = pearson_of(sparse.csr_array(mine.T.astype(np.float64)), images.labels[rows])
        enough = np.asarray((mine > 0).sum(0)).ravel() >= least_firing(len(rows))
        r[first : first + columns.shape[1]] = np.where(enough[:, None], found, np.nan)
    return r


@dataclass(frozen=True)
class _Case:
    """The maps of some units and the regions of a finding. others: of each round, whose region each image is given."""

    units: Units
    which: list[int]
    finding: str
    patients: np.ndarray
    maps: Float[np.ndarray, "images units _ _"]
    covers: Float[np.ndarray, "images _ _"]
    select_maps: Float[np.ndarray, "selected units _ _"]
    select_covers: Float[np.ndarray, "selected _ _"]
    others: Int[np.ndarray, "rounds images"]

    @classmethod
    def of(cls, places: Places, units: Units, finding: str, which: list[int], seed: int) -> _Case | None:
        """None where no image of `report` shows the finding and has a region that the encoder sees."""
        parts = []
        for role in ("report", "select"):
            rows, shown = _shown(places, role, finding)
            rows = rows[shown]
            covers = places.covers(rows, finding, units.hook)
            seen = covers.sum((1, 2)) > 0 if len(rows) else np.zeros(0, dtype=bool)
            rows, covers = rows[seen], covers[seen]
            shape = (len(rows), len(which), *covers.shape[1:])
            maps = np.zeros(shape, np.float32)
            for mine, grids in places.maps(units, which, rows):
                maps[mine] = grids
            parts.append((rows, maps, covers))
        (rows, maps, covers), (_, select_maps, select_covers) = parts
        if not len(rows):
            return None
        patients = places.images.patient_codes[rows]
        others = other_patients(patients, seed)
        return cls(units, which, finding, patients, maps, covers, select_maps, select_covers, others)

    def scored(self, k: int, top: list[int], r: Float[np.ndarray, " units"]) -> LocalisedUnit:
        """Unit k of `which`."""
        j = self.which[k]
        maps, chosen_on = self.maps[:, k], self.select_maps[:, k]
        thresholds: dict[str, float | None] = {
            name: figures.best_threshold(chosen_on, self.select_covers, figure) if len(chosen_on) else None
            for name, figure in (("iou", figures.iou), ("dice", figures.dice))
        }
        own, chance = self._values(maps, thresholds)
        fires = maps.max((1, 2)) > 0
        return LocalisedUnit(
            label=self.finding,
            unit=self.units.label(j),
            rank=top.index(j) + 1 if j in top else None,
            r_select=number(r[j]),
            select_images=len(chosen_on),
            images=len(maps),
            patients=len(np.unique(self.patients)),
            fires=int(fires.sum()),
            iou_threshold=thresholds["iou"],
            dice_threshold=thresholds["dice"],
            figures={name: estimate(own[name], chance[name], self.patients) for name in FIGURES},
            sizes=_by_size(self.covers.mean((1, 2)), own, chance),
        )

    def _values(
        self, maps: figures.Maps, thresholds: dict[str, float | None]
    ) -> tuple[dict[str, figures.PerImage], dict[str, figures.PerImage]]:
        """Each figure image by image, and the same with the regions of others, the mean over rounds."""
        unknown = np.full(len(maps), np.nan)
        against: dict[str, Callable[[figures.Maps, figures.Maps], figures.PerImage]] = {
            "pointing": figures.pointing,
            "average_precision": figures.average_precision,
            "mass": figures.mass_inside,
        }
        for name, figure in (("iou", figures.iou), ("dice", figures.dice)):
            if (threshold := thresholds[name]) is not None:
                against[name] = partial(figure, threshold=threshold)
        own = {name: against[name](maps, self.covers) if name in against else unknown for name in FIGURES}
        own["morans_i"] = figures.morans_i(maps)
        chance = {
            name: np.mean([against[name](maps, self.covers[other]) for other in self.others], axis=0)
            if name in against and len(self.others)
            else unknown
            for name in FIGURES
        }
        return own, chance


def _by_size(
    size: figures.PerImage, own: dict[str, figures.PerImage], chance: dict[str, figures.PerImage]
) -> list[SizeBand]:
    """Thirds of the images, from the smallest regions; none of fewer images than thirds."""
    if len(size) < _BANDS:
        return []
    bands = np.array_split(np.argsort(size, kind="stable"), _BANDS)

    def mean(values: figures.PerImage) -> float | None:
        known = values[~np.isnan(values)]
        return number(known.mean()) if len(known) else None

    return [
        SizeBand(
            low=float(size[band].min()),
            high=float(size[band].max()),
            images=len(band),
            figures={name: mean(own[name][band]) for name in FIGURES},
            chance={name: mean(chance[name][band]) for name in FIGURES},
        )
        for band in bands
    ]
