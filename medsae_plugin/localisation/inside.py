"""What units do outside of a region that every image may have, such as the lungs or the body."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from scipy.stats import t
from tqdm import tqdm

from medsae_plugin.errors import MedSAEError
from medsae_plugin.localisation.places import Places
from medsae_plugin.localisation.results import InsideUnits, Localisation
from medsae_plugin.scores.units import Units
from medsae_plugin.statistics.intervals import LEAST_PATIENTS, LEVEL

_CHUNK_ELEMENTS = 2**23
_ROUNDING = 1e-6  # of sums in float32: less is no difference


@torch.no_grad()
def inside_units(
    places: Places, units: Sequence[Units], finding: str, found: Localisation, progress: bool = True
) -> None:
    """Of every unit the share of its activation that lies in the region, on images of `report` where it fires.

    It is flagged `outside` where it is less than the region's share of the input, which an even activation would have:
    where the 95 % interval over patients of the mean difference is below 0; `inside` where it is above. No interval of
    a unit that fires on fewer than `LEAST_PATIENTS` patients.

    What is found is set in `found`.

    Raises:
        MedSAEError: no image of `report` has such a region.
    """
    rows = places.with_region(places.images.rows("report"), finding)
    if not len(rows):
        has = ", ".join(places.regions.findings) or "none"
        raise MedSAEError(f"no image of {found.report.split!r} has a region of {finding!r} (regions are of: {has})")
    grid = Places(places.store, places.images, places.regions)
    frames = []
    for one in tqdm(units, f"inside {finding}", disable=not progress):
        covers = grid.covers(rows, finding, one.hook)
        frame = _shares(grid, one, rows, covers)
        frame.insert(0, "unit", [str(one.label(j)) for j in range(one.n)])
        frame.insert(0, "sae", one.name)
        frames.append(frame)
        flagged = {flag: [one.label(int(j)) for j in np.flatnonzero(frame["flag"] == flag)]
                   for flag in ("outside", "inside")}  # fmt: skip
        told = int(frame["low"].notna().sum())
        found.inside.append(InsideUnits(name=one.name, kind=one.kind, hook=one.hook, units=told, **flagged))
        found.inside_share = float(covers.mean())
    found.inside_finding, found.inside_images = finding, len(rows)
    found._inside_frame = pd.concat(frames, ignore_index=True)


def _shares(places: Places, units: Units, rows: np.ndarray, covers: Float[np.ndarray, "images _ _"]) -> pd.DataFrame:
    """One row a unit: images and patients on which it fires, its mean share inside, the region's mean share of the
    input on these images, and the interval of the mean difference."""
    names, code = np.unique(places.images.patient_codes[rows], return_inverse=True)
    # Of each patient: images on which a unit fires, and sums over these of its share inside and of the region's.
    fired, shares, even = np.zeros((3, len(names), units.n))
    info = places.store.hooks[units.hook]
    ids = places.images.frame["image_id"].to_numpy()[rows]
    step = max(1, _CHUNK_ELEMENTS // (units.n * info.rows_per_image))
    for first in range(0, len(rows), step):
        mine = slice(first, min(first + step, len(rows)))
        activations = units.rows_from(places.store).rows_of(units.hook, ids[mine])[:, info.n_prefix :]
        flat = units.encode(rearrange(activations, "image position d -> (image position) d")).float().cpu().relu()
        maps = rearrange(flat, "(image position) unit -> image position unit", image=len(activations))
        cover = torch.from_numpy(covers[mine].reshape(len(activations), -1, 1))
        total = maps.sum(1).double().numpy()
        within = (maps * cover).sum(1).double().numpy()
        fires = total > 0
        np.add.at(fired, code[mine], fires)
        np.add.at(shares, code[mine], np.divide(within, total, out=np.zeros_like(total), where=fires))
        np.add.at(even, code[mine], fires * cover.mean(1).double().numpy())
    with np.errstate(invalid="ignore", divide="ignore"):
        n = fired.sum(0)
        difference = shares - even
        low, high = _interval(difference, fired)
        share, of_region = shares.sum(0) / n, even.sum(0) / n
    flag = np.select([high < -_ROUNDING, low > _ROUNDING], ["outside", "inside"], "")
    return pd.DataFrame({"images": n.astype(int), "patients": (fired > 0).sum(0), "share_inside": share,
                         "region_share": of_region, "difference": share - of_region, "low": low, "high": high,
                         "flag": flag})  # fmt: skip


def _interval(
    totals: Float[np.ndarray, "patients units"], counts: Float[np.ndarray, "patients units"]
) -> tuple[np.ndarray, np.ndarray]:
    """`t_interval` of many means over images at once: the jackknife over the patients on whom a unit fires."""
    there = counts > 0
    n = there.sum(0)
    mean = totals.sum(0) / counts.sum(0)
    left_out = np.where(there, (totals.sum(0) - totals) / (counts.sum(0) - counts), 0)
    centre = left_out.sum(0) / n
    variance = (n - 1) / n * (np.where(there, left_out - centre, 0) ** 2).sum(0)
    half = t.ppf((1 + LEVEL) / 2, np.maximum(n - 1, 1)) * np.sqrt(variance)
    enough = n >= LEAST_PATIENTS
    return np.where(enough, mean - half, np.nan), np.where(enough, mean + half, np.nan)
