"""AUROC on `report` of one score an image and label, of folds of pairs within one alone, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from medsae_plugin.scores.cross_fitting import auroc_within_folds, auroc_within_folds_left_out, fold_of
from medsae_plugin.scores.scoring import HeldOut
from medsae_plugin.statistics.intervals import auroc_interval


@dataclass(frozen=True)
class ReportedAUROC:
    """Of each label the AUROC, with its 95% interval over patients (`auroc_interval`); nan where undefined.

    no_interval: why there is none, such as fewer than 10 patients with the finding; None where that is no reason.
    """

    auroc: Float[np.ndarray, " labels"]
    low: Float[np.ndarray, " labels"]
    high: Float[np.ndarray, " labels"]
    no_interval: list[str | None]

    def interval(self, c: int) -> tuple[float, float] | None:
        """That of label c."""
        return None if np.isnan(self.low[c]) else (float(self.low[c]), float(self.high[c]))

    @classmethod
    def of(
        cls,
        held_out: HeldOut,
        scores: Float[np.ndarray, "rows labels"],
        firing: Bool[np.ndarray, "rows labels"] | None = None,
    ) -> ReportedAUROC:
        """Of scores of the images of `report`; nan, of all images of a fold, makes a label's AUROC undefined.

        Args:
            firing: where what is scored fires; None for what always does.
        """
        labels, fold = held_out.labels, fold_of(held_out.images)
        defined = ~np.isnan(scores).any(0)
        scores = np.nan_to_num(scores)
        auroc = np.where(defined, auroc_within_folds(scores, labels, fold), np.nan)
        why = held_out.reasons_for_none(np.ones(labels.shape, dtype=bool) if firing is None else firing)
        low, high = np.full((2, len(auroc)), np.nan)
        has = np.flatnonzero(~np.isnan(auroc) & [one is None for one in why])
        if not len(has):
            return cls(auroc, low, high, why)
        left_out = auroc_within_folds_left_out(held_out.jackknife, scores[:, has], labels[:, has], fold)
        without, with_it = held_out.patients_showing
        for c, without_each in zip(has.tolist(), left_out.T, strict=True):
            images = float((labels[:, c] == 1).sum()), float((labels[:, c] == 0).sum())
            low[c], high[c] = auroc_interval(float(auroc[c]), without_each, images, (with_it[c], without[c]))
        return cls(auroc, low, high, why)
