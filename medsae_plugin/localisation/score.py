"""Where the top units of each finding fire, against regions, on patients that had no part in the choice."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from tqdm import tqdm

from medsae_plugin.data.regions import Regions
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.encoders import HookedVisionEncoder
from medsae_plugin.encoders.preprocessing import Shape
from medsae_plugin.errors import MedSAEError
from medsae_plugin.localisation.attribution import AttributedMaps
from medsae_plugin.localisation.cases import Case
from medsae_plugin.localisation.inside import inside_units
from medsae_plugin.localisation.places import MapKind, MapSource, Places, StoredMaps
from medsae_plugin.localisation.results import Localisation, LocalisedUnit, LocalisedUnits
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import Aggregate, LatentMatrix
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.protocols import kept_or_scratch, unit_matrices
from medsae_plugin.scores.scoring import least_firing
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.units import Units
from medsae_plugin.statistics.correlation import pearson_of
from medsae_plugin.store.reader import ActivationStore

TOP = 3


def score_regions(
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    regions: Regions,
    out: str | Path | None = None,
    *,
    latents: Sequence[str] = (),
    inside: str | None = None,
    maps: MapKind = "grid",
    encoder: HookedVisionEncoder | None = None,
    stride: int | None = None,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    leave_out_trained: bool | Collection[str] = False,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Localisation:
    """Score the maps of SAEs' latents, of untrained ones' and of raw neurons against the regions of findings.

    For each label that has regions, the `TOP` units of the largest r with it on `select` (of those that fire often
    enough), and of the SAEs `latents` too; on the images of `report` where the table has the label present and a region
    is given. Beside each figure the same maps with the regions of other patients with the finding, drawn with `seed`.

    The store is read once, image after image; what is held are the maps of the units that are scored, on the images
    that show their finding, at the resolution they have in the store.

    Args:
        latents: more latents of every SAE, by number.
        inside: a finding that every image may have a region of, such as `lungs`; see `inside_units`.
        maps: `grid` scores the cells of the hook's grid, against the share of each that is covered; `pixels` brings
            them to the encoder's input, bilinear; `gradient` and `occlusion` make them through the encoder, of units at
            any hook (`AttributedMaps`).
        encoder, stride: for `gradient` and `occlusion`: the store's encoder, and how many pixels a cell has a side.
        leave_out_trained: as of `evaluate`.
        out: a folder, for `localisation.json`, `localisation.parquet` and `inside.parquet`; one that `evaluate` wrote
            has the latent matrices already.

    Raises:
        MedSAEError: a hook of which the store has no maps, or of which it keeps some positions; no region of any label
            on `report`; gradient or occlusion without an encoder, or with another than the store's; and what `evaluate`
            refuses.
    """
    images = LabelledImages.of(store, table).held_out(select, report).without_embeddings()
    units = open_units(store, saes, seed, device)
    if not isinstance(leave_out_trained, bool):
        images = images.without_reported(leave_out_trained)
    trained_on, seen = check_held_out(units, store, images, leave_out_trained is True)
    images = images.without_reported(trained_on)
    places = Places.of(store, images, regions)
    stored = StoredMaps(store, images)
    source = _source(stored, maps, encoder, stride, aggregate, progress)
    for hook in dict.fromkeys(one.hook for one in units):
        source.check(hook)
        if inside is not None:
            stored.check(hook)
    findings = [f for f in images.label_names if len(places.with_region(images.rows("report"), f))]
    if not findings and inside is None:
        has = ", ".join(regions.findings) or "none"
        raise MedSAEError(f"no image of {report!r} has a region of a label of the table (regions are of: {has})")
    shown = {finding: _Shown.of(places, finding) for finding in findings}
    splits = counts(images)
    found = Localisation(
        encoder=Encoder.of(store),
        regions=regions.source,
        maps=maps,
        stride=source.stride if isinstance(source, AttributedMaps) else None,
        seed=seed,
        select=splits["select"],
        report=splits["report"],
        without_regions=[label for label in images.label_names if label not in findings],
        not_shown={finding: each.contradicted for finding, each in shown.items() if each.contradicted},
        units=[LocalisedUnits(name=u.name, kind=u.kind, hook=u.hook, baseline_of=u.baseline_of,
                              held_out_from=seen.get(u.name), sae_sha256=u.sae_sha256, latents=[]) for u in units],
    )  # fmt: skip
    with kept_or_scratch(out) as folder:
        if findings:
            matrices = unit_matrices(store, units, folder / "latents", aggregate, progress)
            chosen = [_Chosen.of(*both, images, findings, latents) for both in zip(units, matrices, strict=True)]
            finer = places.preprocessor.shape if maps == "pixels" else None
            scored = _localised(places, source, finer, chosen, shown, seed, progress)
            for one, its in zip(found.units, scored, strict=True):
                one.latents = its
    if inside is not None:
        inside_units(places, stored, units, inside, found, progress)
    if out is not None:
        found.save(out)
    return found


def _source(
    stored: StoredMaps,
    maps: MapKind,
    encoder: HookedVisionEncoder | None,
    stride: int | None,
    aggregate: Aggregate,
    progress: bool,
) -> StoredMaps | AttributedMaps:
    if maps in ("gradient", "occlusion"):
        if encoder is None:
            raise MedSAEError(f"maps by {maps} are made through the encoder; give it (--encoder)")
        return AttributedMaps.of(encoder, stored.store, stored.images, maps, stride, aggregate, progress)
    if encoder is not None or stride is not None:
        raise MedSAEError(
            f"an encoder and a stride are for maps by gradient or occlusion; maps of the {maps} need none"
        )
    return stored


@dataclass(frozen=True)
class _Shown:
    """The images of both roles on which a finding is shown: there is a region, and the table has it present.

    reported: those of them that are of `report`. contradicted: images of `report` with a region where it has not.
    """

    rows: Int[np.ndarray, " images"]
    reported: Bool[np.ndarray, " images"]
    contradicted: int

    @classmethod
    def of(cls, places: Places, finding: str) -> _Shown:
        images = places.images
        rows = places.with_region(np.flatnonzero(images.roles != ""), finding)
        present = images.labels[rows, images.label_names.index(finding)] == 1
        reported = images.roles[rows] == "report"
        return cls(rows[present], reported[present], int((reported & ~present).sum()))


@dataclass(frozen=True)
class _Chosen:
    """Which units of an SAE are looked at for each finding. r: `(units, labels)`, on `select`."""

    units: Units
    r: Float[np.ndarray, "units findings"]
    top: Mapping[str, list[int]]
    which: Mapping[str, list[int]]

    @classmethod
    def of(
        cls, units: Units, matrix: LatentMatrix, images: LabelledImages, findings: Sequence[str], asked: Sequence[str]
    ) -> _Chosen:
        r = _r_on_select(images, matrix)[:, [images.label_names.index(finding) for finding in findings]]
        more = [units.index(label) for label in asked] if units.kind == "sae" else []
        top = {}
        for finding, of_label in zip(findings, r.T, strict=True):
            order = np.argsort(-np.nan_to_num(of_label, nan=-np.inf), kind="stable")[:TOP]
            top[finding] = [int(j) for j in order if np.isfinite(of_label[j])]
        which = {finding: [*js, *(j for j in more if j not in js)] for finding, js in top.items()}
        return cls(units, r, top, which)

    @property
    def every(self) -> list[int]:
        """All units that are looked at, ascending."""
        return sorted({j for js in self.which.values() for j in js})


def _localised(
    places: Places,
    source: MapSource,
    finer: Shape | None,
    chosen: Sequence[_Chosen],
    shown: Mapping[str, _Shown],
    seed: int,
    progress: bool,
) -> list[list[LocalisedUnit]]:
    """Of each SAE, or of what stands beside it, its units, finding after finding."""
    made: list[list[LocalisedUnit]] = [[] for _ in chosen]
    for hook in dict.fromkeys(one.units.hook for one in chosen):
        here = [k for k, one in enumerate(chosen) if one.units.hook == hook]
        places.keep(np.unique(np.concatenate([of.rows for of in shown.values()])), shown, source.cells(hook))
        collected = _collected(source, hook, [chosen[k] for k in here], shown)
        for k, maps in zip(here, collected, strict=True):
            one = chosen[k]
            with_bar = tqdm(maps.items(), f"figures of {one.units.name}", unit="finding", disable=not progress)
            for column, (finding, own) in enumerate(with_bar):
                of = shown[finding]
                cells = finer or source.cells(hook)
                case = Case(places, finding, of.rows, of.reported, cells, one.units, one.which[finding],
                            one.top[finding], one.r[:, column], own, seed)  # fmt: skip
                made[k] += case.scored()
    return made


def _collected(
    source: MapSource, hook: str, chosen: Sequence[_Chosen], shown: Mapping[str, _Shown]
) -> list[dict[str, Float[np.ndarray, "_ _ _ _"]]]:
    """Of each SAE at a hook, and each finding, the maps of its units on the images that show it: in one pass."""
    cells = source.cells(hook)
    made = [{finding: np.zeros((len(of.rows), len(one.which[finding]), *cells), np.float32)
             for finding, of in shown.items()} for one in chosen]  # fmt: skip
    every = np.unique(np.concatenate([of.rows for of in shown.values()]))
    wanted = [(one.units, one.every) for one in chosen]
    for mine, batch in source.batches(hook, wanted, every):
        here = every[mine]
        for finding, of in shown.items():
            first, end = np.searchsorted(of.rows, [here[0], here[-1] + 1])
            at = np.searchsorted(here, of.rows[first:end])
            for one, maps, own in zip(chosen, batch, made, strict=True):
                units = np.searchsorted(one.every, one.which[finding])
                own[finding][first:end] = maps[np.ix_(at, units)]
    return made


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
