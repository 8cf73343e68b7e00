"""Rows of `calibration.py` on cross-fitting: chance of the whole procedure, and the intervals that are given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from calibration_simulated import Found, Row, Settings
from scipy import sparse

from medsae_plugin.data.splits import folds_by_patient
from medsae_plugin.scores.cross_fitting import cross_fitted_r
from medsae_plugin.statistics.permutation import patient_shuffles

PATIENTS, LATENTS, PREVALENCE, SHUFFLES = 200, 300, 0.2, 99


def _case(rng: np.random.Generator, r: float) -> tuple[sparse.csr_array, np.ndarray]:
    """Normal latents `(latents, patients)`, of which the first has this r with the label `(patients, 1)`."""
    label = np.zeros((PATIENTS, 1))
    label[rng.choice(PATIENTS, round(PREVALENCE * PATIENTS), replace=False)] = 1
    latents = rng.normal(size=(LATENTS, PATIENTS))
    latents[0] += r / np.sqrt(PREVALENCE * (1 - PREVALENCE) * (1 - r**2)) * label[:, 0]
    return sparse.csr_array(latents), label


def _trial(rng: np.random.Generator, r: float, k: int, seed: int) -> tuple[float, float, float]:
    """The cross-fitted r, the mean of the chosen latents' own, and p of the whole procedure."""
    values, label = _case(rng, r)
    names = [str(i) for i in range(PATIENTS)]
    fold, eligible = folds_by_patient(names, k, seed, label), np.ones((k, LATENTS), dtype=bool)
    found, tops = cross_fitted_r(values, label, fold, eligible)
    shuffled = np.concatenate([label[order] for order in patient_shuffles(names, SHUFFLES, seed)], axis=1)
    null, _ = cross_fitted_r(values, shuffled, fold, eligible)
    return float(found[0]), r * float((tops == 0).mean()), (1 + (null >= found[0]).sum()) / (1 + SHUFFLES)


def _significant(k: int) -> Callable[[Settings], Found]:
    def find(settings: Settings) -> Found:
        rng, n = np.random.default_rng(settings.seed), settings.replications(60, 600)
        return Found(sum(_trial(rng, 0.0, k, seed)[2] < 0.05 for seed in range(n)), n)

    return find


def _missed(r: float) -> Callable[[Settings], Found]:
    """Labels that are given an interval, since p < 0.05, by Fisher's z, and it does not hold what was chosen."""

    def find(settings: Settings) -> Found:
        rng, n, times = np.random.default_rng(settings.seed), settings.replications(40, 400), 0
        for seed in range(n):
            found, true, p = _trial(rng, r, 5, seed)
            times += p < 0.05 and abs(np.arctanh(found) - np.arctanh(true)) * np.sqrt(PATIENTS - 3) > 1.96
        return Found(times, n)

    return find


ROWS = [
    *(Row(f"cross-fitted r, {k} folds, null latents: p < 0.05", "0.05", before, _significant(k))
      for k, before in ((5, "0.12, choices held"), (10, "0.16, choices held"))),
    *(Row(f"cross-fitted r, true r {r}: a label whose interval is given and misses", "0.05", "-", _missed(r))
      for r in (0.0, 0.2, 0.3, 0.5)),
]  # fmt: skip
