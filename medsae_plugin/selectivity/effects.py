"""What an ablation changes: the scores of each label on `report` and their AUROC, with intervals over patients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from medsae_plugin.scores.cross_fitting import auroc_within_folds, auroc_within_folds_left_out, fold_of
from medsae_plugin.scores.scoring import HeldOut
from medsae_plugin.statistics.bootstrap import studentised_interval
from medsae_plugin.statistics.intervals import LEAST_PATIENTS, t_interval


@dataclass(frozen=True)
class Changed:
    """The change of each label's AUROC, after less before.

    left_out: without each patient; where it is undefined without one, the change of all. firing: where what is silent
    would fire.
    """

    auroc: Float[np.ndarray, " labels"]
    change: Float[np.ndarray, " labels"]
    left_out: Float[np.ndarray, "patients labels"]
    firing: Bool[np.ndarray, " rows"]

    @classmethod
    def mean(cls, several: list[Changed]) -> Changed:
        """Of several ablations, such as random draws."""
        return cls(
            np.mean([one.auroc for one in several], axis=0),
            np.mean([one.change for one in several], axis=0),
            np.mean([one.left_out for one in several], axis=0),
            np.any([one.firing for one in several], axis=0),
        )


@dataclass(frozen=True)
class Unedited:
    """Scores of each image of `report` for each label while nothing is silent; nan where there is no score."""

    held_out: HeldOut
    scores: Float[np.ndarray, "rows labels"]

    @cached_property
    def fold(self) -> Int[np.ndarray, " rows"]:
        return fold_of(self.held_out.images)

    @cached_property
    def defined(self) -> Int[np.ndarray, " labels"]:
        """The labels with scores of all images, on images with and without them."""
        y = self.held_out.labels
        return np.flatnonzero(~np.isnan(self.scores).any(0) & (y == 1).any(0) & (y == 0).any(0))

    @cached_property
    def auroc(self) -> Float[np.ndarray, " labels"]:
        return self._auroc(self.scores)

    @cached_property
    def left_out(self) -> Float[np.ndarray, "patients labels"]:
        return self._left_out(self.scores)

    def changed(self, after: Float[np.ndarray, "rows labels"], firing: Bool[np.ndarray, " rows"]) -> Changed:
        """What other scores of the same images change."""
        auroc = self._auroc(after)
        change = auroc - self.auroc
        without = self._left_out(after) - self.left_out
        return Changed(auroc, change, np.where(np.isnan(without).any(0), change, without), firing)

    def no_interval(self, firing: Bool[np.ndarray, " rows"]) -> list[str | None]:
        """Of each label why its change has no interval."""
        return self.held_out.reasons_for_none(np.broadcast_to(firing[:, None], self.scores.shape))

    @cached_property
    def degrees(self) -> Float[np.ndarray, " labels"]:
        """Of Student's t: the patients with a label, or without it, less one."""
        return np.maximum(self.held_out.patients_showing.min(0) - 1, 1)

    def interval(
        self, change: float, left_out: Float[np.ndarray, " patients"], degrees: float
    ) -> tuple[float | None, float | None]:
        """Of a change, or a mean of some; none where it is undefined."""
        if np.isnan(change) or np.isnan(left_out).any():
            return None, None
        return t_interval(change, left_out, degrees)

    def moved(
        self, after: Float[np.ndarray, "rows labels"], c: int, seed: int
    ) -> tuple[float | None, float | None, float | None]:
        """The mean change of the scores for label c on the images that show it, and its bounds.

        Bounds are the bootstrap's, since effects of sparse latents are skewed; none of fewer than 10 patients.
        """
        present = self.held_out.labels[:, c] == 1
        if c not in self.defined:
            return None, None, None
        moved = (after - self.scores)[present, c]
        if self.held_out.patients_showing[1, c] < LEAST_PATIENTS:
            return float(moved.mean()), None, None
        _, whose, counts = np.unique(self.held_out.patients[present], return_inverse=True, return_counts=True)
        low, high = studentised_interval(np.bincount(whose, moved), counts.astype(np.float64), seed=seed)
        bounds = (None, None) if np.isnan(low) else (low, high)
        return float(moved.mean()), *bounds

    def _auroc(self, scores: np.ndarray) -> Float[np.ndarray, " labels"]:
        found, c = np.full(scores.shape[1], np.nan), self.defined
        found[c] = auroc_within_folds(scores[:, c], self.held_out.labels[:, c], self.fold)
        return found

    def _left_out(self, scores: np.ndarray) -> Float[np.ndarray, "patients labels"]:
        jackknife, c = self.held_out.jackknife, self.defined
        found = np.full((jackknife.n_patients, scores.shape[1]), np.nan)
        found[:, c] = auroc_within_folds_left_out(jackknife, scores[:, c], self.held_out.labels[:, c], self.fold)
        return found
