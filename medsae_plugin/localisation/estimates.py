"""Means over images with intervals over patients, and whose regions stand in for chance."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from medsae_plugin.localisation.results import Figure
from medsae_plugin.scores.registry import number
from medsae_plugin.statistics.intervals import LEAST_PATIENTS, reason_for_none, t_interval
from medsae_plugin.statistics.jackknife import PatientJackknife

ROUNDS = 10
SAME = "the same on every image"


def other_patients(patients: Int[np.ndarray, " images"], seed: int) -> Int[np.ndarray, "rounds images"]:
    """Of each round and image, an image of another patient, all equally likely; no round where there is but one."""
    if len(np.unique(patients)) < 2:
        return np.zeros((0, len(patients)), dtype=np.int64)
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(np.flatnonzero(patients != own), ROUNDS) for own in patients], axis=1)


def estimate(
    values: Float[np.ndarray, " images"], chance: Float[np.ndarray, " images"], patients: Int[np.ndarray, " images"]
) -> Figure:
    """The mean over the images where a figure is known, with Student's t interval of the jackknife over patients."""
    known = ~np.isnan(values)
    if not known.any():
        return Figure(images=0, mean=None, no_interval="not defined on any image")
    values, chance, jackknife = values[known], chance[known], PatientJackknife(patients[known])
    made = Figure(images=int(known.sum()), mean=number(values.mean()))
    n = jackknife.n_patients
    made.no_interval = reason_for_none(float(n), float(LEAST_PATIENTS), float(n), float(n))
    if made.no_interval is None:
        made.interval = _interval(values, jackknife)
        made.no_interval = SAME if made.interval is None else None
    if not np.isnan(chance).any():
        made.chance, made.gain = number(chance.mean()), number((values - chance).mean())
        if n >= LEAST_PATIENTS:
            made.gain_interval = _interval(values - chance, jackknife)
    return made


def _interval(values: Float[np.ndarray, " images"], jackknife: PatientJackknife) -> tuple[float, float] | None:
    """None where all values are one, of which nothing tells how far it may be off."""
    if np.ptp(values) < 1e-12:
        return None
    return t_interval(float(values.mean()), jackknife.mean(values), float(jackknife.n_patients - 1))
