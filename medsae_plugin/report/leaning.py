"""What a report shows of `medsae confounders`: what latents lean on, as the page needs it."""

from __future__ import annotations

from typing import Any

from medsae_plugin.confounding.results import ALL, Confounders, Leaning, LeaningUnits

_FIGURES = ("r", "r_low", "r_high", "with_covariate", "partial", "partial_low", "partial_high", "within", "explained",
            "kept")  # fmt: skip


def beside(found: Confounders | None) -> dict[str, Any] | None:
    """What stands beside SAEs: of each hook the neurons' and the probe's top rows, with the words of the whole."""
    if found is None:
        return None
    return {
        "covariates": [*found.covariates, *([ALL] if len(found.covariates) > 1 else [])],
        "lacking": found.lacking,
        "report": found.report.model_dump(mode="json"),
        "folds": found.report.folds,
        "beside": [_units(one) for one in found.units if one.kind != "sae"],
    }


def of_sae(found: Confounders | None, name: str) -> list[dict[str, Any]] | None:
    """The rows of an SAE; None where it was not looked at."""
    if found is None:
        return None
    return next((_units(one)["rows"] for one in found.units if one.kind == "sae" and one.name == name), None)


def _units(units: LeaningUnits) -> dict[str, Any]:
    return {
        "name": units.name,
        "kind": units.kind,
        "hook": units.hook,
        "rows": [_row(one) for one in units.leanings],
    }


def _row(one: Leaning) -> dict[str, Any]:
    worst = one.worst_stratum
    return {
        **one.model_dump(include={"label", "covariate", "latent", "chosen_in", "top", "images", "verdict"}),
        **{name: _rounded(getattr(one, name)) for name in _FIGURES},
        "leans": one.leans,
        "worst": None if worst is None else [worst.stratum, _rounded(worst.auroc)],
    }


def _rounded(x: float | None) -> float | None:
    return None if x is None else round(x, 3)
