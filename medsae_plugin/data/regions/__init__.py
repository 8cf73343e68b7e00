"""Where findings are on images: masks and boxes, as data sets publish them, in the pixels of each image.

A format is an entry of `REGION_FORMATS`; another data set's is another: `REGION_FORMATS.append(RegionFormat(...))`.
"""

from medsae_plugin.data.regions.formats import REGION_FORMATS
from medsae_plugin.data.regions.model import Annotation, Region, RegionFormat, Regions, Source
from medsae_plugin.data.regions.parts import Box, Polygons, Runs
from medsae_plugin.data.regions.reading import read_regions
from medsae_plugin.data.regions.summary import region_summary

__all__ = [
    "REGION_FORMATS",
    "Annotation",
    "Box",
    "Polygons",
    "Region",
    "RegionFormat",
    "Regions",
    "Runs",
    "Source",
    "read_regions",
    "region_summary",
]
