"""How many latents carry a label: those that a sparse probe needs, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.stats import norm

from medsae_plugin.hierarchy.tree import Tree, line
from medsae_plugin.scores.choice import Choice
from medsae_plugin.scores.logistic import fit_head
from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.metrics import pearson
from medsae_plugin.scores.ranking import aurocs
from medsae_plugin.scores.scoring import least_firing
from medsae_plugin.scores.sums import LatentStatistics

JUMP, MOST, CANDIDATES = 0.03, 10, 20


@dataclass(frozen=True)
class Carried:
    """The latents that carry a label, in the order in which they were added, and AUROC with each; maybe none."""

    latents: Int[np.ndarray, " latents"]
    auroc: Float[np.ndarray, " latents"]


def carried(
    matrix: LatentMatrix, choice: Choice, select: LatentStatistics, tree: Tree, label: str, names: tuple[str, ...]
) -> Carried:
    """The latents of a label, chosen on `select`: so many it is split into.

    Of those that follow no label above or beneath it more, and whose r is above what chance gives any of the latents,
    tanh(z / sqrt(patients - 3)) with z the normal quantile of 0.05 over the latents that could be chosen, the 20 of the
    largest r. Of these, one after the other and ten at most, that which raises the AUROC of a logistic probe most, as
    long as it does by more than 0.03. It is of one half of the patients, of a probe fitted on the other, the mean of
    both ways, and must rise in both. After Chanin et al. 2024 (arXiv 2409.14507), who take F1, which tells little of a
    label that half of the images show, and add latents in the order of a probe's weights.
    """
    c = names.index(label)
    eligible = select.fired >= least_firing(select.n_images)
    r = np.where(eligible[:, None], np.nan_to_num(pearson(select), nan=-1), -np.inf)
    chance = np.tanh(norm.isf(0.05 / max(eligible.sum(), 1)) / np.sqrt(max(select.patients[c] - 3, 1)))
    near = [names.index(other) for other in line(tree, label) if other in names]
    follows = np.all(r[:, near] <= r[:, [c]], axis=1) & (r[:, c] > chance)
    order = np.argsort(np.where(follows, -r[:, c], np.inf), kind="stable")[: min(CANDIDATES, follows.sum())]
    y = choice.labels[choice.select, c]
    known = ~np.isnan(y)
    if not len(order) or len(np.unique(y[known])) < 2:
        return Carried(np.empty(0, dtype=np.int64), np.empty(0))
    columns = [sparse.csr_array(matrix.columns(j, j + 1))[choice.select[known]].toarray()[:, 0] for j in order]
    return _grown(order, np.stack(columns, axis=1).astype(np.float64), y[known], choice.half[known])


def _grown(
    order: Int[np.ndarray, " candidates"],
    x: Float[np.ndarray, "images candidates"],
    y: Float[np.ndarray, " images"],
    half: Int[np.ndarray, " images"],
) -> Carried:
    chosen: list[int] = []
    reached = [np.full(2, 0.5)]
    while len(chosen) < min(MOST, len(order)):
        left = [j for j in range(len(order)) if j not in chosen]
        tried = [_auroc(x[:, [*chosen, j]], y, half) for j in left]
        rises = [_rise(auroc - reached[-1]) for auroc in tried]
        best = int(np.argmax(rises))
        if rises[best] <= JUMP:
            break
        chosen.append(left[best])
        reached.append(tried[best])
    return Carried(order[chosen], np.array([auroc.mean() for auroc in reached[1:]]))


def _rise(by_half: Float[np.ndarray, "2"]) -> float:
    """The mean of both halves' rises; what rises in one alone is chance."""
    return float(by_half.mean()) if by_half.min() > 0 else 0.0


def _auroc(
    x: Float[np.ndarray, "images k"], y: Float[np.ndarray, " images"], half: Int[np.ndarray, " images"]
) -> Float[np.ndarray, "2"]:
    """Of each half, of a probe of the other one; 0.5 without one."""
    reached = np.full(2, 0.5)
    for k, fitted in enumerate((half == 0, half == 1)):
        if len(np.unique(y[fitted])) == 2 and len(np.unique(y[~fitted])) == 2:
            head = fit_head(x[fitted], y[fitted], np.zeros(int(fitted.sum()), dtype=np.int64))
            reached[k] = aurocs(head(x[~fitted])[:, None], y[~fitted][:, None]).item()
    return reached


def silent(
    matrix: LatentMatrix, latents: Int[np.ndarray, " latents"], rows: Int[np.ndarray, " rows"]
) -> Bool[np.ndarray, " rows"]:
    """Where all of these latents are."""
    fires = [sparse.csr_array(matrix.columns(j, j + 1))[rows].toarray()[:, 0] > 0 for j in latents]
    return ~np.any(fires, axis=0)
