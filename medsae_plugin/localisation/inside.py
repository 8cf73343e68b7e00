"""What units do outside of a region that every image may have, such as the lungs or the body."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float, Int
from scipy.stats import t
from tqdm import tqdm

from medsae_plugin.errors import MedSAEError
from medsae_plugin.localisation.places import Places, StoredMaps
from medsae_plugin.localisation.results import InsideUnits, Localisation
from medsae_plugin.scores.units import Units
from medsae_plugin.statistics.bounded import hoeffding_p
from medsae_plugin.statistics.intervals import LEAST_PATIENTS, LEVEL
from medsae_plugin.statistics.multiple import benjamini_hochberg

FDR = 0.05

_CHUNK_ELEMENTS = 2**23
_LEAST_IMAGES = 16  # a chunk


def inside_units(
    places: Places,
    maps: StoredMaps,
    units: Sequence[Units],
    finding: str,
    found: Localisation,
    progress: bool = True,
) -> None:
    """Of every unit the share of its activation that lies in the region, on images of `report` where it fires.

    A patient counts once, with the mean over the images on which the unit fires. The unit is flagged `outside` where
    the mean over patients is less than that of the region's share of the input, which an even activation would have,
    and `inside` where it is more: by a p of Hoeffding's bound (`hoeffding_p`), with false discoveries among the units
    of an SAE, or of what stands beside it, held below `FDR` (Benjamini and Hochberg 1995). Units that fire on fewer
    than `LEAST_PATIENTS` patients are not tested.

    Images stream through, patient after patient; what is kept is a few numbers a unit. What is found is set in `found`.

    Raises:
        MedSAEError: no image of `report` has such a region.
    """
    rows = places.with_region(places.images.rows("report"), finding)
    if not len(rows):
        has = ", ".join(places.regions.findings) or "none"
        raise MedSAEError(f"no image of {found.report.split!r} has a region of {finding!r} (regions are of: {has})")
    rows = rows[np.argsort(places.images.patient_codes[rows], kind="stable")]
    frames: dict[int, pd.DataFrame] = {}
    area = 0.0
    for hook in dict.fromkeys(one.hook for one in units):
        here = [k for k, one in enumerate(units) if one.hook == hook]
        sums = {k: Shares(units[k].n) for k in here}
        area = 0.0
        with tqdm(total=len(rows), desc=f"inside {finding}", unit="image", disable=not progress) as bar:
            for mine, patients in _chunks(places, maps, [units[k] for k in here], rows):
                covers = places.covers(mine, finding, maps.cells(hook))
                area += float(covers.mean((1, 2)).sum())
                for k in here:
                    sums[k].add(*_shares(maps, units[k], mine, covers), patients)
                bar.update(len(mine))
        frames |= {k: of.frame() for k, of in sums.items()}
    for k, one in enumerate(units):
        frame = frames[k]
        frame.insert(0, "unit", [str(one.label(j)) for j in range(one.n)])
        frame.insert(0, "sae", one.name)
        flagged = {flag: [one.label(int(j)) for j in np.flatnonzero(frame["flag"] == flag)]
                   for flag in ("outside", "inside")}  # fmt: skip
        tested = int(frame["p"].notna().sum())
        found.inside.append(InsideUnits(name=one.name, kind=one.kind, hook=one.hook, units=tested, **flagged))
    found.inside_finding, found.inside_images, found.inside_share = finding, len(rows), area / len(rows)
    found._inside_frame = pd.concat([frames[k] for k in range(len(units))], ignore_index=True)


@dataclass
class Shares:
    """Sums over patients, by unit, of what a unit's share inside of a region is, and of what an even one's would be.

    Sums of other patients may be added to them.
    """

    n: int
    images: np.ndarray = field(init=False)
    patients: np.ndarray = field(init=False)
    share: np.ndarray = field(init=False)
    even: np.ndarray = field(init=False)
    squares: np.ndarray = field(init=False)  # of the differences of both

    def __post_init__(self) -> None:
        self.images, self.patients, self.share, self.even, self.squares = np.zeros((5, self.n))

    def add(
        self,
        shares: Float[np.ndarray, "images units"],
        even: Float[np.ndarray, " images"],
        patients: Int[np.ndarray, " images"],
    ) -> None:
        """Whole patients, one after another, whose images these are.

        shares: nan where a unit does not fire. even: the region's share of the input.
        """
        starts = np.flatnonzero(np.append(True, patients[1:] != patients[:-1]))
        fires = ~np.isnan(shares)
        fired, own, area = (np.add.reduceat(values, starts, axis=0, dtype=np.float64)
                            for values in (fires, np.nan_to_num(shares), fires * even[:, None]))  # fmt: skip
        there = np.maximum(fired, 1)
        own, area = own / there, area / there
        self.images += fired.sum(0)
        self.patients += (fired > 0).sum(0)
        self.share += own.sum(0)
        self.even += area.sum(0)
        self.squares += ((own - area) ** 2).sum(0)

    def frame(self) -> pd.DataFrame:
        """One row a unit: images and patients on which it fires, its mean share inside, the region's mean share of the
        input, their difference with Student's interval over patients, p, false discovery rate and flag."""
        n, enough = self.patients, self.patients >= LEAST_PATIENTS
        with np.errstate(invalid="ignore", divide="ignore"):
            share, even = self.share / n, self.even / n
            difference = share - even
            variance = np.maximum(self.squares - n * difference**2, 0) / (n - 1)
            half = t.ppf((1 + LEVEL) / 2, np.maximum(n - 1, 1)) * np.sqrt(variance / n)
        # Sums of float32 may end a rounding error beyond.
        p = np.where(enough, hoeffding_p(share.clip(0, 1), even.clip(0, 1), n), np.nan)
        fdr = benjamini_hochberg(p)
        flag = np.select([(fdr < FDR) & (difference < 0), (fdr < FDR) & (difference > 0)], ["outside", "inside"], "")
        low, high = (np.where(enough, difference + side * half, np.nan) for side in (-1, 1))
        return pd.DataFrame({"images": self.images.astype(int), "patients": n.astype(int), "share_inside": share,
                             "region_share": even, "difference": difference, "low": low, "high": high, "p": p,
                             "fdr": fdr, "flag": flag})  # fmt: skip


