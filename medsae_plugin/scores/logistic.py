"""Logistic regressions: scikit-learn's under a probe's head, and one of each latent alone, all latents at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse, special

from medsae_plugin.scores.ranking import aurocs

STRENGTHS = (0.01, 0.1, 1.0)  # scikit-learn's C, the inverse of the penalty
_DEFAULT_STRENGTH = 0.1  # where half of the patients lack images with or without the label
Features: TypeAlias = Float[np.ndarray, "images d"] | sparse.csr_array
RIDGE = 1e-4  # of a latent's own regression, so that one that tells all images apart has an end
_STEPS = 100
_LEAST_STEP = 1e-6  # of log-odds; Newton's next would be of its square


@dataclass(frozen=True)
class Head:
    """A logistic regression on standardised features, fitted by `fit_head`.

    weights: `(d,)`, of the features as they come; what a penalty on sizes (`l1`) left out is 0.
    """

    weights: Float[np.ndarray, " d"]
    bias: float

    def __call__(self, x: Features) -> Float[np.ndarray, " images"]:
        """The log-odds of each image."""
        return np.asarray(x @ self.weights, dtype=np.float64) + self.bias


def fit_head(
    x: Features,
    y: Float[np.ndarray, " images"],
    half: Int[np.ndarray, " images"],
    *,
    l1: bool = False,
) -> Head:
    """The regression whose penalty does best, by AUROC, when fitted on one half of the patients and tried on the other.

    Args:
        x: of any scale; what is sparse is not centred.
        y: 0 and 1, both there. half: 0 or 1 for each image, by its patient.
        l1: penalise the sum of sizes, which leaves features out, instead of that of squares.
    """
    standard = _Standard.of(x)
    found = _regression(_strength(standard.of_fit, y, half, l1), l1).fit(standard.of_fit, y)
    return standard.head(found)


def fit_head_tried(
    x: Features,
    y: Float[np.ndarray, " images"],
    tried: Float[np.ndarray, "others d"] | sparse.csr_array,
    tried_y: Float[np.ndarray, " others"],
    strengths: Sequence[float],
    *,
    l1: bool = False,
) -> tuple[Head, float, float]:
    """The regression fitted on x whose penalty does best, by cross-entropy, on others' images.

    Args:
        x, y, l1: as of `fit_head`. tried, tried_y: the others', 0 and 1 both there.
        strengths: scikit-learn's C, the inverse of the penalty.

    Returns:
        The head, its strength, and its mean cross-entropy on the others, in nats.
    """
    standard = _Standard.of(x)
    found = []
    for strength in strengths:
        head = standard.head(_regression(strength, l1).fit(standard.of_fit, y))
        logits = head(tried)
        found.append((float(np.mean(np.logaddexp(0, logits) - tried_y * logits)), strength, head))
    loss, strength, head = min(found, key=lambda one: one[0])
    return head, strength, loss


@dataclass(frozen=True)
class _Standard:
    """Features on one scale, as regressions are fitted on them; what is sparse is not centred."""

    of_fit: Features
    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    varies: Bool[np.ndarray, " d"]

    @classmethod
    def of(cls, x: Features) -> _Standard:
        x = x.astype(np.float64)
        mean, scale = _mean_and_scale(x)
        varies = scale > 0
        safe = np.where(varies, scale, 1)
        if sparse.issparse(x):
            return cls(x @ sparse.diags_array(1 / safe), np.zeros_like(mean), safe, varies)
        return cls((x - mean) / safe, mean, safe, varies)

    def head(self, regression: Any) -> Head:
        """A regression on these as one on the features as they come."""
        weights = np.where(self.varies, regression.coef_[0] / self.scale, 0.0)
        return Head(weights, float(regression.intercept_[0] - self.mean @ weights))


def _mean_and_scale(x: Features) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(x, np.ndarray):
        return x.mean(0), x.std(0)
    mean = np.asarray(x.mean(0)).ravel()
    square = np.asarray(x.power(2).mean(0)).ravel()
    variance = square - mean**2
    return mean, np.sqrt(np.where(variance > 1e-12 * square, variance, 0))


def _strength(x: Features, y: np.ndarray, half: np.ndarray, l1: bool) -> float:
    parts = [half == 0, half == 1]
    if any(len(np.unique(y[part])) < 2 for part in parts):
        return _DEFAULT_STRENGTH
    tried = [
        sum(
            aurocs(_regression(c, l1).fit(x[a], y[a]).decision_function(x[b])[:, None], y[b][:, None]).item()
            for a, b in (parts, parts[::-1])
        )
        for c in STRENGTHS
    ]
    return STRENGTHS[int(np.argmax(tried))]


def _regression(strength: float, l1: bool) -> Any:
    from sklearn.linear_model import LogisticRegression

    if l1:
        return LogisticRegression(C=strength, l1_ratio=1.0, solver="liblinear", random_state=0, max_iter=1000)
    return LogisticRegression(C=strength, max_iter=1000)


@dataclass(frozen=True)
class SingleProbes:
    """Of each latent and label the regression of the label on that latent alone: its weight, its bias and its binary
    cross-entropy, the mean over known images in nats. nan where a label is not there on some images and absent on
    others."""

    weight: Float[np.ndarray, "latents labels"]
    bias: Float[np.ndarray, "latents labels"]
    bce: Float[np.ndarray, "latents labels"]


def single_probes(columns: sparse.csc_array, labels: Float[np.ndarray, "images labels"]) -> SingleProbes:
    """Fit them by Newton's method with halved steps; images at 0 are one term, so a latent costs as its nonzeros do.

    A penalty of `RIDGE` / 2 times the squared weight, of the latent divided by the root mean square of its nonzeros, is
    added to the mean cross-entropy.
    """
    n_latents = columns.shape[1]
    if n_latents == 0:
        return SingleProbes(*np.empty((3, 0, labels.shape[1])))
    latent = np.repeat(np.arange(n_latents), np.diff(columns.indptr))
    value = columns.data.astype(np.float64)
    counts = np.maximum(np.bincount(latent, minlength=n_latents), 1)
    scale = np.sqrt(np.bincount(latent, value**2, n_latents) / counts)
    scale[scale == 0] = 1
    fitted = []
    for y in labels.T:
        known, here = ~np.isnan(y), ~np.isnan(y[columns.indices])
        if not (y == 0).any() or not (y == 1).any():
            fitted.append((np.full(n_latents, np.nan),) * 3)
            continue
        at, of = latent[here], np.asarray(y[columns.indices])[here]
        rest = known.sum() - np.bincount(at, minlength=n_latents)
        rest_positive = (y == 1).sum() - np.bincount(at, of, n_latents)
        seen = _Images(at, (value / scale[latent])[here], of, rest.astype(float), rest_positive, int(known.sum()))
        fitted.append(_fit_label(seen, float(np.nanmean(y))))
    weight, bias, bce = (np.stack(parts, axis=1) for parts in zip(*fitted, strict=True))
    return SingleProbes(weight / scale[:, None], bias, bce)


@dataclass(frozen=True)
class _Images:
    """The images where a label is known, as one latent's regression after the other sees them.

    latent, value, y: of each nonzero. rest, rest_positive: `(latents,)`, the images at 0, and those of them with the
    label.
    """

    latent: Int[np.ndarray, " nonzeros"]
    value: Float[np.ndarray, " nonzeros"]
    y: Float[np.ndarray, " nonzeros"]
    rest: Float[np.ndarray, " latents"]
    rest_positive: Float[np.ndarray, " latents"]
    n: int

    def only(self, these: Bool[np.ndarray, " latents"]) -> _Images:
        """The same for some latents."""
        place, mine = np.cumsum(these) - 1, these[self.latent]
        return _Images(
            place[self.latent[mine]],
            self.value[mine],
            self.y[mine],
            self.rest[these],
            self.rest_positive[these],
            self.n,
        )

    def total(self, terms: np.ndarray) -> Float[np.ndarray, " latents"]:
        return np.bincount(self.latent, terms, len(self.rest))

    def loss(self, w: np.ndarray, b: np.ndarray) -> Float[np.ndarray, " latents"]:
        """The mean cross-entropy of each latent's regression, without the penalty."""
        logit = w[self.latent] * self.value + b[self.latent]
        nonzero = self.total(np.logaddexp(0, logit) - self.y * logit)
        return (nonzero + self.rest * np.logaddexp(0, b) - self.rest_positive * b) / self.n

    def step(self, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Newton's, of weight and bias."""
        p, p0 = special.expit(w[self.latent] * self.value + b[self.latent]), special.expit(b)
        spread, v = p * (1 - p), self.value
        gw = self.total((p - self.y) * v) / self.n + RIDGE * w
        gb = (self.total(p - self.y) + self.rest * p0 - self.rest_positive) / self.n
        ww = self.total(spread * v * v) / self.n + RIDGE
        wb = self.total(spread * v) / self.n
        bb = (self.total(spread) + self.rest * p0 * (1 - p0)) / self.n + 1e-12
        determinant = np.maximum(ww * bb - wb**2, 1e-300)
        return (wb * gb - bb * gw) / determinant, (wb * gw - ww * gb) / determinant


def _fit_label(seen: _Images, prevalence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, biases and cross-entropies of all latents' regressions on one label; each goes on until it is there."""
    w, b = np.zeros_like(seen.rest), np.full_like(seen.rest, special.logit(prevalence))
    left, on, share, reached = seen, np.arange(len(w)), np.ones_like(w), seen.loss(w, b)
    for _ in range(_STEPS):
        dw, db = left.step(w[on], b[on])
        further = np.abs(dw) + np.abs(db) >= _LEAST_STEP
        if not further.any():
            break
        if further.mean() < 0.75:  # copying what is left costs as a step does
            left, on, share, reached, dw, db = left.only(further), *(x[further] for x in (on, share, reached, dw, db))
        to_w, to_b = w[on] + share * dw, b[on] + share * db
        tried = left.loss(to_w, to_b) + RIDGE / 2 * to_w**2
        better = tried <= reached + 1e-15
        w[on], b[on] = np.where(better, to_w, w[on]), np.where(better, to_b, b[on])
        reached = np.where(better, tried, reached)
        share = np.where(better, np.minimum(1, 2 * share), share / 4)
    return w, b, seen.loss(w, b)
