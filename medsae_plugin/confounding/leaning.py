"""One latent, one label, one covariate: what the latent leans on, in figures and in words."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from medsae_plugin.confounding.partial import Covariate, Found, fisher_pooled, multiple_r, partial_r
from medsae_plugin.confounding.results import Leaning, Stratum
from medsae_plugin.scores.ranking import aurocs
from medsae_plugin.scores.registry import number
from medsae_plugin.statistics.intervals import auroc_interval, correlation_interval, reason_for_none, t_interval
from medsae_plugin.statistics.jackknife import PatientJackknife

TOO_FEW = "too few to say"
CONSTANT = "it is constant without one of the patients"


def leaning(
    a: Float[np.ndarray, " images"],
    y: Float[np.ndarray, " images"],
    patients: Shaped[np.ndarray, " images"],
    covariate: Covariate,
    label: str,
) -> Leaning:
    """What `Leaning` holds of an activation and a label, over the images where label and covariate are known."""
    known = ~np.isnan(y) & covariate.known
    a, y, patients, own = a[known].astype(np.float64), y[known], patients[known], covariate.rows(known)
    made = Leaning(label=label, covariate=covariate.name, images=len(a), positives=int((y == 1).sum()))
    why, degrees = _counted(a, y, patients)
    if len(own.strata) < 2:
        why = why or f"{covariate.name} does not vary"
    if not len(a):
        return made.model_copy(update={"no_interval": why, "verdict": f"{TOO_FEW}: {why}"})
    jackknife = PatientJackknife(patients)
    z = own.design
    raw, partial = partial_r(a, y, z[:, :0], jackknife), partial_r(a, y, z, jackknife)
    eta, strength = multiple_r(a, z, jackknife)
    signed = partial_r(a, z[:, 0], z[:, :0], jackknife).value if z.shape[1] == 1 else eta.value
    gap = Found(strength.value - abs(raw.value), strength.left_out - np.abs(raw.left_out))
    if why is None and any(np.isnan(one.left_out).any() for one in (raw, partial, gap)):
        why = CONSTANT
    figures = {"r": raw.value, "partial": partial.value, "with_covariate": signed, "strength": strength.value}
    if why is None:
        for name, one in (("r", raw), ("partial", partial)):
            figures[f"{name}_low"], figures[f"{name}_high"] = correlation_interval(one.value, one.left_out, degrees)
        figures["gap_low"], figures["gap_high"] = t_interval(gap.value, gap.left_out, degrees)
        if figures["r_low"] > 0 or figures["r_high"] < 0:
            figures["explained"] = 1 - partial.value / raw.value
    strata = [stratum_of(s, a, y, patients, own.stratum == s) for s in own.strata]
    told = [s for s in strata if s.no_interval is None and s.r is not None]
    figures["within"] = fisher_pooled([s.r for s in told if s.r is not None], [s.images for s in told])
    worst = min(told, key=lambda s: s.auroc or 0).stratum if told else None
    found = {name: number(value) for name, value in figures.items()}
    made = made.model_copy(update={**found, "strata": strata, "worst": worst, "no_interval": why})
    return made.model_copy(update={"verdict": verdict(made)})


def stratum_of(
    name: str, a: np.ndarray, y: np.ndarray, patients: np.ndarray, here: Shaped[np.ndarray, " images"]
) -> Stratum:
    """r and AUROC in one stratum; none where it is too small for an interval."""
    a, y, patients = a[here], y[here], patients[here]
    why, _ = _counted(a, y, patients)
    made = Stratum(stratum=name, images=len(a), positives=int((y == 1).sum()), no_interval=why)
    if why is not None:
        return made
    jackknife = PatientJackknife(patients)
    r = partial_r(a, y, np.zeros((len(a), 0)), jackknife)
    left_out = jackknife.auroc(a[:, None], y[:, None])[:, 0]
    if np.isnan(r.left_out).any():
        return made.model_copy(update={"no_interval": CONSTANT})
    present = y == 1
    auroc = _auroc(a, present)
    showing = tuple(float(len(np.unique(patients[some]))) for some in (present, ~present))
    low, high = auroc_interval(auroc, left_out, (float(present.sum()), float((~present).sum())), showing)  # type: ignore[arg-type]
    return made.model_copy(update={"r": r.value, "auroc": auroc, "auroc_low": low, "auroc_high": high})


def verdict(found: Leaning) -> str:
    """In words, by the first rule that applies; see docs/confounders.md."""
    if found.no_interval is not None:
        return f"{TOO_FEW}: {found.no_interval}"
    assert found.r_low is not None and found.gap_low is not None
    if found.gap_low > 0:
        return f"follows {found.covariate} more than {found.label}"
    if found.r_low <= 0:  # a latent is chosen for a positive r
        return f"does not follow {found.label} here"
    told = [s for s in found.strata if s.no_interval is None]
    assert found.partial_low is not None
    if found.partial_low <= 0:
        return f"explained by {found.covariate}"
    if len(told) < 2:
        return f"{TOO_FEW}: {len(told)} of {len(found.strata)} strata are large enough"
    held = [s for s in told if (s.auroc_low or 0) > 0.5]
    small = len(found.strata) - len(told)
    beside = f" of {len(told)} ({small} more too small)" if small else ""
    if len(held) == len(told):
        return f"holds in every stratum{beside}"
    return f"not shown in {', '.join(s.stratum for s in told if s not in held)}"


def _counted(a: np.ndarray, y: np.ndarray, patients: np.ndarray) -> tuple[str | None, float]:
    """Why a figure of these images has no interval, and the degrees of freedom of one."""
    with_it, without, fires, every = (
        float(len(np.unique(patients[some]))) for some in (y == 1, y == 0, a != 0, np.ones(len(a), dtype=bool))
    )
    together = float(len(np.unique(patients[(a != 0) & (y == 1)])))
    why = reason_for_none(with_it, without, together, fires * with_it / max(every, 1))
    return why, float(max(min(with_it, without) - 1, 1))


def _auroc(a: np.ndarray, present: np.ndarray) -> float:
    return float(aurocs(a[:, None], present[:, None].astype(np.float64)).item())
