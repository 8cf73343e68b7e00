"""Which latents of one SAE are those of another: by their activations over images, and by their decoder directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

STABLE = 0.7
"""A latent is found again by another seed where its partner's held-out r is at least this (the threshold that Paulo and
Belrose 2025, arXiv 2501.16615, put on cosines)."""

_BLOCK = 1024


@dataclass(frozen=True)
class Matching:
    """The partners of an SAE's latents in another one, chosen on `select`, and their r on `report`.

    best: `(latents,)` the latent of the largest r; several latents may share one. assigned: one to one, so that the sum
    of r is largest (Hungarian method). -1 for a latent that fires too seldom, or that is left over. best_r, assigned_r:
    Pearson's r with the partner on `report`; nan without a partner, 0 where either is constant there.
    """

    best: Int[np.ndarray, " latents"]
    best_r: Float[np.ndarray, " latents"]
    assigned: Int[np.ndarray, " latents"]
    assigned_r: Float[np.ndarray, " latents"]

    @property
    def mean_max_correlation(self) -> float:
        """The mean held-out r of the best partners, over the latents that have one; nan for none."""
        return _mean(self.best_r)

    @property
    def mean_assigned_correlation(self) -> float:
        """The same of the one-to-one partners."""
        return _mean(self.assigned_r)

    @property
    def share_stable(self) -> float:
        """The share of latents, of those that fire often enough, whose one-to-one partner's r is at least `STABLE`."""
        fires = self.best >= 0
        return float((np.nan_to_num(self.assigned_r[fires]) >= STABLE).mean()) if fires.any() else float("nan")


def match(
    r: Mapping[str, Float[np.ndarray, "latents_a latents_b"]],
    eligible_a: Bool[np.ndarray, " latents_a"],
    eligible_b: Bool[np.ndarray, " latents_b"],
) -> tuple[Matching, Matching]:
    """The partners of a's latents in b, and of b's in a.

    Args:
        r: what `correlations` gives, over `select` and `report`.
        eligible_a, eligible_b: the latents that fire often enough on `select` to be matched.
    """
    a, b = np.flatnonzero(eligible_a), np.flatnonzero(eligible_b)
    chosen = np.nan_to_num(r["select"][np.ix_(a, b)], nan=-1.0)
    held_out = np.nan_to_num(r["report"][np.ix_(a, b)])
    row, column = linear_sum_assignment(chosen, maximize=True)
    return (
        _matching(chosen, held_out, a, b, len(eligible_a), row, column),
        _matching(chosen.T, held_out.T, b, a, len(eligible_b), column, row),
    )


def _matching(
    chosen: np.ndarray,
    held_out: np.ndarray,
    own: np.ndarray,
    other: np.ndarray,
    n: int,
    row: np.ndarray,
    column: np.ndarray,
) -> Matching:
    best, assigned = np.full((2, n), -1)
    best_r, assigned_r = np.full((2, n), np.nan)
    if chosen.size:
        nearest = chosen.argmax(1)
        best[own], best_r[own] = other[nearest], held_out[np.arange(len(own)), nearest]
        assigned[own[row]], assigned_r[own[row]] = other[column], held_out[row, column]
    return Matching(best, best_r, assigned, assigned_r)


@dataclass(frozen=True)
class DecoderCosines:
    """Cosines of the decoder directions of two SAEs in one space.

    assigned, assigned_back: of each latent of either SAE with its one-to-one partner, nan without one.
    mean_max, mean_max_back: the mean over all latents of the largest cosine with any latent of the other (MMCS).
    largest, largest_back: of each latent of either SAE the largest |cosine| with any latent of the other.
    """

    assigned: Float[np.ndarray, " latents_a"]
    assigned_back: Float[np.ndarray, " latents_b"]
    mean_max: float
    mean_max_back: float
    largest: Float[np.ndarray, " latents_a"]
    largest_back: Float[np.ndarray, " latents_b"]

    @classmethod
    def of(
        cls,
        a: Float[np.ndarray, "latents_a d"],
        b: Float[np.ndarray, "latents_b d"],
        forward: Matching,
        back: Matching,
    ) -> DecoderCosines:
        return cls(
            decoder_cosine(a, b, forward.assigned),
            decoder_cosine(b, a, back.assigned),
            float(max_decoder_cosine(a, b).mean()),
            float(max_decoder_cosine(b, a).mean()),
            np.maximum(max_decoder_cosine(a, b), max_decoder_cosine(-a, b)),
            np.maximum(max_decoder_cosine(b, a), max_decoder_cosine(-b, a)),
        )


def decoder_cosine(
    a: Float[np.ndarray, "latents_a d"], b: Float[np.ndarray, "latents_b d"], partner: Int[np.ndarray, " latents_a"]
) -> Float[np.ndarray, " latents_a"]:
    """The cosine of each latent's decoder direction with its partner's; nan where the partner is -1."""
    a, b = _unit(a), _unit(b)
    return np.where(partner >= 0, (a * b[partner]).sum(1), np.nan)


def max_decoder_cosine(
    a: Float[np.ndarray, "latents_a d"], b: Float[np.ndarray, "latents_b d"]
) -> Float[np.ndarray, " latents_a"]:
    """The largest cosine of each decoder direction of `a` with any of `b` (Sharkey et al. 2022: their mean is MMCS)."""
    a, b = _unit(a), _unit(b)
    return np.concatenate([(a[i : i + _BLOCK] @ b.T).max(1) for i in range(0, len(a), _BLOCK)])


def stability(matchings: Sequence[Matching]) -> Float[np.ndarray, " latents"]:
    """Of each latent of one SAE the mean held-out r of its one-to-one partners in the SAEs of other seeds.

    A latent that is left over in one of them counts as 0 there; nan for one that fires too seldom to be matched.
    """
    fires = matchings[0].best >= 0
    found = np.mean([np.nan_to_num(m.assigned_r) for m in matchings], axis=0)
    return np.where(fires, found, np.nan)


def _unit(w: np.ndarray) -> np.ndarray:
    w = np.asarray(w, dtype=np.float64)
    return w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-300)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