def _chunks(
    places: Places, maps: StoredMaps, units: Sequence[Units], rows: Int[np.ndarray, " images"]
) -> Iterator[tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]]]:
    """Images patient after patient, whole patients at a time, with their patients; no more than one patient beyond what
    the widest units may hold."""
    codes = places.images.patient_codes[rows]
    of_image = max(one.n for one in units) * maps.store.hooks[units[0].hook].rows_per_image
    step = max(_LEAST_IMAGES, _CHUNK_ELEMENTS // of_image)
    first = 0
    while first < len(rows):
        last = codes[min(first + step, len(rows)) - 1]
        end = int(np.searchsorted(codes, last, side="right"))
        yield rows[first:end], codes[first:end]
        first = end


@torch.no_grad()
def _shares(
    maps: StoredMaps, units: Units, rows: Int[np.ndarray, " images"], covers: Float[np.ndarray, "images _ _"]
) -> tuple[Float[np.ndarray, "images units"], Float[np.ndarray, " images"]]:
    """Of each image and unit the share of the activation inside, nan where it is silent; and the region's share."""
    info = maps.store.hooks[units.hook]
    ids = maps.images.frame["image_id"].to_numpy()[rows]
    shares = np.full((len(rows), units.n), np.nan)
    step = max(1, _CHUNK_ELEMENTS // (units.n * info.rows_per_image))
    for first in range(0, len(rows), step):
        mine = slice(first, first + step)
        activations = units.rows_from(maps.store).rows_of(units.hook, ids[mine])[:, info.n_prefix :]
        flat = units.encode(rearrange(activations, "image position d -> (image position) d")).float().relu()
        by_image = rearrange(flat, "(image position) unit -> image position unit", image=len(activations))
        cover = torch.from_numpy(covers[mine].reshape(len(activations), 1, -1)).to(by_image.device)
        total, within = by_image.sum(1).double().cpu().numpy(), (cover @ by_image)[:, 0].double().cpu().numpy()
        if not np.isfinite(total).all():
            raise MedSAEError("activations hold nan or infinity; check the encoder's weights and the SAE")
        np.divide(within, total, out=shares[mine], where=total > 0)
    return shares, covers.mean((1, 2)).astype(np.float64)
