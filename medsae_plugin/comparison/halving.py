"""Successive halving: which recipes of a sweep go on after a part of their training, and what a sweep chose."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, Field

from medsae_plugin._version import __version__
from medsae_plugin.comparison.choosing import WORDS, Candidate, going_on, mean_figures, ordered
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.models import Result, is_not_sparse
from medsae_plugin.text import aligned
from medsae_plugin.training.run import Trained
from medsae_plugin.training.specs import SAESpec

Seeds = Callable[[str], "dict[str, float | None] | None"]
"""Of an SAE its figures, by name; None of one that has none: it diverged, or did not come so far."""


@dataclass(frozen=True)
class Halving:
    """Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): of the recipes of a hook the best share
    `keep` goes on after each rung but the last.

    rungs: parts of the training, at the shares keep^(rungs - 1), ..., keep, 1 of its steps; 1 trains all to the end.
    """

    rungs: int = 1
    keep: float = 0.5

    def __post_init__(self) -> None:
        if self.rungs < 1:
            raise MedSAEError(f"{self.rungs} rungs are none; 1 trains every SAE to the end")
        if not 0 < self.keep < 1:
            raise MedSAEError(f"the share that goes on, {self.keep:g}, is not between 0 and 1")

    @property
    def shares(self) -> list[float]:
        return [self.keep ** (self.rungs - 1 - k) for k in range(self.rungs)]

    def steps(self, whole: int) -> list[int]:
        """At which step of so many each rung ends.

        Raises:
            MedSAEError: there are too few for so many rungs.
        """
        steps = [math.ceil(whole * share) for share in self.shares]
        if len(set(steps)) < len(steps):
            raise MedSAEError(
                f"{whole:,} steps are too few for {self.rungs} rungs, which would end at steps "
                f"{', '.join(map(str, steps))}; take fewer rungs, or train for longer"
            )
        return steps


class SweptRecipe(BaseModel):
    """SAEs of a hook that differ in their seed alone; d_sae: their latents."""

    name: str
    hook: str
    d_sae: int
    saes: list[str]


class Rung(BaseModel):
    """What was measured after a share of the training.

    figures: of each SAE on the validation sample of its training. diverged: SAEs that have nan or infinity among their
        weights. goes_on: the recipes that were trained on; None while there is more to measure, and of the last rung.
    """

    share: float
    figures: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    diverged: list[str] = Field(default_factory=list)
    goes_on: list[str] | None = None

    def take(self, saes: Sequence[str], trained: Trained) -> None:
        """What a part of a training came to for these SAEs."""
        self.diverged += trained.diverged
        self.figures |= {
            sae: mean_figures([trained.figures.get(sae, {})]) for sae in saes if sae not in trained.diverged
        }

    def seeds(self, sae: str) -> dict[str, float | None] | None:
        return None if sae in self.diverged else self.figures.get(sae)


class Recommended(BaseModel):
    """Of a hook the recipe to take, by its figures on the split `on`, with the reason in words; None for none."""

    hook: str
    recipe: str | None
    saes: list[str] = Field(default_factory=list)
    on: str
    figures: dict[str, float | None] = Field(default_factory=dict)
    reason: str


class Sweep(Result):
    """How a sweep went: rungs, what went on, and what it recommends. Figures on `report` are in its comparison."""

    FILE: ClassVar[str] = "sweep.json"
    COMMAND: ClassVar[str] = "medsae sweep"

    schema_version: int = Field(1, alias="schema")
    medsae_plugin: str = __version__
    keep: float
    labels: list[str]
    recipes: list[SweptRecipe]
    rungs: list[Rung]
    recommended: list[Recommended] = Field(default_factory=list)

    @property
    def hooks(self) -> dict[str, list[SweptRecipe]]:
        return {r.hook: [x for x in self.recipes if x.hook == r.hook] for r in self.recipes}

    def going(self, k: int) -> list[SweptRecipe]:
        """The recipes that are trained in rung k."""
        if k == 0:
            return self.recipes
        names = self.rungs[k - 1].goes_on or []
        return [recipe for recipe in self.recipes if recipe.name in names]

    def choose(self, k: int) -> None:
        """Decide who goes on after rung k, of each hook by itself. A recipe of which an SAE diverged does not."""
        rung, names = self.rungs[k], []
        for hook in self.hooks:
            entered = [recipe for recipe in self.going(k) if recipe.hook == hook]
            if candidates := candidates_of(entered, rung.seeds):
                names += going_on(candidates, self.keep, len(entered))
        rung.goes_on = names

    @property
    def diverged(self) -> list[str]:
        """Words for each SAE that diverged."""
        return [
            f"{sae} diverged by {_share(rung.share)} of its training (nan or infinity among its weights) and ends "
            "there; a lower learning rate may hold"
            for rung in self.rungs
            for sae in rung.diverged
        ]

    def __str__(self) -> str:
        parts = [self._rung(k) for k in range(len(self.rungs) - 1)]
        parts.append("\n".join(self.diverged))
        parts += [f"Recommended at {r.hook}: {r.recipe or 'none'}\n{r.reason}" for r in self.recommended]
        return "\n\n".join(part for part in parts if part)

    def _rung(self, k: int) -> str:
        rung = self.rungs[k]
        rows = [["recipe", "explained", "L0", "dead", "mean top r", "front", "mean rank", "goes on"]]
        for hook in self.hooks:
            entered = [recipe for recipe in self.going(k) if recipe.hook == hook]
            for at in ordered(candidates_of(entered, rung.seeds)):
                f = at.candidate.figures
                told = [_form(f.get(key), form) for key, form in _FORMS.items()]
                told += [str(at.front), f"{at.mean_rank:.2f}", "*" if at.candidate.name in (rung.goes_on or ()) else ""]
                rows.append([at.candidate.name, *told])
        title = f"Rung {k + 1} of {len(self.rungs)}, after {_share(rung.share)} of the training, on a sample of val"
        note = (
            f"goes on: of each hook the best {self.keep:.3g} of the recipes, sparse ones that explain something first, "
            f"then by the front of {WORDS}, on a front by the mean rank over these four."
        )
        return "\n".join([title, *aligned(rows, rule_after=(1,)), note])


_FORMS = {"explained_variance": ".3f", "l0": ".1f", "dead": ".1%", "mean_top_r": ".3f"}


def swept_recipes(specs: Sequence[SAESpec], widths: dict[str, int]) -> list[SweptRecipe]:
    """Specs that differ in their seed alone together; widths: d of each hook."""
    groups: dict[str, list[SAESpec]] = {}
    for spec in specs:
        made = {key: value for key, value in spec.fields().items() if key not in ("name", "seed")}
        groups.setdefault(json.dumps(made, sort_keys=True), []).append(spec)
    return [
        SweptRecipe(
            name=first.name if len(group) == 1 else f"{first.name} ({len(group)} seeds)",
            hook=first.hook,
            d_sae=first.width(widths[first.hook]),
            saes=[spec.name for spec in group],
        )
        for group in groups.values()
        for first in group[:1]
    ]


def candidates_of(recipes: Sequence[SweptRecipe], seeds: Seeds) -> list[Candidate]:
    """Those of which every SAE has figures."""
    made = []
    for recipe in recipes:
        figures = [seeds(sae) for sae in recipe.saes]
        if (known := [f for f in figures if f is not None]) and len(known) == len(figures):
            means = mean_figures(known)
            made.append(Candidate(recipe.name, means, not is_not_sparse(means["l0"], recipe.d_sae)))
    return made


def _share(share: float) -> str:
    return "the whole" if share == 1 else f"{share:.3g}"


def _form(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
