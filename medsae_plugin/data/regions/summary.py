"""What `medsae table --regions` prints: what was read of each finding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medsae_plugin.data.regions.model import Region, Regions
from medsae_plugin.data.spread import spread
from medsae_plugin.text import aligned


def region_summary(regions: Regions, workers: int = 0, progress: bool = False) -> str:
    """`describe()`, and of each finding its images, regions, and the median share of the image that they cover.

    Raises:
        MedSAEError: a mask that cannot be drawn; a worker died.
    """
    areas: dict[str, list[float]] = {finding: [] for finding in regions.findings}
    counts, kinds = dict.fromkeys(areas, 0), {finding: set[str]() for finding in areas}
    drawn = spread(_areas, list(regions.by_path.values()), workers, "regions", progress)
    for found, shares in zip(regions.by_path.values(), drawn, strict=True):
        for finding, region in found.items():
            areas[finding].append(shares[finding])
            counts[finding] += len(region.parts)
            kinds[finding].add(region.kind)
    rows = [["finding", "images", "regions", "kind", "median share of the image", "half of them"]]
    for finding, values in areas.items():
        first, median, third = np.quantile(values, [0.25, 0.5, 0.75])
        kind = " and ".join(sorted(kinds[finding]))
        numbers = [f"{len(values):,}", f"{counts[finding]:,}", kind, f"{median:.2%}", f"{first:.2%} to {third:.2%}"]
        rows.append([finding, *numbers])
    return "\n".join([regions.describe(), *(f"    {line}" for line in aligned(rows) if areas)])


def _areas(found: Mapping[str, Region]) -> dict[str, float]:
    """The share of the image that each finding covers. A process of its own may run this."""
    return {finding: region.area() for finding, region in found.items()}
