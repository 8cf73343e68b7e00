"""Where latents look, for a report: figures against regions, and the regions' outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from medsae_plugin.data.regions import Region, Regions
from medsae_plugin.encoders.preprocessing import Preprocessor
from medsae_plugin.localisation.results import FIGURES, INSIDE_FILE, Figure, Localisation, LocalisedUnits

OUTLINE_SIDE = 64  # cells
_HALF = 0.5


@dataclass(frozen=True)
class Localised:
    """What `medsae localize` found of one SAE: its units' figures, and the rows of `inside.parquet`, by latent."""

    found: Localisation
    units: LocalisedUnits
    inside: pd.DataFrame | None

    @classmethod
    def beside(cls, folder: Path, sae_sha256: str | None) -> Localised | None:
        """What `localisation.json` in the folder of an evaluation has of an SAE, if there is one."""
        if not Localisation.file_at(folder).is_file():
            return None
        found = Localisation.open(folder)
        units = next((u for u in found.units if u.kind == "sae" and u.sae_sha256 == sae_sha256), None)
        if units is None:
            return None
        inside = None
        if found.inside_finding is not None:
            frame = pd.read_parquet(folder / INSIDE_FILE)
            inside = frame[frame["sae"] == units.name].set_index("unit")
        return cls(found, units, inside)

    def data(self, kept: Sequence[int]) -> dict[str, object]:
        """As the page takes it: of each of these latents its labels' figures, and its flag with its share inside."""
        latents: dict[str, list[Any]] = {}
        for x in self.units.latents:
            figures = [_figure(x.figures[name]) for name in FIGURES]
            latents.setdefault(str(x.unit), []).append([x.label, x.images, x.patients, *figures])
        flags: dict[str, list[Any]] = {}
        if self.inside is not None:
            flagged = self.inside[self.inside["flag"] != ""]
            columns = (flagged[name] for name in ("flag", "share_inside", "region_share", "fdr"))
            flags = {unit: [flag, *(round(float(x), 4) for x in values)]
                     for unit, flag, *values in zip(flagged.index, *columns, strict=True)}  # fmt: skip
        own = {str(j) for j in kept}
        return {
            "figures": list(FIGURES),
            "maps": self.found.maps,
            "split": self.found.report.split,
            "finding": self.found.inside_finding,
            "latents": {unit: rows for unit, rows in latents.items() if unit in own},
            "flags": {unit: row for unit, row in flags.items() if unit in own},
        }


def _figure(f: Figure) -> list[float | None]:
    low, high = f.interval or (None, None)
    return [None if x is None else round(x, 4) for x in (f.mean, low, high, f.chance)]


def outlines(regions: Regions, path: str, preprocessor: Preprocessor) -> dict[str, str]:
    """Of each finding the outline of its regions on an image, as the encoder sees it; none that it does not see."""
    drawn = {finding: outline(_seen(region, preprocessor)) for finding, region in regions[path].items()}
    return {finding: line for finding, line in drawn.items() if line}


def _seen(region: Region, preprocessor: Preprocessor) -> Bool[np.ndarray, "rows columns"]:
    """The cells of which half is covered, or, where none is, those that are covered most."""
    cover = region.cover(preprocessor.framing(region.image).edges((OUTLINE_SIDE, OUTLINE_SIDE)))
    return (cover >= min(_HALF, cover.max())) & (cover > 0)


def outline(mask: Bool[np.ndarray, "rows columns"]) -> str:
    """The edges between what is in a mask and what is not, as an SVG path in units of its cells."""
    return _lines(mask, "M{1} {0}H{2}") + _lines(mask.T, "M{0} {1}V{2}")


def _lines(mask: Bool[np.ndarray, "rows columns"], form: str) -> str:
    """The edges between rows: where, from, to."""
    padded = np.pad(mask, ((1, 1), (0, 0)))
    made = []
    for place, edge in enumerate(padded[1:] != padded[:-1]):
        changes = np.flatnonzero(np.diff(np.pad(edge, 1).astype(np.int8)))
        made += [form.format(place, start, end) for start, end in changes.reshape(-1, 2)]
    return "".join(made)
