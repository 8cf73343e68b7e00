"""All scores of one latent matrix against its targets: chosen on some patients, reported on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from medsae_plugin.evaluation import metrics
from medsae_plugin.evaluation.latents import LatentMatrix
from medsae_plugin.evaluation.ranking import auroc_and_average_precision, detection_above, thresholds
from medsae_plugin.evaluation.resampling import PatientBootstrap, interval, permutation_null, permutation_p
from medsae_plugin.evaluation.statistics import LatentStatistics
from medsae_plugin.evaluation.targets import ROLES, Targets


@dataclass(frozen=True)
class Resampling:
    """How chance is measured: label shuffles between patients, bootstrap resamples of patients, and their seed."""

    n_permutations: int = 200
    n_bootstrap: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class SumScores:
    """What follows from sums alone, with L latents and C labels; see `metrics`.

    `(L, C)`: r_select, r, p (two-sided, with n the patients), fdr (Benjamini-Hochberg over all latents and labels),
    selectivity, and firing's precision, recall and f1. `(L,)`: entropy, monosemanticity, density. `(C,)`: top, the
    latent of the largest r on `select` of those that fire there often enough. All but r_select and top are of `report`.
    """

    select: LatentStatistics
    report: LatentStatistics
    r_select: Float[np.ndarray, "latents labels"]
    r: Float[np.ndarray, "latents labels"]
    p: Float[np.ndarray, "latents labels"]
    fdr: Float[np.ndarray, "latents labels"]
    selectivity: Float[np.ndarray, "latents labels"]
    firing: dict[str, Float[np.ndarray, "latents labels"]]
    entropy: Float[np.ndarray, " latents"]
    monosemanticity: Float[np.ndarray, " latents"]
    density: Float[np.ndarray, " latents"]
    top: Int[np.ndarray, " labels"]


@dataclass(frozen=True)
class RankScores:
    """What needs the images themselves, on `report`.

    `(L, C)`: auroc, average_precision, and precision, recall and f1 above the threshold; `(L,)`: threshold, a quantile
    of the positive activations on `select`. Of each label's top latent `(C,)`: null, the 95% point of the largest r of
    any latent under shuffled labels; p_null, how often that reaches the top latent's r; 95% intervals over patients of
    its r and its AUROC; and its r in every bootstrap resample, `(resamples, C)`.
    """

    auroc: Float[np.ndarray, "latents labels"]
    average_precision: Float[np.ndarray, "latents labels"]
    threshold: Float[np.ndarray, " latents"]
    detection: dict[str, Float[np.ndarray, "latents labels"]]
    null: Float[np.ndarray, " labels"]
    p_null: Float[np.ndarray, " labels"]
    r_interval: tuple[np.ndarray, np.ndarray]
    auroc_interval: tuple[np.ndarray, np.ndarray]
    r_resampled: Float[np.ndarray, "resamples labels"]


def sum_up(matrix: LatentMatrix, targets: Targets, k_strongest: int = 0) -> dict[str, LatentStatistics]:
    """Statistics of a matrix on `select` and on `report`, from one pass over its shards."""
    sums = {
        role: LatentStatistics(matrix.n_latents, targets.label_names, targets.d_embedding, k_strongest)
        for role in ROLES
    }
    image_ids = matrix.images["image_id"].to_numpy()
    for rows, activations in matrix.shards():
        embeddings = targets.embeddings(rows) if targets.embeddings else np.zeros((activations.shape[0], 0))
        by_image = sparse.csr_array(activations)
        for role, statistics in sums.items():
            mine = np.flatnonzero(targets.roles[rows] == role)
            ids = image_ids[rows][mine]
            statistics.update(by_image[mine], targets.labels[rows][mine], embeddings[mine], ids)
    for role, statistics in sums.items():
        statistics.patients = targets.count_patients(role)
    return sums


def least_firing(n_images: int) -> int:
    """On how many images a latent must fire to be chosen: 10, or of few images a twentieth, but 2."""
    return int(np.clip(n_images // 20, 2, 10))


def score_sums(select: LatentStatistics, report: LatentStatistics) -> SumScores:
    """The scores that follow from sums: at one site, or merged over many."""
    r_select, r = metrics.pearson(select), metrics.pearson(report)
    p = metrics.p_values(r, report.patients)
    return SumScores(
        select=select,
        report=report,
        r_select=r_select,
        r=r,
        p=p,
        fdr=metrics.benjamini_hochberg(p),
        selectivity=metrics.selectivity(report),
        firing=metrics.firing_detection(report),
        entropy=metrics.entropy(r),
        monosemanticity=metrics.monosemanticity(report),
        density=metrics.density(report),
        top=metrics.top_latent(r_select, select.fired >= least_firing(select.n_images)),
    )


def score_ranks(
    matrix: LatentMatrix, targets: Targets, sums: SumScores, q: float = 0.3, resampling: Resampling | None = None
) -> RankScores:
    """The scores that need the images: exact rankings, the permutation null and intervals."""
    resampling = resampling or Resampling()
    select, report = targets.rows("select"), targets.rows("report")
    labels, patients = targets.labels[report], targets.patients[report]
    parts: list[dict[str, np.ndarray]] = []
    for _, block in matrix.blocks():
        by_image = sparse.csr_array(block)
        reported = sparse.csc_array(by_image[report])
        threshold = thresholds(sparse.csc_array(by_image[select]), q)
        auroc, precision = auroc_and_average_precision(reported, labels)
        detected = detection_above(reported, threshold, labels)
        parts.append({"auroc": auroc, "average_precision": precision, "threshold": threshold, **detected})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    detection = {name: whole.pop(name) for name in ("precision", "recall", "f1")}
    eligible = sums.select.fired >= least_firing(sums.select.n_images)
    blocks = (block[:, eligible[at : at + block.shape[1]]][report] for at, block in matrix.blocks())
    null = permutation_null(blocks, labels, patients, resampling.n_permutations, resampling.seed)
    bootstrap = PatientBootstrap(patients, resampling.n_bootstrap, resampling.seed)
    top = np.stack([matrix.column(j)[report] if j >= 0 else np.zeros(len(report)) for j in sums.top.tolist()], axis=1)
    resampled = bootstrap.pearson(top, labels)
    undefined = sums.top < 0
    resampled[:, undefined] = np.nan
    auroc_resampled = np.where(undefined, np.nan, bootstrap.auroc(top, labels))
    return RankScores(
        **whole,
        detection=detection,
        null=np.quantile(null, 0.95, axis=0),
        p_null=permutation_p(of_top(sums.r, sums.top), null),
        r_interval=interval(resampled),
        auroc_interval=interval(auroc_resampled),
        r_resampled=resampled,
    )


def of_top(
    values: Float[np.ndarray, "latents *labels"], top: Int[np.ndarray, " labels"]
) -> Float[np.ndarray, " labels"]:
    """Each label's entry of its top latent; nan where there is none."""
    labels = np.arange(len(top))
    picked = values[top, labels] if values.ndim == 2 else values[top]
    return np.where(top >= 0, picked, np.nan)
