"""How many latents carry a label: those that a sparse probe needs, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from sklearn.metrics import f1_score, precision_recall_curve

from medsae_plugin.hierarchy.tree import Tree, line
from medsae_plugin.scores.choice import Choice
from medsae_plugin.scores.logistic import fit_head
from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.metrics import pearson
from medsae_plugin.scores.scoring import least_firing
from medsae_plugin.scores.sums import LatentStatistics

JUMP, MOST, CANDIDATES = 0.03, 10, 20


@dataclass(frozen=True)
class Carried:
    """The latents that carry a label, in the order in which they were added, and F1 with each added; maybe none."""

    latents: Int[np.ndarray, " latents"]
    f1: Float[np.ndarray, " latents"]


def carried(
    matrix: LatentMatrix, choice: Choice, select: LatentStatistics, tree: Tree, label: str, names: tuple[str, ...]
) -> Carried:
    """The latents of a label, chosen on `select`: so many it is split into.

    Of those that follow no label above or beneath it more, the 20 of the largest r; of these, one after the other and
    ten at most, that which raises F1 of a logistic probe most, as long as it does by more than 0.03; the first, over
    what calling every image positive gives. F1 is of one half of the patients, of a probe fitted and cut on the other;
    it must rise in both halves, and the smaller rise counts. After Chanin et al. 2024 (arXiv 2409.14507), who add
    latents in the order of a probe's weights.
    """
    c = names.index(label)
    r = np.where((select.fired >= least_firing(select.n_images))[:, None], pearson(select), np.nan)
    near = [names.index(other) for other in line(tree, label) if other in names]
    strength = np.where(np.isnan(r[:, c]), -np.inf, r[:, c])
    for other in near:
        strength = np.where(np.nan_to_num(r[:, other], nan=-np.inf) > r[:, c], -np.inf, strength)
    order = np.argsort(-strength, kind="stable")[:CANDIDATES]
    order = order[strength[order] > 0]
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
    reached = [_f1(np.zeros((len(y), 1)), y, half)]
    while len(chosen) < min(MOST, len(order)):
        left = [j for j in range(len(order)) if j not in chosen]
        tried = [_f1(x[:, [*chosen, j]], y, half) for j in left]
        rises = [float((f1 - reached[-1]).min()) for f1 in tried]
        best = int(np.argmax(rises))
        if rises[best] <= JUMP:
            break
        chosen.append(left[best])
        reached.append(tried[best])
    return Carried(order[chosen], np.array([f1.mean() for f1 in reached[1:]]))


def _f1(
    x: Float[np.ndarray, "images k"], y: Float[np.ndarray, " images"], half: Int[np.ndarray, " images"]
) -> Float[np.ndarray, "2"]:
    """Of each half, of a probe of the other one, cut where its F1 is largest there; 0 without one."""
    reached = np.zeros(2)
    for k, fitted in enumerate((half == 0, half == 1)):
        if len(np.unique(y[fitted])) == 2 and (y[~fitted] == 1).any():
            head = fit_head(x[fitted], y[fitted], np.zeros(int(fitted.sum()), dtype=np.int64))
            reached[k] = f1_score(y[~fitted], head(x[~fitted]) >= _best_cut(y[fitted], head(x[fitted])))
    return reached


def _best_cut(y: Float[np.ndarray, " images"], logits: Float[np.ndarray, " images"]) -> float:
    precision, recall, cuts = precision_recall_curve(y, logits)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return float(cuts[f1[:-1].argmax()])


def silent(
    matrix: LatentMatrix, latents: Int[np.ndarray, " latents"], rows: Int[np.ndarray, " rows"]
) -> Bool[np.ndarray, " rows"]:
    """Where all of these latents are."""
    fires = [sparse.csr_array(matrix.columns(j, j + 1))[rows].toarray()[:, 0] > 0 for j in latents]
    return ~np.any(fires, axis=0)
