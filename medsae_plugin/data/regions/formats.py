"""The formats of regions."""

from __future__ import annotations

from medsae_plugin.data.regions.json_files import COCO, CONTOURS, PHANTOMS, RUN_LENGTHS
from medsae_plugin.data.regions.mask_folders import MASKS
from medsae_plugin.data.regions.model import RegionFormat, Source
from medsae_plugin.data.regions.tables import NIH, RSNA, SIIM, VINDR
from medsae_plugin.errors import MedSAEError

REGION_FORMATS = [MASKS, COCO, SIIM, VINDR, RSNA, NIH, RUN_LENGTHS, CONTOURS, PHANTOMS]
"""The last that recognises a source reads it, so that one's own, appended, comes before the package's."""


def format_of(source: Source, named: str | None) -> tuple[RegionFormat, str]:
    """The format of a source, and why it is that one.

    Raises:
        MedSAEError: no format of the name, or none that it is of.
    """
    names = ", ".join(sorted(each.name for each in REGION_FORMATS))
    if named is not None:
        for each in reversed(REGION_FORMATS):
            if each.name == named:
                return each, "as was said"
        raise MedSAEError(f"no format of regions {named!r}; there are {names}")
    for each in reversed(REGION_FORMATS):
        if why := each.recognise(source):
            return each, why
    raise MedSAEError(f"{source.path} has regions in no format that is known here ({names}); docs/tables.md shows them")
