"""One unit beside one label and each covariate: what it leans on, in figures and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from medsae_plugin.confounding.covariates import Covariate, design_of, known_of
from medsae_plugin.confounding.partial import Found, Regressed, Regressions, fisher_pooled
from medsae_plugin.confounding.results import ALL, Leaning, Stratum
from medsae_plugin.confounding.verdicts import with_verdicts
from medsae_plugin.scores.cross_fitting import auroc_within_folds, auroc_within_folds_left_out, standardised_within
from medsae_plugin.scores.registry import number
from medsae_plugin.statistics.intervals import (
    auroc_interval,
    correlation_interval,
    p_above_zero,
    ratio_interval,
    reason_for_none,
    t_interval,
)
from medsae_plugin.statistics.jackknife import PatientJackknife

CONSTANT = "it is constant without one of the patients"
_NO_R, _NO_AUROC = "r may be 0, so it has no shares", "AUROC may be 0.5, so none of it can be kept"
_NO_PAIR = "no stratum has images with the label and without, but of one patient"
_Images = Bool[np.ndarray, " images"]


class LabelBeside:
    """A label beside covariates: `leanings` says of any unit what it leans on.

    What hangs on the label and the covariates alone is made once for all units.

    Args:
        y: the label of each image, nan where unknown.
        fold: of each image the fold that reports it, zeros of one choice: r is of activations standardised within a
            fold, AUROC of pairs within one.
    """

    def __init__(
        self,
        label: str,
        y: Float[np.ndarray, " images"],
        patients: Shaped[np.ndarray, " images"],
        covariates: Sequence[Covariate],
        fold: Int[np.ndarray, " images"] | None = None,
    ) -> None:
        fold = np.zeros(len(y), dtype=np.int64) if fold is None else fold
        groups = [(one.name, [one]) for one in covariates]
        if len(covariates) > 1:
            groups.append((ALL, list(covariates)))
        self._beside = [_Beside(label, name, y, patients, group, fold) for name, group in groups]

    def leanings(
        self, a: Float[np.ndarray, " images"], fires: _Images | None = None, why: str | None = None
    ) -> list[Leaning]:
        """What a unit leans on, covariate by covariate, then all of them together, with verdicts.

        Args:
            fires: where it fires; None for what always does. why: there are no intervals; None where that is no reason.
        """
        fires = np.ones(len(a), dtype=bool) if fires is None else fires
        return with_verdicts([one.leaning(a, fires, why) for one in self._beside])


class _Beside:
    """A label beside one covariate, or several together, over the images where all are known."""

    def __init__(
        self,
        label: str,
        name: str,
        y: Float[np.ndarray, " images"],
        patients: Shaped[np.ndarray, " images"],
        covariates: Sequence[Covariate],
        fold: Int[np.ndarray, " images"],
    ) -> None:
        self._known = ~np.isnan(y) & known_of(covariates)
        self._y, self._patients, self._fold = y[self._known], patients[self._known], fold[self._known]
        own = [one.rows(self._known) for one in covariates]
        positives = int((self._y == 1).sum())
        self._made = Leaning(label=label, covariate=name, images=len(self._y), positives=positives)
        self._words = "the covariates" if name == ALL else name
        varies = bool(len(self._y)) and any(one.varies for one in own)
        self._why = None if varies else f"{self._words} {'do' if name == ALL else 'does'} not vary"
        if not len(self._y):
            return
        self._jackknife = PatientJackknife(self._patients)
        self._z = design_of(own)
        self._regressions = Regressions(self._y, self._z, self._jackknife)
        self._strata = {s: own[0].stratum == s for s in own[0].strata} if len(own) == 1 else {}
        self._stratum = np.unique(own[0].stratum, return_inverse=True)[1]

    def leaning(self, a: Float[np.ndarray, " images"], fires: _Images, why: str | None) -> Leaning:
        """Without a verdict."""
        a, fires = standardised_within(a[self._known], self._fold), fires[self._known]
        few, degrees = _counted(fires, self._y, self._patients)
        why = few or self._why or why
        if not len(a):
            return self._made.model_copy(update={"no_interval": why})
        found = self._regressions.of(a)
        gap = Found(found.strength.value - abs(found.r.value), found.strength.left_out - np.abs(found.r.left_out))
        if why is None and not (found.r.defined and gap.defined):
            why = CONSTANT
        if why is None and not found.partial.defined:
            why = f"nothing of it or of {self._made.label} is left beside {self._words}"
        figures, reasons = self._values(a, found), {}
        strata = [self._told(name, here, a, fires, why) for name, here in self._strata.items()]
        if why is None:
            figures |= _intervals(found, gap, degrees)
            if "explained" not in figures:
                reasons["explained"] = _NO_R
            if strata:
                figures |= self._kept(a, degrees)
                if "kept" not in figures:
                    reasons["kept"] = _NO_AUROC if "auroc_within" in figures else _NO_PAIR
        told = [s for s in strata if s.no_interval is None and s.r is not None]
        figures["within"] = fisher_pooled([s.r for s in told if s.r is not None], [s.images for s in told])
        worst = min(told, key=lambda s: s.auroc or 0).stratum if told else None
        more: dict[str, Any] = {name: number(value) for name, value in figures.items()}
        more |= {"strata": strata, "worst": worst, "no_interval": why, "no_share": reasons}
        return self._made.model_copy(update=more)

    def _values(self, a: Float[np.ndarray, " images"], found: Regressed) -> dict[str, float]:
        signed = found.multiple.value
        if self._z.shape[1] == 1 and a @ (self._z[:, 0] - self._z[:, 0].mean()) < 0:
            signed = -signed
        values = {"r": found.r.value, "partial": found.partial.value, "with_covariate": signed}
        return {**values, "strength": found.strength.value, "auroc": self._auroc(a, self._fold)}

    def _auroc(self, a: Float[np.ndarray, " images"], part: Int[np.ndarray, " images"]) -> float:
        """Of pairs within a part."""
        return float(auroc_within_folds(a[:, None], self._y[:, None], part).item())

    def _auroc_left_out(self, a: Float[np.ndarray, " images"], part: Int[np.ndarray, " images"]) -> np.ndarray:
        return auroc_within_folds_left_out(self._jackknife, a[:, None], self._y[:, None], part)[:, 0]

    def _kept(self, a: Float[np.ndarray, " images"], degrees: float) -> dict[str, float]:
        """AUROC of pairs within a stratum, and how much of what AUROC is above 0.5 that is."""
        both = self._fold * (self._stratum.max() + 1) + self._stratum
        within, within_left_out = self._auroc(a, both), self._auroc_left_out(a, both)
        whole, whole_left_out = self._auroc(a, self._fold), self._auroc_left_out(a, self._fold)
        if not Found(within, within_left_out).defined:
            return {}
        figures = {"auroc_within": within}
        between = ratio_interval((within - 0.5, within_left_out - 0.5), (whole - 0.5, whole_left_out - 0.5), degrees)
        if between is not None and whole > 0.5:
            figures |= {"kept": (within - 0.5) / (whole - 0.5), "kept_low": between[0], "kept_high": between[1]}
        return figures

    def _told(
        self, name: str, here: _Images, a: Float[np.ndarray, " images"], fires: _Images, why: str | None
    ) -> Stratum:
        """r and AUROC in one stratum; none where it is too small for an interval."""
        a, y, patients, fold = a[here], self._y[here], self._patients[here], self._fold[here]
        why = _counted(fires[here], y, patients)[0] or why
        made = Stratum(stratum=name, images=len(a), positives=int((y == 1).sum()), no_interval=why)
        if why is not None:
            return made
        jackknife = PatientJackknife(patients)
        r = Regressions(y, np.zeros((len(a), 0)), jackknife).of(a).r
        auroc = float(auroc_within_folds(a[:, None], y[:, None], fold).item())
        left_out = auroc_within_folds_left_out(jackknife, a[:, None], y[:, None], fold)[:, 0]
        if not (r.defined and Found(auroc, left_out).defined):
            return made.model_copy(update={"no_interval": CONSTANT})
        images, showing = ((one(y == 1), one(y == 0)) for one in (_count, lambda some: _patients(patients[some])))
        low, high = auroc_interval(auroc, left_out, images, showing)
        return made.model_copy(update={"r": r.value, "auroc": auroc, "auroc_low": low, "auroc_high": high})


def _intervals(found: Regressed, gap: Found, degrees: float) -> dict[str, float]:
    """The intervals of r, partial r and the gap, the share explained, and p of what verdicts claim."""
    figures = {}
    for name, one in (("r", found.r), ("partial", found.partial)):
        figures[f"{name}_low"], figures[f"{name}_high"] = correlation_interval(one.value, one.left_out, degrees)
    figures["gap_low"], figures["gap_high"] = t_interval(gap.value, gap.left_out, degrees)
    figures["gap_p"] = p_above_zero(gap.value, gap.left_out, degrees)
    r, partial = found.r, found.partial
    figures["half_p"] = p_above_zero(r.value / 2 - partial.value, r.left_out / 2 - partial.left_out, degrees)
    between = ratio_interval((partial.value, partial.left_out), (r.value, r.left_out), degrees)
    if between is not None:
        low, high = between
        figures |= {"explained": 1 - partial.value / r.value, "explained_low": 1 - high, "explained_high": 1 - low}
    return figures


def _counted(fires: _Images, y: Float[np.ndarray, " images"], patients: np.ndarray) -> tuple[str | None, float]:
    """Why a figure of these images has no interval, and the degrees of freedom of one."""
    with_it, without, firing, every = (_patients(patients[some]) for some in (y == 1, y == 0, fires, y == y))
    why = reason_for_none(with_it, without, _patients(patients[fires & (y == 1)]), firing * with_it / max(every, 1))
    return why, float(max(min(with_it, without) - 1, 1))


def _count(some: _Images) -> float:
    return float(some.sum())


def _patients(patients: np.ndarray) -> float:
    return float(len(np.unique(patients)))
