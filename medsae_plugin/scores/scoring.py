"""Units with all that their figures are made of: sums over images, and the images themselves where they are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from medsae_plugin.scores import metrics
from medsae_plugin.scores.images import ROLES, LabelledImages
from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.ranking import auroc_and_average_precision, detection_above, thresholds
from medsae_plugin.scores.registry import METRICS
from medsae_plugin.scores.resampling import PatientBootstrap, permutation_null
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.scores.units import Units
from medsae_plugin.training.fidelity import FidelitySums


@dataclass(frozen=True)
class Resampling:
    """How chance is measured: label shuffles between patients, bootstrap resamples of patients, and their seed."""

    n_permutations: int = 200
    n_bootstrap: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class HeldOut:
    """Images with two roles, and how chance is measured on them: what all units of an evaluation share.

    q: a latent detects where it exceeds the (1 - q) quantile of its positive activations on `select`.
    """

    images: LabelledImages
    q: float = 0.3
    resampling: Resampling = Resampling()

    @cached_property
    def report(self) -> Int[np.ndarray, " rows"]:
        return self.images.rows("report")

    @cached_property
    def labels(self) -> Float[np.ndarray, "rows labels"]:
        """Those of `report`."""
        return self.images.labels[self.report]

    @cached_property
    def bootstrap(self) -> PatientBootstrap:
        """Resamples of the patients of `report`, the same for all units, so that their differences are paired."""
        drawn = self.resampling
        return PatientBootstrap(self.images.patients[self.report], drawn.n_bootstrap, drawn.seed)


class Scored:
    """Units, and every declared figure of them: `scored["auroc"]`, computed when first asked for.

    Attributes:
        units: what is scored.
        select, report: their sums over the images of each role.
        fidelity: how well they reconstruct `report`; None where they do not.
        matrix, held_out: their activations and the images; None where only sums are known, as of merged sites.
    """

    def __init__(
        self,
        units: Units,
        sums: dict[str, LatentStatistics],
        *,
        fidelity: FidelitySums | None = None,
        matrix: LatentMatrix | None = None,
        held_out: HeldOut | None = None,
    ) -> None:
        self.units, self.fidelity = units, fidelity
        self.select, self.report = (sums[role] for role in ROLES)
        self.matrix, self.held_out = matrix, held_out
        self._figures: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """A figure: an array over units, labels or both, or a number, as its `Metric` says."""
        if name not in self._figures:
            self._figures[name] = METRICS[name].compute(self)
        return self._figures[name]

    def has(self, name: str) -> bool:
        """Whether the figure can be computed here."""
        return METRICS[name].needs == "sums" or self.matrix is not None

    def of_top(self, name: str) -> Float[np.ndarray, " labels"]:
        """A figure `per` latent or label: each label's entry of its top latent; nan where there is none."""
        return of_top(self[name], self.top)

    @property
    def folds_of_top(self) -> Int[np.ndarray, " labels"] | None:
        """How many folds chose each top unit; None where they were chosen once."""
        return None

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.report.label_names

    @cached_property
    def eligible(self) -> Bool[np.ndarray, " units"]:
        """The units that fire on enough images of `select` to be chosen."""
        return self.select.fired >= least_firing(self.select.n_images)

    @cached_property
    def top(self) -> Int[np.ndarray, " labels"]:
        """Of each label the unit of the largest r on `select` of those that fire often enough there; -1 for none."""
        return metrics.top_latent(self["r_select"], self.eligible)

    @cached_property
    def varying(self) -> Bool[np.ndarray, " labels"]:
        """The labels that some images of `report` have and some have not."""
        p = self.report.mean_label
        return (p > 0) & (p < 1)

    @cached_property
    def rankings(self) -> dict[str, np.ndarray]:
        """What needs an exact ranking of the images, from one pass over the units: `auroc` and `average_precision`, and
        above each unit's `threshold`, a quantile of its positive activations on `select`, `precision`, `recall`, `f1`.
        """
        matrix, held_out = self._images()
        select = held_out.images.rows("select")
        parts: list[dict[str, np.ndarray]] = []
        for _, block in matrix.blocks():
            by_image = sparse.csr_array(block)
            reported = sparse.csc_array(by_image[held_out.report])
            threshold = thresholds(sparse.csc_array(by_image[select]), held_out.q)
            auroc, precision = auroc_and_average_precision(reported, held_out.labels)
            detected = detection_above(reported, threshold, held_out.labels)
            parts.append({"auroc": auroc, "average_precision": precision, "threshold": threshold, **detected})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @cached_property
    def null(self) -> Float[np.ndarray, "permutations labels"]:
        """The largest r of any eligible unit with each label, when patients' labels are shuffled."""
        matrix, held_out = self._images()
        eligible, rows = self.eligible, held_out.report
        blocks = (block[:, eligible[at : at + block.shape[1]]][rows] for at, block in matrix.blocks())
        drawn, patients = held_out.resampling, held_out.images.patients[rows]
        return permutation_null(blocks, held_out.labels, patients, drawn.n_permutations, drawn.seed)

    @cached_property
    def top_activations(self) -> Float[np.ndarray, "rows labels"]:
        """Of each label its top unit on the images of `report`; zeros where there is none."""
        matrix, held_out = self._images()
        rows = held_out.report
        columns = [matrix.column(j)[rows] if j >= 0 else np.zeros(len(rows)) for j in self.top.tolist()]
        return np.stack(columns, axis=1)

    @cached_property
    def top_r(self) -> Float[np.ndarray, "labels labels"]:
        """r of each label's top unit with every label; nan where there is none."""
        return np.where((self.top < 0)[:, None], np.nan, self["r"][self.top])

    @cached_property
    def r_resampled(self) -> Float[np.ndarray, "resamples labels"]:
        """r of each label's top unit in every bootstrap resample of the patients."""
        _, held_out = self._images()
        return self._where_chosen(held_out.bootstrap.pearson(self.top_activations, held_out.labels))

    @cached_property
    def auroc_resampled(self) -> Float[np.ndarray, "resamples labels"]:
        """AUROC of each label's top unit in every bootstrap resample of the patients."""
        _, held_out = self._images()
        return self._where_chosen(held_out.bootstrap.auroc(self.top_activations, held_out.labels))

    def mean_r_resampled(self) -> Float[np.ndarray, " resamples"]:
        """`mean_top_r` in every bootstrap resample."""
        r = self.r_resampled[:, self.varying]
        return np.nan_to_num(r).mean(1) if r.shape[1] else np.full(len(r), np.nan)

    def _where_chosen(self, replicates: np.ndarray) -> np.ndarray:
        return np.where(self.top < 0, np.nan, replicates)

    def _images(self) -> tuple[LatentMatrix, HeldOut]:
        assert self.matrix is not None and self.held_out is not None, "a figure that needs images was asked of sums"
        return self.matrix, self.held_out


