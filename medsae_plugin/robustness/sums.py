"""What fires on images and on their perturbations, as sums over groups of patients: bounded, and mergeable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

GROUPS = 40
"""Groups of patients, each of whom is left out in turn for intervals; fewer where there are fewer patients."""


def groups_of(patients: Shaped[np.ndarray, " images"], seed: int) -> Int[np.ndarray, " images"]:
    """Of each image the group of its patient: patients are dealt out in an order drawn with the seed."""
    names, code = np.unique(patients, return_inverse=True)
    dealt = np.arange(len(names)) % GROUPS
    order = np.random.default_rng(seed).permutation(len(names))
    group = np.empty(len(names), dtype=np.int64)
    group[order] = dealt
    return group[code]


@dataclass
class PerturbedSums:
    """Of `n` units and `v` perturbations, by group: sums of the activation on the image (a) and on its perturbation
    (b), of their squares and their product, and of on how many images they fire, and fire both. In float64.
    """

    groups: int
    v: int
    n: int
    images: Float[Tensor, " groups"] = field(init=False)
    a: Float[Tensor, "groups 3 n"] = field(init=False)  # a, a squared, a > 0
    b: Float[Tensor, "groups v 5 n"] = field(init=False)  # b, b squared, a b, b > 0, both > 0

    def __post_init__(self) -> None:
        self.images = torch.zeros(self.groups, dtype=torch.float64)
        self.a = torch.zeros(self.groups, 3, self.n, dtype=torch.float64)
        self.b = torch.zeros(self.groups, self.v, 5, self.n, dtype=torch.float64)

    def update(self, group: Int[np.ndarray, " images"], activations: Float[Tensor, "images variants n"]) -> None:
        """Add images: of each its group, and the activations on it and on its perturbations."""
        x, where = activations.double().cpu(), torch.from_numpy(group)
        a, b = x[:, 0], x[:, 1:]
        fires, fired = a > 0, b > 0
        both = fired & fires[:, None]
        self.images.index_add_(0, where, torch.ones(len(x), dtype=torch.float64))
        self.a.index_add_(0, where, torch.stack([a, a * a, fires.double()], dim=1))
        parts = [b, b * b, a[:, None] * b, fired.double(), both.double()]
        self.b.index_add_(0, where, torch.stack(parts, dim=2))

    def tensors(self) -> dict[str, Tensor]:
        """Every sum, for a file; `take` is the way back."""
        return {"images": self.images, "a": self.a, "b": self.b}

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        self.images, self.a, self.b = (tensors[name].clone() for name in ("images", "a", "b"))

    def kept(self, perturbation: int) -> Kept:
        """How one perturbation keeps every unit."""
        images, a, b = self.images.numpy(), self.a.numpy(), self.b[:, perturbation].numpy()
        total = (images.sum()[None], a.sum(0, keepdims=True), b.sum(0, keepdims=True))
        left = (total[0] - images, total[1] - a, total[2] - b)
        whole, without = _figures(*total), _figures(*left)
        return Kept(
            fired=total[1][0, 2],
            fired_perturbed=total[2][0, 3],
            groups_firing=(a[:, 2] > 0).sum(0),
            jaccard=whole[0][0],
            chance=whole[1][0],
            r=whole[2][0],
            jaccard_left_out=without[0],
            r_left_out=without[2],
        )


@dataclass(frozen=True)
class Kept:
    """Of each unit what a perturbation keeps.

    fired, fired_perturbed: on how many images it fires. groups_firing: groups of patients with an image it fires on.
    jaccard: images on which it fires both times, of those on which it fires at all. chance: the same if it fired as
        often, but independently. r: Pearson's, of its activation on the images and on their perturbations.
    """

    fired: Float[np.ndarray, " n"]
    fired_perturbed: Float[np.ndarray, " n"]
    groups_firing: Int[np.ndarray, " n"]
    jaccard: Float[np.ndarray, " n"]
    chance: Float[np.ndarray, " n"]
    r: Float[np.ndarray, " n"]
    jaccard_left_out: Float[np.ndarray, "groups n"]
    r_left_out: Float[np.ndarray, "groups n"]


def _figures(
    images: Float[np.ndarray, " m"], a: Float[np.ndarray, "m 3 n"], b: Float[np.ndarray, "m 5 n"]
) -> tuple[Float[np.ndarray, "m n"], Float[np.ndarray, "m n"], Float[np.ndarray, "m n"]]:
    """Jaccard, its chance, and r; nan where a unit never fires, or is constant."""
    n = images[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        union = a[:, 2] + b[:, 3] - b[:, 4]
        jaccard = np.where(union > 0, b[:, 4] / union, np.nan)
        by_chance = a[:, 2] * b[:, 3] / n
        chance = by_chance / (a[:, 2] + b[:, 3] - by_chance)
        scatter_a, scatter_b = a[:, 1] - a[:, 0] ** 2 / n, b[:, 1] - b[:, 0] ** 2 / n
        r = (b[:, 2] - a[:, 0] * b[:, 0] / n) / np.sqrt(scatter_a * scatter_b)
    # Of sums of this size less would be rounding error.
    varies: Bool[np.ndarray, "m n"] = (scatter_a > 1e-10 * a[:, 1]) & (scatter_b > 1e-10 * b[:, 1])
    return jaccard, chance, np.where(varies, r.clip(-1, 1), np.nan)
