"""Evidence as a model is shown it: captioned pictures, and words on labels and reports."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from medsae_plugin.naming.chat import Picture
from medsae_plugin.naming.evidence import Sample, format_shares, report_sentences
from medsae_plugin.naming.firing import Firing
from medsae_plugin.naming.heatmaps import Style, heatmap_picture, heatmaps, picture
from medsae_plugin.scores.heatmaps import has_heatmaps

Captioned = list[tuple[str, Picture]]

_HEATMAP_WORDS = {
    "overlay": " Orange is laid over the places where it responds.",
    "crop": " Each image is cropped to the place where the unit responds.",
    "none": "",
}


class Exhibits:
    """One unit's evidence.

    Args:
        style: how the unit's heatmap is shown; without effect where the hook has no positions, or the store has not
            kept them all.
        rows: the images that the evidence is drawn from, whose labels are counted.
    """

    def __init__(self, firing: Firing, unit: int, rows: np.ndarray, style: Style) -> None:
        self.firing, self.unit, self.rows = firing, unit, rows
        self.column = firing.column(unit, rows)
        self.style: Style = style if has_heatmaps(firing.store, firing.units.hook) else "none"
        self._peak = 0.0

    def pictures(self, sample: Sample) -> dict[str, Captioned]:
        """The sample's images by kind, numbered through, each captioned with its activation beside the strongest."""
        shown: dict[str, Captioned] = {}
        number = 1
        for kind, places in sample.kinds.items():
            shown[kind] = self.captioned(places, number)
            number += len(places)
        return shown

    def captioned(self, places: Sequence[int], first: int = 1) -> Captioned:
        """Images at these places of `rows`, captioned from number `first` on."""
        if not places:
            return []
        top = float(self.column.max())
        captions = [f"Image {first + i}, response {max(self.column[p], 0) / top:.2f}:" for i, p in enumerate(places)]
        return list(zip(captions, self._draw(self.rows[list(places)]), strict=True))

    def heatmap_words(self) -> str:
        """What the reader of the pictures has to know of the heatmaps."""
        return _HEATMAP_WORDS[self.style]

    def labels(self, sample: Sample) -> str:
        """The label statistics in words; "" where the sample's namer is told none."""
        if not sample.tells_labels:
            return ""
        return format_shares(self.firing.label_shares(self.unit, self.rows))

    def reports(self, sample: Sample) -> str | None:
        """Sentences from the strongest images' reports as a JSON list; None where there are no reports."""
        sentences = report_sentences(self.firing.images, self.rows[list(sample.strongest)].tolist())
        return json.dumps(sentences, ensure_ascii=False, indent=1) if sentences else None

    def _draw(self, rows: np.ndarray) -> list[Picture]:
        data, preprocessing = self.firing.images, self.firing.store.preprocessing
        paths = [data.path(row) for row in rows]
        if self.style == "none":
            return [picture(path, preprocessing) for path in paths]
        maps = heatmaps(self.firing, self.unit, list(rows))
        # The strongest images come first, so their peak holds for all pictures of the unit.
        self._peak = self._peak or float(maps.max())
        return [
            heatmap_picture(path, preprocessing, heatmap, self.style, self._peak)
            for path, heatmap in zip(paths, maps, strict=True)
        ]
