"""Where in an encoder an observation becomes linearly visible: a regularised linear probe at every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from medsae_plugin.scores.image_means import image_means
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.reported_auroc import ReportedAUROC
from medsae_plugin.scores.scoring import HeldOut

if TYPE_CHECKING:
    from medsae_plugin.store import ActivationStore

RIDGES = np.logspace(-5, 2, 15)  # of the mean variance of a dimension
DEFAULT_RIDGE = 1e-2  # where a fold lacks images with or without the observation
VISIBLE = 0.9


@dataclass(frozen=True)
class ProbeSums:
    """Sums over images from which probes follow; they add. Activations are counted from a common `shift`."""

    n: int | float
    total: Float[np.ndarray, " d"]
    products: Float[np.ndarray, "d d"]
    counts: Float[np.ndarray, "2 labels"]  # images without and with the observation
    sums: Float[np.ndarray, "2 labels d"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "images d"], labels: Float[np.ndarray, "images labels"]) -> ProbeSums:
        present = np.stack([(labels == value).astype(np.float64) for value in (0, 1)])
        return cls(len(x), x.sum(0), x.T @ x, present.sum(1), present.transpose(0, 2, 1) @ x)

    def __add__(self, other: ProbeSums) -> ProbeSums:
        return ProbeSums(
            self.n + other.n,
            self.total + other.total,
            self.products + other.products,
            self.counts + other.counts,
            self.sums + other.sums,
        )

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        return self.products / self.n - np.outer(self.total, self.total) / self.n**2

    @property
    def difference(self) -> Float[np.ndarray, "labels d"]:
        """The mean with each observation less the mean without; nan where either has no image."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means = self.sums / self.counts[..., None]
        return means[1] - means[0]

    def directions(self, ridges: np.ndarray) -> Float[np.ndarray, "ridges labels d"]:
        """The probe of each observation for each ridge."""
        variance, basis = np.linalg.eigh(self.covariance)
        variance = np.maximum(variance, 0)
        along = self.difference @ basis
        shrunk = variance + ridges[:, None] * max(variance.mean(), 1e-300)
        return (along / shrunk[:, None, :]) @ basis.T

    def correlation(self, directions: Float[np.ndarray, "ridges labels d"]) -> Float[np.ndarray, "ridges labels"]:
        """Pearson's r of probes with their observations, the probe's variance taken over all images."""
        present = self.counts[1] / np.maximum(self.counts.sum(0), 1)
        covariance = (directions * self.difference).sum(-1) * np.sqrt(present * (1 - present))
        spread = np.sqrt(np.maximum(((directions @ self.covariance) * directions).sum(-1), 0))
        with np.errstate(invalid="ignore", divide="ignore"):
            return covariance / spread


@dataclass(frozen=True)
class Visibility:
    """How well each observation can be read off one layer, on `report`; nan where it cannot be told.

    auroc, low, high: `(labels,)`, with the 95% interval over patients. ridge: the one chosen on `select`, of folds the
    median. no_interval: of each label why there is none, such as fewer than 10 patients with it.
    """

    auroc: Float[np.ndarray, " labels"]
    low: Float[np.ndarray, " labels"]
    high: Float[np.ndarray, " labels"]
    ridge: Float[np.ndarray, " labels"]
    no_interval: list[str | None]


def probe(store: ActivationStore, hook: str, held_out: HeldOut, seed: int = 0) -> Visibility:
    """A linear probe of every observation at one layer, on activations averaged over positions.

    The probe is Fisher's linear discriminant with a ridge, w = (S + g t I)^-1 (m_1 - m_0), in float64, where m are the
    means over images of `select` with and without the observation, S is the covariance of all images of `select` and t
    its mean diagonal. (With the same images this is ridge regression on the label up to scale, and S may stand for the
    covariance within classes: both leave the direction as it is.) The ridge g of each observation is the one of
    `RIDGES` for which probes of one half of the patients correlate best with the observation in the other half. All
    of it follows from sums, so memory is d^2 and does not grow with images. It is scored on `report`; of folds, a probe
    is fitted for each, and pooled as `scores.cross_fitting` says.

    Args:
        seed: of the two halves of the patients of `select`.
    """
    scores, ridges = np.empty(held_out.labels.shape), []
    for part in held_out.images.folds or (held_out.images,):
        own, ridge = _probed(store, hook, part, seed)
        scores[np.searchsorted(held_out.report, part.rows("report"))] = own
        ridges.append(ridge)
    told = ReportedAUROC.of(held_out, scores)
    return Visibility(told.auroc, told.low, told.high, np.median(ridges, axis=0), told.no_interval)


def _probed(
    store: ActivationStore, hook: str, images: LabelledImages, seed: int
) -> tuple[Float[np.ndarray, "rows labels"], Float[np.ndarray, " labels"]]:
    """The scores of probes, fitted on `select`, of the images of `report`, nan where none can be fitted; and ridges."""
    halves = images.halves(seed)
    sums: list[ProbeSums | None] = [None, None]
    shift: np.ndarray | None = None
    for rows, x in image_means(store, hook):
        shift = x.mean(0) if shift is None else shift
        for half in (0, 1):
            mine = np.flatnonzero(halves[rows] == half)
            part = ProbeSums.of(x[mine] - shift, images.labels[rows][mine])
            before = sums[half]
            sums[half] = part if before is None else before + part
    first, second = sums
    assert first is not None and second is not None and shift is not None
    ridge = choose_ridges(first, second)
    # One eigendecomposition serves all observations.
    w = (first + second).directions(RIDGES)[_place(ridge), np.arange(len(ridge))]
    scores = np.empty((len(halves), len(ridge)))
    for rows, x in image_means(store, hook):
        scores[rows] = (x - shift) @ w.T
    return scores[images.rows("report")], ridge


def choose_ridges(first: ProbeSums, second: ProbeSums) -> Float[np.ndarray, " labels"]:
    """For each observation the ridge whose probes of one half do best on the other, both ways round."""
    tried = []
    for fitted, other in ((first, second), (second, first)):
        if fitted.n > 1 and other.n > 1:
            tried.append(other.correlation(fitted.directions(RIDGES)))
    if not tried:
        return np.full(first.counts.shape[1], DEFAULT_RIDGE)
    mean = np.mean(tried, axis=0)
    best = np.where(np.isnan(mean), -np.inf, mean).argmax(0)
    return np.where(np.isnan(mean).all(0), DEFAULT_RIDGE, RIDGES[best])


def visible_from(auroc: Float[np.ndarray, "layers"], low: Float[np.ndarray, "layers"]) -> int | None:
    """The first layer, in the order of the forward pass, at which an observation is linearly visible.

    It is the first whose AUROC is as far above 0.5 as nine tenths (`VISIBLE`) of what the best layer's is, and whose
    interval excludes 0.5. None where no layer's interval does.
    """
    told = low > 0.5
    if not told.any():
        return None
    enough = auroc - 0.5 >= VISIBLE * (np.nanmax(auroc[told]) - 0.5)
    return int(np.flatnonzero(told & enough)[0])


def _place(ridge: np.ndarray) -> np.ndarray:
    return np.abs(np.log(RIDGES)[:, None] - np.log(ridge)).argmin(0)
