"""Units with all that their figures are made of: sums over images, and the images themselves where they are at hand."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import sparse

from medsae_plugin.scores import metrics
from medsae_plugin.scores.images import ROLES, LabelledImages
from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.ranking import auroc_and_average_precision, detection_above, thresholds
from medsae_plugin.scores.registry import METRICS
from medsae_plugin.scores.specificity import FLOOR_SHUFFLES, entropy_floor
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.scores.units import Units
from medsae_plugin.statistics.intervals import reason_for_none
from medsae_plugin.statistics.jackknife import PatientJackknife
from medsae_plugin.statistics.permutation import largest_null, own_null, patient_shuffles
from medsae_plugin.statistics.score_test import PatientLabel, score_p
from medsae_plugin.training.fidelity import FidelitySums

CONSTANT = "its latent is constant without one of the patients"
LEAST_FIRING_POSITIVES = 5  # expected of a latent and a label that have nothing to do with each other
_OWN = 5


@dataclass(frozen=True)
class Resampling:
    """How chance is measured: label shuffles between patients, and their seed.

    Of a top latent's own null, which costs little, there are five times as many shuffles as of the largest r of all.
    n_bootstrap: does nothing, since nothing is drawn for intervals any more; it goes with 0.3.
    """

    n_permutations: int = 200
    n_bootstrap: InitVar[int] = 0
    seed: int = 0


@dataclass(frozen=True)
class HeldOut:
    """Images with two roles, and how chance is measured on them: what all units of an evaluation share.

    q: a latent detects where it exceeds the (1 - q) quantile of its positive activations on `select`.
    home: the same with `report` on other patients of the hospital that `select` is of, where that is another one's than
        `report`'s; see `at_home`.
    """

    images: LabelledImages
    q: float = 0.3
    resampling: Resampling = Resampling()
    home: LabelledImages | None = None

    @cached_property
    def report(self) -> Int[np.ndarray, " rows"]:
        return self.images.rows("report")

    @cached_property
    def labels(self) -> Float[np.ndarray, "rows labels"]:
        """Those of `report`."""
        return self.images.labels[self.report]

    @cached_property
    def patients(self) -> Shaped[np.ndarray, " rows"]:
        """Of each image of `report`."""
        return self.images.patients[self.report]

    @cached_property
    def labels_of_patients(self) -> list[PatientLabel]:
        """Each label by patient, on `report`."""
        return PatientLabel.each_of(self.labels, self.images.patient_codes[self.report])

    @cached_property
    def jackknife(self) -> PatientJackknife:
        """Over the patients of `report`."""
        return PatientJackknife(self.patients)

    @cached_property
    def patients_showing(self) -> Float[np.ndarray, "2 labels"]:
        """Of each label the patients of `report` with an image that does not show it, and with one that does."""
        return np.stack([patients_with(self.jackknife, self.labels == value) for value in (0, 1)])

    def reasons_for_none(self, firing: Bool[np.ndarray, "rows labels"]) -> list[str | None]:
        """Of each label why there is no interval for what fires on these images of `report`; see `reason_for_none`."""
        known = ~np.isnan(self.labels)
        together, fires, seen = (
            patients_with(self.jackknife, images) for images in (firing & (self.labels == 1), firing & known, known)
        )
        without, with_it = self.patients_showing
        return list(map(reason_for_none, with_it, without, together, fires * with_it / np.maximum(seen, 1)))


class Scored:
    """Units, and every declared figure of them: `scored["auroc"]`, computed when first asked for.

    Attributes:
        units: what is scored.
        select, report: their sums over the images of each role.
        fidelity: how well they reconstruct `report`; None where they do not.
        judged: their sums over the images of `report` with another encoder's embeddings; None without one.
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
        judged: LatentStatistics | None = None,
    ) -> None:
        self.units, self.fidelity, self.judged = units, fidelity, judged
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
        at_hand = {"sums": True, "images": self.matrix is not None, "judge": self.judged is not None}
        at_hand["home"] = self.held_out is not None and self.held_out.home is not None
        return at_hand[METRICS[name].needs]

    def of_top(self, name: str) -> Float[np.ndarray, " labels"]:
        """A figure `per` latent or label: each label's entry of its top latent; nan where there is none."""
        return of_top(self[name], self.top)

    def expected_top_r(self, n: int) -> Float[np.ndarray, " labels"]:
        """See `metrics.expected_top_r`."""
        return metrics.expected_top_r(self["r_select"], self["r"], self.eligible, n)

    @property
    def folds_of_top(self) -> Int[np.ndarray, " labels"] | None:
        """How many folds chose each top unit; None where they were chosen once."""
        return None

    @cached_property
    def home(self) -> Scored | None:
        """The same units, chosen likewise, scored where `HeldOut.home` reports; None without it."""
        matrix, held_out = self._images()
        if held_out.home is None:
            return None
        sums = sum_up(matrix, held_out.home)
        there = HeldOut(held_out.home, held_out.q, held_out.resampling)
        return Scored(self.units, sums, matrix=matrix, held_out=there)

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

    @property
    def counted(self) -> Bool[np.ndarray, "units labels"]:
        """Where at least five firing positives are expected: the share of the images on which the unit fires, times the
        positive images, of those where the label is known."""
        known, positives = self.report.known, self.report.positives
        return self.report.fired_known * positives >= LEAST_FIRING_POSITIVES * np.maximum(known, 1)

    @cached_property
    def score_test(self) -> Float[np.ndarray, "units labels"]:
        """p of every unit and label that counts."""
        matrix, held_out = self._images()
        p, counted = np.full((self.units.n, len(self.label_names)), np.nan), self.counted
        for at, block in matrix.blocks():
            by_image = sparse.csr_array(block)[held_out.report]
            here = slice(at, at + block.shape[1])
            for c, label in enumerate(held_out.labels_of_patients):
                p[here, c] = score_p(by_image, label, counted[here, c])
        return p

    @cached_property
    def own_null(self) -> Float[np.ndarray, "permutations labels"]:
        """r of each label's top unit when patients' labels are shuffled."""
        _, held_out = self._images()
        drawn = held_out.resampling
        count = _OWN * drawn.n_permutations
        return self._where_chosen(own_null(self.top_activations, held_out.labels, held_out.patients, count, drawn.seed))

    @cached_property
    def largest_null(self) -> Float[np.ndarray, "permutations labels"]:
        """The largest r of any unit with each label, when patients' labels are shuffled."""
        matrix, held_out = self._images()
        drawn = held_out.resampling
        blocks = (block[held_out.report] for _, block in matrix.blocks())
        return largest_null(blocks, held_out.labels, held_out.patients, drawn.n_permutations, drawn.seed)

    @cached_property
    def top_activations(self) -> Float[np.ndarray, "rows labels"]:
        """Of each label its top unit on the images of `report`; zeros where there is none."""
        matrix, held_out = self._images()
        rows = held_out.report
        columns = [matrix.column(j)[rows] if j >= 0 else np.zeros(len(rows)) for j in self.top.tolist()]
        return np.stack(columns, axis=1)

    @property
    def labels(self) -> Float[np.ndarray, "rows labels"]:
        """Those of the images of `report`."""
        return self._images()[1].labels

    @cached_property
    def top_r(self) -> Float[np.ndarray, "labels labels"]:
        """r of each label's top unit with every label; nan where there is none."""
        return np.where((self.top < 0)[:, None], np.nan, self["r"][self.top])

    @cached_property
    def entropy_floor(self) -> Float[np.ndarray, " labels"]:
        """Of each label's top unit the entropy that it would have without all labels but its strongest."""
        _, held_out = self._images()
        drawn = held_out.resampling
        n = min(drawn.n_permutations, FLOOR_SHUFFLES)
        orders = patient_shuffles(held_out.images.patients[held_out.report], n, drawn.seed)
        return entropy_floor(self.top_activations, held_out.labels, orders)

    @cached_property
    def r_left_out(self) -> Float[np.ndarray, "patients labels"]:
        """r of each label's top unit without each patient of `report`; nan where it is constant then."""
        _, held_out = self._images()
        return self._where_chosen(held_out.jackknife.pearson(self.top_activations, held_out.labels))

    @cached_property
    def auroc_left_out(self) -> Float[np.ndarray, "patients labels"]:
        """AUROC of each label's top unit without each patient of `report`."""
        _, held_out = self._images()
        return self._where_chosen(held_out.jackknife.auroc(self.top_activations, held_out.labels))

    @cached_property
    def no_interval(self) -> list[str | None]:
        """Of each label why the figures of its top unit have no interval; None where they have one."""
        return self._no_interval()

    @property
    def firing(self) -> Bool[np.ndarray, "rows labels"]:
        """Of each label where its top unit fires on the images of `report`."""
        return self.top_activations > 0

    def _no_interval(self) -> list[str | None]:
        _, held_out = self._images()
        constant = np.isnan(self.r_left_out).any(0)
        reasons = held_out.reasons_for_none(self.firing)
        return [why or (CONSTANT if c else None) for why, c in zip(reasons, constant, strict=True)]

    @property
    def patients_showing(self) -> Float[np.ndarray, "2 labels"]:
        """See `HeldOut.patients_showing`."""
        return self._images()[1].patients_showing

    @cached_property
    def degrees(self) -> Float[np.ndarray, " labels"]:
        """Of each label the degrees of freedom of its interval: the patients with it, or without, less one."""
        return np.maximum(self.patients_showing.min(0) - 1, 1)

    @property
    def r_left_out_held(self) -> Float[np.ndarray, "patients labels"]:
        """`r_left_out`; of a label whose r is undefined without one of them, r as it is, 0 where that is undefined."""
        left_out = self.r_left_out
        return np.where(np.isnan(left_out).any(0), np.nan_to_num(self.of_top("r")), left_out)

    @cached_property
    def mean_r_left_out(self) -> Float[np.ndarray, " patients"]:
        """`mean_top_r` without each patient."""
        held = self.r_left_out_held[:, self.varying]
        return held.mean(1) if held.shape[1] else np.full(len(held), np.nan)

    def mean_degrees(self, *others: Scored) -> float | None:
        """The degrees of freedom of `mean_top_r`'s interval (of its difference from others'): those of the labels that
        have an interval, together; None where fewer than half of the labels that vary have one, and the mean has none.
        """
        known = self.varying & [not any(why) for why in zip(*(s.no_interval for s in (self, *others)), strict=True)]
        return float(self.degrees[known].sum()) if known.sum() * 2 >= max(self.varying.sum(), 1) else None

    def _where_chosen(self, left_out: np.ndarray) -> np.ndarray:
        return np.where(self.top < 0, np.nan, left_out)

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


def patients_with(
    jackknife: PatientJackknife, images: Bool[np.ndarray, "images labels"]
) -> Float[np.ndarray, " labels"]:
    """Of each label how many patients have such an image."""
    return np.array([(jackknife.of_patients(one) > 0).sum() for one in images.T], dtype=np.float64)


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
