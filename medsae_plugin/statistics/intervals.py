"""Intervals of figures over patients, and when there is none; each was chosen by `benchmarks/calibration_intervals.py`.

All take a figure and what it is without each patient in turn (`PatientJackknife`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.stats import norm, t

LEVEL = 0.95
LEAST_PATIENTS = 10
LEAST_FIRING = 5
FEW_WITH = f"fewer than {LEAST_PATIENTS} patients with the finding"
FEW_WITHOUT = f"fewer than {LEAST_PATIENTS} patients without the finding"
SELDOM_FIRES = f"fires on fewer than {LEAST_FIRING} patients with the finding"
FEW_LABELS = "fewer than half of the observations have an interval of their own"


def reason_for_none(with_it: float, without: float, fires_with: float, expected: float) -> str | None:
    """Why there is no interval of a latent's figure of a label; None where there is one.

    Of fewer than 10 patients, and of fewer than 5 events, what was not seen cannot be resampled: no interval holds.

    Args:
        with_it, without: patients with an image that shows the finding, and with one that does not.
        fires_with: patients on an image of whom the latent fires and the finding is shown.
        expected: how many that would be if the latent had nothing to do with the finding.
    """
    if with_it < LEAST_PATIENTS:
        return FEW_WITH
    if without < LEAST_PATIENTS:
        return FEW_WITHOUT
    return SELDOM_FIRES if max(fires_with, expected) < LEAST_FIRING else None


def variance(left_out: Float[np.ndarray, " patients"]) -> float:
    """The jackknife's variance of a figure (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 11).

    nan where the figure is undefined without some patient.
    """
    n = len(left_out)
    return float((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())


def t_interval(estimate: float, left_out: Float[np.ndarray, " patients"], df: float) -> tuple[float, float]:
    """Estimate and Student's t times the jackknife's standard error; for differences and other unbounded figures."""
    half = float(t.ppf((1 + LEVEL) / 2, df) * np.sqrt(variance(left_out)))
    return estimate - half, estimate + half


def independent_difference(
    one: tuple[float, Float[np.ndarray, " patients"], float], other: tuple[float, Float[np.ndarray, " others"], float]
) -> tuple[float, float]:
    """The interval of a figure of some patients less that of others, each with what it is without each of its patients
    and with its degrees of freedom: Student's t with those of Welch (1947)."""
    (a, a_left, a_df), (b, b_left, b_df) = one, other
    of_a, of_b = variance(a_left), variance(b_left)
    df = (of_a + of_b) ** 2 / max(of_a**2 / a_df + of_b**2 / b_df, np.finfo(float).tiny)
    half = float(t.ppf((1 + LEVEL) / 2, max(df, 1)) * np.sqrt(of_a + of_b))
    return float(a - b - half), float(a - b + half)


def correlation_interval(r: float, left_out: Float[np.ndarray, " patients"], df: float) -> tuple[float, float]:
    """`t_interval` of Fisher's z = artanh r, turned back.

    Args:
        df: of Student's t: of a label the patients with the finding (or without, if they are fewer) less one, who make
            most of the variance.
    """
    low, high = t_interval(float(_z(np.array([r]))[0]), _z(left_out), df)
    return float(np.tanh(low)), float(np.tanh(high))


def p_above_zero(estimate: float, left_out: Float[np.ndarray, " patients"], df: float) -> float:
    """One-sided p of an unbounded figure's being 0 or less, by `t_interval`'s t."""
    return float(t.sf(estimate / max(np.sqrt(variance(left_out)), np.finfo(float).tiny), df))


def ratio_interval(
    numerator: tuple[float, Float[np.ndarray, " patients"]],
    denominator: tuple[float, Float[np.ndarray, " patients"]],
    df: float,
) -> tuple[float, float] | None:
    """Fieller's interval (1954) of a ratio of two figures, each with what it is without each patient in turn: the
    ratios q for which `t_interval` of numerator - q denominator holds 0. None where it has no ends, which is where the
    interval of the denominator holds 0.
    """
    (a, a_left), (b, b_left) = numerator, denominator
    n = len(a_left)
    spread = (n - 1) / n * np.stack([a_left - a_left.mean(), b_left - b_left.mean()])
    of_a, across, of_b = (float(t.ppf((1 + LEVEL) / 2, df) ** 2 * x) for x in (
        spread[0] @ (a_left - a_left.mean()), spread[0] @ (b_left - b_left.mean()), spread[1] @ (b_left - b_left.mean())
    ))  # fmt: skip
    square, half, constant = b**2 - of_b, a * b - across, a**2 - of_a
    if not square > 0:
        return None
    root = float(np.sqrt(max(half**2 - square * constant, 0)))
    return (half - root) / square, (half + root) / square


def auroc_interval(
    auroc: float, left_out: Float[np.ndarray, " patients"], images: tuple[float, float], patients: tuple[float, float]
) -> tuple[float, float]:
    """Newcombe's score interval (2006, Statistics in Medicine 25:559, method 5), for images of the same patients.

    The AUROCs from which the found one is no further than 1.96 standard errors, each with the variance that Hanley and
    McNeil's (1982) formula gives for it. That is raised by as much as the jackknife's variance exceeds the formula's at
    the AUROC found, as it does where patients have several images and where many images are tied at zero.

    Args:
        images: with the finding, and without. patients: with such an image, and with an image without it. A patient's
            images are worth more than one and less than as many, so the formula takes the geometric mean of both.
    """
    positives, negatives = (float(np.sqrt(i * p)) for i, p in zip(images, patients, strict=True))
    at_found, found = _hanley_mcneil(auroc, positives, negatives), variance(left_out)
    if np.isnan(found):
        return float("nan"), float("nan")
    effect = max(1.0, found / at_found) if at_found > 0 else 1.0
    z = norm.ppf((1 + LEVEL) / 2)

    def beyond(x: float) -> float:
        return float((auroc - x) ** 2 - z**2 * effect * _hanley_mcneil(x, positives, negatives))

    low = brentq(beyond, 0, auroc - 1e-9) if auroc > 1e-9 else 0.0
    high = brentq(beyond, auroc + 1e-9, 1) if auroc < 1 - 1e-9 else 1.0
    return float(low), float(high)


def _hanley_mcneil(x: float, positives: float, negatives: float) -> float:
    """The variance of an AUROC x, with (m + n) / 2 for both counts in its brackets, as Newcombe's method 5."""
    others = (positives + negatives) / 2 - 1
    return x * (1 - x) * (1 + others * ((1 - x) / (2 - x) + x / (1 + x))) / (positives * negatives)


def _z(r: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.arctanh(np.clip(r, -1 + 1e-9, 1 - 1e-9))
