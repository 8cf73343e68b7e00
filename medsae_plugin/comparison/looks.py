"""Where the SAEs of each layer look: `score_regions` of those whose hook has positions, side by side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from medsae_plugin.comparison.entries import Source
from medsae_plugin.comparison.results import ComparedMaps
from medsae_plugin.data.regions import Regions
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.localisation.results import FIGURES
from medsae_plugin.localisation.score import score_regions
from medsae_plugin.scores.heatmaps import has_heatmaps
from medsae_plugin.scores.matrix import Aggregate


def localised(
    sources: Sequence[tuple[Source, Path]],
    table: ImageTable,
    regions: Regions,
    *,
    aggregate: Aggregate,
    select: str,
    report: str,
    leave_out_trained: Collection[str],
    seed: int,
    device: str,
    progress: bool,
) -> list[ComparedMaps]:
    """Of each SAE whose hook's positions are all stored, its untrained one and the layer's neurons, the means over
    findings; `localisation.json` and its tables go into the folder of the source's evaluation.

    Raises:
        MedSAEError: no SAE stands at such a hook; what `score_regions` refuses.
    """
    made = []
    for source, folder in sources:
        spatial = {name: given for name, given in source.saes.items() if has_heatmaps(source.store, given[0].hook)}
        if not spatial:
            continue
        found = score_regions(
            source.store,
            spatial,
            table,
            regions,
            folder,
            aggregate=aggregate,
            select=select,
            report=report,
            leave_out_trained=leave_out_trained,
            seed=seed,
            device=device,
            progress=progress,
        )
        before = "" if len(sources) == 1 else f"{source.label}/"
        for one in found.units:
            means = {name: one.mean(name) for name in FIGURES}
            made.append(ComparedMaps(name=before + one.name, encoder=source.label, kind=one.kind, hook=one.hook,
                                     findings=len(one.tops), figures={n: own for n, (own, _) in means.items()},
                                     chance={n: chance for n, (_, chance) in means.items()}))  # fmt: skip
    if not made:
        raise MedSAEError(
            "no SAE stands at a hook whose positions are all stored, so none can be set against regions here; "
            "medsae localize --maps gradient or occlusion does it through the encoder"
        )
    return made
