"""Which r a table could detect, before anything is trained: of how many images, patients and positives it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy import optimize, special, stats

from medsae_plugin.scores.models import Split
from medsae_plugin.scores.registry import number
from medsae_plugin.text import aligned, fixed

_NOTE = """\
least r: where a latent is as unlike on a patient's images as on those of strangers. if alike: where it is the same on
all of them; the truth lies between. design effect: how many images then count as one. Latents are taken to be about
normal; one that fires on few images needs a larger r."""


@dataclass(frozen=True)
class LabelPower:
    """What a label's images can tell.

    images, positives: where it is known, and present; patients, positive_patients: of these.
    design_effect: see `design_effect`, of a latent that is alike on all images of a patient.
    unlike, alike: the least r detected where a latent on a patient's images is as unlike as on strangers', and where it
        is the same; None where nothing can be detected.
    never: why nothing can be, "" where it can.
    """

    label: str
    images: int
    positives: int
    patients: int
    positive_patients: int
    design_effect: float | None
    unlike: float | None
    alike: float | None
    never: str = ""


@dataclass(frozen=True)
class Power:
    """Of each label, for a level of which Holm leaves `alpha / m` to the least p of the m labels that can be tested."""

    split: Split
    alpha: float
    power: float
    tested: int
    labels: list[LabelPower]

    def __str__(self) -> str:
        level = self.alpha / max(1, self.tested)
        rows = [["label", "+", "known", "patients +", "patients", "design effect", "least r", "if alike"]]
        for x in self.labels:
            counts = [str(n) for n in (x.positives, x.images, x.positive_patients, x.patients)]
            effect = fixed(x.design_effect)
            least = ["never", x.never] if x.never else [fixed(x.unlike), fixed(x.alike)]
            rows.append([x.label, *counts, effect, *least])
        split = self.split
        return "\n".join(
            [
                f"The least true r of a label's latent that is found significant with probability {self.power:g}, on "
                f"{split.split} ({split.images} images, {split.patients} patients): one-sided, at {self.alpha:g} / "
                f"{self.tested} = {level:.2g}, which is what Holm asks of the least p of {self.tested} labels.",
                *aligned(rows, rule_after=(1,)),
                _NOTE,
            ]
        )


def power_of(
    labels: Float[np.ndarray, "images labels"],
    names: Sequence[str],
    patients: Shaped[np.ndarray, " images"],
    split: str,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
) -> Power:
    """The power of a table's labels, 1, 0 or nan for unknown, on the images of a split."""
    code = np.unique(patients, return_inverse=True)[1]
    known = [~np.isnan(y) for y in labels.T]
    varies = [k for k, (y, told) in enumerate(zip(labels.T, known, strict=True)) if 0 < y[told].sum() < told.sum()]
    level = alpha / max(1, len(varies))
    made = [
        _of_label(name, y[told], code[told], level, power) for name, y, told in zip(names, labels.T, known, strict=True)
    ]
    return Power(Split(split=split, images=len(labels), patients=len(set(code))), alpha, power, len(varies), made)


def _of_label(name: str, y: np.ndarray, patients: np.ndarray, level: float, power: float) -> LabelPower:
    n_patients, positive = len(set(patients)), len(set(patients[y == 1]))
    counts = (name, len(y), int(y.sum()), n_patients, positive)
    if not 0 < y.sum() < len(y):
        return LabelPower(*counts, None, None, None, "on every known image" if len(y) and y.all() else "on no image")
    effect = design_effect(y, patients)
    if (least := log_least_p(n_patients, positive)) > math.log(level):
        why = f"too few patients: p is {math.exp(least):.2g} at least"
        return LabelPower(*counts, effect, None, None, why)
    unlike, alike = (number(least_r(len(y) / e, level, power)) for e in (1.0, max(1.0, effect)))
    return LabelPower(*counts, effect, unlike, alike)


def design_effect(y: Float[np.ndarray, " images"], patients: Shaped[np.ndarray, " images"]) -> float:
    """How much the variance of r grows by clustering where the other variable is alike on all images of a patient.

    The variance of sum_i x_i (y_i - mean) over shuffles of the patients' x, against that over shuffles of the images':
    sum_p (sum_{i in p} (y_i - mean))^2 / sum_i (y_i - mean)^2. Of patients with b images each this is Kish's 1 +
    (b - 1) rho of the label's intraclass correlation rho (Kish 1965, Survey Sampling; Scott and Holt 1982); with an
    intraclass correlation rho_x of the other variable it is 1 + rho_x (this - 1).
    """
    code = np.unique(patients, return_inverse=True)[1]
    deviation = y - y.mean()
    return float((np.bincount(code, deviation) ** 2).sum() / (deviation**2).sum())


def log_least_p(patients: int, positive: int) -> float:
    """ln of the least p that shuffles of patients' labels can give: one over the ways to choose who has the label, or
    where all have it, on some images, over their orders."""
    others = 0 if positive == patients else special.gammaln(positive + 1) + special.gammaln(patients - positive + 1)
    return float(others - special.gammaln(patients + 1))


def least_r(n: float, level: float, power: float) -> float:
    """The least true r that a one-sided test of this level finds with this power among n independent images.

    The point-biserial model of Faul et al. 2007 (G*Power 3): t = r sqrt((n - 2) / (1 - r^2)) is noncentral t with n - 2
    degrees of freedom and noncentrality sqrt(n) rho / sqrt(1 - rho^2). nan for n of 3 or fewer.
    """
    if n <= 3:
        return math.nan
    critical = stats.t.isf(level, n - 2)

    def lacks(rho: float) -> float:
        return float(stats.nct.sf(critical, n - 2, math.sqrt(n) * rho / math.sqrt(1 - rho**2))) - power

    return float(optimize.brentq(lacks, 0.0, 1 - 1e-9)) if lacks(1 - 1e-6) > 0 else math.nan
