"""Rows of `calibration.py` on verdicts of `medsae confounders`: how often they say what is not so, and what is.

Patients have images as CheXpert's do, 2.8 on average. Sex is a patient's, age too, projection an image's with an
intraclass correlation; a finding goes with sex and projection. A unit follows the finding, one covariate, both, or
neither, with normal noise that a patient's images share.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
from calibration_simulated import Found, Row, Settings, chexpert_sizes, correlated, patients_of

from medsae_plugin.confounding.covariates import Covariate
from medsae_plugin.confounding.leaning import LabelBeside
from medsae_plugin.confounding.results import Leaning

FINDING = "Effusion"
ICC = 0.5
GOES_WITH = 0.6  # the correlation of what underlies the finding with what underlies projection; half of it with sex
# What a unit follows: weights of the finding, of sex (a patient's), of projection (an image's); the rest is noise.
UNITS = {
    "the finding only": (1.0, 0.0, 0.0),
    "the finding only, weakly": (0.4, 0.0, 0.0),
    "sex only": (0.0, 1.0, 0.0),
    "projection only": (0.0, 0.0, 1.0),
    "finding and sex alike": (0.8, 0.8, 0.0),
    "neither": (0.0, 0.0, 0.0),
}


@cache
def _simulated(settings: Settings, patients: int, what: str) -> list[dict[str, Leaning]]:
    rng = np.random.default_rng(settings.seed)
    return [_trial(rng, patients, UNITS[what]) for _ in range(settings.replications(15, 400))]


def _trial(rng: np.random.Generator, n_patients: int, weights: tuple[float, float, float]) -> dict[str, Leaning]:
    """A unit beside each covariate, and all at once."""
    patients = patients_of(np.minimum(chexpert_sizes(rng, n_patients), 20))
    male = (rng.random(n_patients) < 0.5)[patients]
    lying = correlated(rng, patients, 1, ICC)[:, 0]
    own = correlated(rng, patients, 1, ICC)[:, 0]
    left = np.sqrt(1 - 1.25 * GOES_WITH**2)
    y = (GOES_WITH * lying + GOES_WITH * (male - 0.5) + left * own > 0.7).astype(np.float64)
    ap = lying > 0.5
    signal = sum(w * (x - x.mean()) / x.std() for w, x in zip(weights, (y, male * 1.0, ap * 1.0), strict=True))
    a = signal + 1.5 * correlated(rng, patients, 1, ICC)[:, 0]
    age = np.round(rng.uniform(18, 95, n_patients))[patients]
    covariates = [
        Covariate.of(pd.Series(np.where(male, "M", "F"), name="sex")),
        Covariate.of(pd.Series(age, name="age")),
        Covariate.of(pd.Series(np.where(ap, "AP", "PA"), name="projection")),
    ]
    return {one.covariate: one for one in LabelBeside(FINDING, y, patients, covariates).leanings(a)}


def _any(words: str | tuple[str, ...], *covariates: str) -> Callable[[dict[str, Leaning]], bool]:
    """Whether the verdict on any of these covariates (of all, where none is named) begins so."""
    return lambda found: any(
        one.verdict.startswith(words) for name, one in found.items() if name in covariates or not covariates
    )


def _rate(patients: int, what: str, happens: Callable[[dict[str, Leaning]], bool]) -> Callable[[Settings], Found]:
    def find(settings: Settings) -> Found:
        trials = _simulated(settings, patients, what)
        return Found(sum(map(happens, trials)), len(trials))

    return find


_MORE, _MOSTLY, _HOLDS = "follows", "mostly explained", "holds"
_WRONG = [
    ("the finding only", "follows a covariate more, or mostly explained", _any((_MORE, _MOSTLY))),
    ("the finding only, weakly", "follows a covariate more, or mostly explained", _any((_MORE, _MOSTLY))),
    ("sex only", "holds beside sex", _any(_HOLDS, "sex", "all")),
    ("projection only", "holds beside projection", _any(_HOLDS, "projection", "all")),
    ("finding and sex alike", "follows sex more", _any(_MORE, "sex")),
    ("finding and sex alike", "mostly explained by sex", _any(_MOSTLY, "sex")),
    ("neither", "follows a covariate more, or mostly explained", _any((_MORE, _MOSTLY))),
    ("neither", "holds", _any(_HOLDS)),
]
_RIGHT = [
    ("the finding only", "holds in every stratum of sex", _any(_HOLDS, "sex")),
    ("the finding only, weakly", "holds in every stratum of sex", _any(_HOLDS, "sex")),
    ("sex only", "follows sex more", _any(_MORE, "sex")),
    ("projection only", "follows projection more", _any(_MORE, "projection")),
]

ROWS = [
    Row(f"confounders, {n} patients, a unit of {what}: {words}", nominal, "-", _rate(n, what, happens))
    for n in (150, 600)
    for nominal, cases in (("at most 0.025", _WRONG), ("1, power", _RIGHT))
    for what, words, happens in cases
]
