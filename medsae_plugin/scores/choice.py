"""What is chosen and fitted on the images of `select`, and scored on those of `report`: of two splits, or by folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from medsae_plugin.scores.logistic import Features, Head, fit_head
from medsae_plugin.scores.scoring import HeldOut


@dataclass(frozen=True)
class Choice:
    """Images to choose and fit on, and images to score: of two splits, or of one fold.

    select, report: their rows. half: 0 or 1 for each image of `select`, by its patient. labels: of all images. place:
    of each image of `report`, which it is of all that are reported on.
    """

    select: Int[np.ndarray, " selected"]
    report: Int[np.ndarray, " reported"]
    half: Int[np.ndarray, " selected"]
    place: Int[np.ndarray, " reported"]
    labels: Float[np.ndarray, "images labels"]

    @classmethod
    def each_of(cls, held_out: HeldOut, seed: int) -> list[Choice]:
        """One, or one a fold."""
        parts = held_out.images.folds or (held_out.images,)
        rows = [(part.rows("select"), part.rows("report")) for part in parts]
        halves = [part.halves(seed)[part.rows("select")] for part in parts]
        return [
            cls(select, report, half, np.searchsorted(held_out.report, report), held_out.images.labels)
            for (select, report), half in zip(rows, halves, strict=True)
        ]

    def fit(self, x: Features, c: int, l1: bool = False) -> Head | None:
        """A head for label c, on features of the images of `select`; None where the label does not vary there."""
        y = self.labels[self.select, c]
        known = ~np.isnan(y)
        if len(np.unique(y[known])) < 2 or x.shape[1] == 0:
            return None
        return fit_head(x[known], y[known], self.half[known], l1=l1)
