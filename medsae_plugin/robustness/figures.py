"""From sums to figures: what perturbations keep of every unit, and of each label's top unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import sparse

from medsae_plugin.robustness.results import KeptR, RobustLabel, RobustUnits, Summary
from medsae_plugin.robustness.sums import Kept, PerturbedSums
from medsae_plugin.robustness.verdicts import Judged, judged, words_for
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.scoring import CONSTANT, HeldOut, Scored
from medsae_plugin.statistics.correlation import pearson_of
from medsae_plugin.statistics.intervals import LEAST_PATIENTS, t_interval

_NUMBERS = ("jaccard", "jaccard_low", "jaccard_high", "jaccard_chance", "r", "r_low", "r_high")


class Sources(NamedTuple):
    """Units, their sums, the activations of each label's top unit, and what was seen of the patients before."""

    scored: Scored
    sums: PerturbedSums
    tops: Float[np.ndarray, "images variants labels"]
    seen: str | None


def described(
    sources: Sequence[Sources], held_out: HeldOut, names: Sequence[str]
) -> tuple[list[RobustUnits], pd.DataFrame]:
    """What is said of each units, and a row a unit and perturbation."""
    made, frames = [], []
    for one in sources:
        units, rows = _described(one, held_out, names)
        made.append(units)
        frames.append(pd.DataFrame(rows))
    return made, pd.concat(frames, ignore_index=True).astype(dict.fromkeys(_NUMBERS, float))


def _described(source: Sources, held_out: HeldOut, names: Sequence[str]) -> tuple[RobustUnits, list[dict[str, Any]]]:
    units = source.scored.units
    kept = {name: source.sums.kept(k) for k, name in enumerate(names)}
    told = {name: [judged(of, unit) for unit in range(units.n)] for name, of in kept.items()}
    words = [words_for({name: of[unit].verdict for name, of in told.items()}) for unit in range(units.n)]
    enough = next(iter(kept.values())).groups_firing >= LEAST_PATIENTS
    hanging: dict[str, list[int | str | None]] = {}
    for unit in np.flatnonzero([bool(said) for said in words]).tolist():
        hanging.setdefault(words[unit], []).append(units.label(unit))
    made = RobustUnits(
        name=units.name,
        kind=units.kind,
        hook=units.hook,
        baseline_of=units.baseline_of,
        held_out_from=source.seen,
        units=units.n,
        judged=int(enough.sum()),
        perturbations={name: _summary(kept[name], told[name], enough) for name in names},
        top=_top(source, held_out, names, words),
        hangs_on=dict(sorted(hanging.items())),
    )
    rows = [
        _row(units.label(unit), name, kept[name], unit, told[name][unit], words[unit])
        | {"units": units.name, "kind": units.kind, "hook": units.hook}
        for name in names
        for unit in range(units.n)
    ]
    return made, rows


def _summary(kept: Kept, told: Sequence[Judged], enough: np.ndarray) -> Summary:
    verdicts = [of.verdict for of, is_judged in zip(told, enough, strict=True) if is_judged]
    medians = [_median(values[enough]) for values in (kept.jaccard, kept.chance, kept.r)]
    return Summary(
        jaccard=medians[0],
        jaccard_chance=medians[1],
        r=medians[2],
        keeps=verdicts.count("keeps"),
        changes=verdicts.count("changes"),
        cannot_say=len(verdicts) - verdicts.count("keeps") - verdicts.count("changes"),
    )


def _row(latent: int | str | None, name: str, kept: Kept, unit: int, told: Judged, words: str) -> dict[str, Any]:
    of_jaccard, of_r = told.jaccard_interval or (None, None), told.r_interval or (None, None)
    return {
        "latent": str(latent),
        "perturbation": name,
        "fired": int(kept.fired[unit]),
        "fired_perturbed": int(kept.fired_perturbed[unit]),
        "jaccard": number(kept.jaccard[unit]),
        "jaccard_low": of_jaccard[0],
        "jaccard_high": of_jaccard[1],
        "jaccard_chance": number(kept.chance[unit]),
        "r": number(kept.r[unit]),
        "r_low": of_r[0],
        "r_high": of_r[1],
        "no_interval": told.no_interval,
        "verdict": told.verdict,
        "hangs_on": words,
    }


def _top(source: Sources, held_out: HeldOut, names: Sequence[str], words: Sequence[str]) -> list[RobustLabel]:
    """Of each label its top unit's r on the images, and on each perturbation."""
    scored, labels, jackknife = source.scored, held_out.labels, held_out.jackknife
    plain = source.tops[:, 0].astype(np.float64)
    r, left_out = _r(plain, labels), jackknife.pearson(plain, labels)
    reasons = held_out.reasons_for_none(plain > 0)
    made = [
        RobustLabel(
            label=label,
            latent=scored.units.label(int(j)),
            r=number(r[c]) if j >= 0 else None,
            hangs_on=words[j] if j >= 0 else "",
        )
        for c, (label, j) in enumerate(zip(scored.label_names, scored.top.tolist(), strict=True))
    ]
    degrees = np.maximum(held_out.patients_showing.min(0) - 1, 1)
    for k, name in enumerate(names, 1):
        perturbed = source.tops[:, k].astype(np.float64)
        r_now, left_now = _r(perturbed, labels), jackknife.pearson(perturbed, labels)
        for c, one in enumerate(made):
            if one.latent is None:
                continue
            change = r_now[c] - r[c]
            kept = KeptR(r=number(r_now[c]), change=number(change), no_interval=reasons[c])
            without = left_now[:, c] - left_out[:, c]
            if kept.no_interval is None and np.isnan(without).any():
                kept.no_interval = CONSTANT
            if kept.no_interval is None:
                kept.change_low, kept.change_high = t_interval(float(change), without, float(degrees[c]))
            one.perturbed[name] = kept
    return made


def _r(
    activations: Float[np.ndarray, "images labels"], labels: Float[np.ndarray, "images labels"]
) -> Float[np.ndarray, " labels"]:
    """Of column c with label c."""
    return np.diagonal(pearson_of(sparse.csr_array(activations.T), labels)).copy()


def _median(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None