def sum_up(matrix: LatentMatrix, images: LabelledImages) -> dict[str, LatentStatistics]:
    """Statistics of a matrix on `select` and on `report`, from one pass over its shards."""
    sums = {role: LatentStatistics(matrix.n_latents, images.label_names, images.d_embedding) for role in ROLES}
    for rows, activations in matrix.shards():
        embeddings = images.embeddings(rows) if images.embeddings else np.zeros((activations.shape[0], 0))
        by_image = sparse.csr_array(activations)
        for role, statistics in sums.items():
            mine = np.flatnonzero(images.roles[rows] == role)
            statistics.update(by_image[mine], images.labels[rows][mine], embeddings[mine])
    for role, statistics in sums.items():
        statistics.patients = images.count_patients(role)
    return sums


def least_firing(n_images: int) -> int:
    """On how many images a latent must fire to be chosen: 10, or of few images a twentieth, but 2."""
    return int(np.clip(n_images // 20, 2, 10))


def of_top(
    values: Float[np.ndarray, "latents *labels"], top: Int[np.ndarray, " labels"]
) -> Float[np.ndarray, " labels"]:
    """Each label's entry of its top latent; nan where there is none."""
    labels = np.arange(len(top))
    picked = values[top, labels] if values.ndim == 2 else values[top]
    return np.where(top >= 0, picked, np.nan)
