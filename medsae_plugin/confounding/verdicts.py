"""What figures of leaning say in words; docs/confounders.md has the rules, `benchmarks/calibration_confounders.py` how
often they are wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medsae_plugin.confounding.results import ALL, TOO_FEW, Leaning
from medsae_plugin.scores.cross_fitting import NOT_ABOVE
from medsae_plugin.statistics.multiple import holm

_LEVEL = 0.025  # one-sided, as that of a side of a 95 % interval


def with_verdicts(found: Sequence[Leaning]) -> list[Leaning]:
    """The same unit and label beside all covariates, with verdicts, p corrected over them (`holm`)."""
    corrected = {
        name: holm(np.array([getattr(one, name) for one in found], dtype=np.float64)) for name in ("gap_p", "half_p")
    }
    made = []
    for k, one in enumerate(found):
        p = {name: None if np.isnan(values[k]) else float(values[k]) for name, values in corrected.items()}
        one = one.model_copy(update=p)
        made.append(one.model_copy(update={"verdict": verdict(one)}))
    return made


def verdict(found: Leaning) -> str:
    """In words, by the first rule that applies."""
    if found.no_interval == NOT_ABOVE:
        return f"not shown to follow {found.label}"
    if found.no_interval is not None:
        return f"{TOO_FEW}: {found.no_interval}"
    assert found.r_low is not None and found.partial_low is not None
    assert found.gap_p is not None and found.half_p is not None
    words = "the covariates" if found.covariate == ALL else found.covariate
    if found.gap_p < _LEVEL:
        return f"follows {words} more than {found.label}"
    if found.r_low <= 0:  # a latent is chosen for a positive r
        return f"not shown to follow {found.label}"
    if found.half_p < _LEVEL:
        return f"mostly explained by {words}"
    if found.partial_low <= 0:
        return f"{TOO_FEW}: r beside {words} may be 0"
    return "holds beside all covariates" if found.covariate == ALL else _of_strata(found)


def _of_strata(found: Leaning) -> str:
    told = [s for s in found.strata if s.no_interval is None]
    if len(told) < 2:
        return f"{TOO_FEW}: {len(told)} of {len(found.strata)} strata are large enough"
    held = [s for s in told if (s.auroc_low or 0) > 0.5]
    small = len(found.strata) - len(told)
    beside = f" of {len(told)} ({small} more too small)" if small else ""
    if len(held) == len(told):
        return f"holds in every stratum{beside}"
    return f"not shown in {', '.join(s.stratum for s in told if s not in held)}"
