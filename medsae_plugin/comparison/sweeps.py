"""Training a grid of SAEs over one store, several in each pass over the data, comparing them, and choosing one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medsae_plugin.comparison.choosing import ordered, reason
from medsae_plugin.comparison.halving import Halving, Recommended, Rung, Sweep, candidates_of, swept_recipes
from medsae_plugin.comparison.results import Comparison
from medsae_plugin.comparison.run import compare
from medsae_plugin.comparison.winner import VAL
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.while_training import MeanTopR
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.text import differences
from medsae_plugin.training.checkpoints import Checkpoints
from medsae_plugin.training.defaults import fitted
from medsae_plugin.training.plan import Plan, training_bytes
from medsae_plugin.training.recipes import Recipe
from medsae_plugin.training.run import train_part
from medsae_plugin.training.specs import SAESpec, TrainingConfig
from medsae_plugin.training.watch import Watch

MEMORY = 4 * 2**30
"""Bytes that the SAEs of one pass may take while they train."""

PASSES, COMPARISON = "passes", "comparison"
ALL = Halving()


def sweep(
    store: ActivationStore,
    recipe: Recipe,
    table: ImageTable,
    out: str | Path,
    *,
    halving: Halving = ALL,
    memory: int = MEMORY,
    progress: bool = True,
    **options: Any,
) -> Comparison:
    """Train the SAEs of a recipe (`train_grid`), compare those that reach the end, and recommend one of each hook.

    What it chooses it chooses on the split `val`: in rungs by the figures of training on a sample of it, in the end by
    those of the comparison on the whole of it. See `choosing` for how.

    Args:
        out: a folder, for what `train_grid` writes, and `comparison/`. `Sweep.open(out)` is what it chose and why.
        halving: by default all SAEs are trained to the end.
        options: further arguments of `compare`.

    Returns:
        What `compare` does.

    Raises:
        MedSAEError: what `train_grid` and `compare` refuse; with halving, what `MeanTopR` refuses.
    """
    paths = train_grid(store, recipe, out, table=table, halving=halving, memory=memory, progress=progress)
    comparison = compare(store, paths, table, Path(out) / COMPARISON, progress=progress, **options)
    swept = Sweep.open(out)
    swept.recommended = recommend(swept, comparison)
    swept.save(out)
    return comparison


def train_grid(
    store: ActivationStore,
    recipe: Recipe,
    out: str | Path,
    *,
    table: ImageTable | None = None,
    halving: Halving = ALL,
    memory: int = MEMORY,
    progress: bool = True,
) -> list[Path]:
    """Train the SAEs of a recipe, as many in one pass over the store as `memory` holds.

    Run again with the same arguments, it goes on where it was stopped: a finished pass is not trained again, an
    unfinished one continues from its last checkpoint. An SAE that reaches the end is the same as without halving. One
    that diverges ends, with its recipe, and is told; the others go on.

    Args:
        recipe: of `load_grid`, or of `load_recipe`.
        out: a folder, for `passes/00/` and so on, each of them what `train_saes` writes, and `sweep.json`.
        table: with labels, for the choice of a halving.
        memory: bytes; see `training_bytes`.

    Returns:
        The folder of each SAE that is finished, in the recipe's order.

    Raises:
        MedSAEError: what `train_saes` refuses; an SAE that alone does not fit in `memory`; `out` holds another sweep;
            every SAE diverged; too few steps for the rungs, or no table.
    """
    there = fitted(store, recipe.specs)
    passes = pack(store, there, recipe.config, memory)
    grid = [
        _Pass(specs, Path(out) / PASSES / f"{k:02d}", halving.steps(Plan.of(store, specs, recipe.config).config.steps))
        for k, specs in enumerate(passes)
    ]
    swept = _begun(store, there, halving, table, Path(out))
    top_r, say = _top_r(store, table) if halving.rungs > 1 else None, Watch(1, 1, progress).say
    for k, rung in enumerate(swept.rungs):
        going = {sae for one in swept.going(k) for sae in one.saes}
        for number, at in enumerate(grid, 1):
            mine = [name for name in at.names if name in going]
            if all(name in rung.figures or name in rung.diverged for name in mine):
                continue
            if halving.rungs > 1:
                what = f"rung {k + 1} of {halving.rungs}, pass {number} of {len(grid)}"
                say(f"{what}: {len(mine)} SAE(s) to step {at.steps[k]:,}")
            trained = train_part(
                store, at.specs, recipe.config, at.folder, names=mine, steps=at.steps[k], top_r=top_r, progress=progress
            )
            rung.take(mine, trained)
            swept.save(out)
        if k + 1 < halving.rungs:
            swept.choose(k)
            swept.save(out)
        _tidy(swept, k, grid)
    return _finished(swept, grid)


class _Pass(NamedTuple):
    """SAEs that are trained together, their folder, and the step at which each rung ends."""

    specs: list[SAESpec]
    folder: Path
    steps: list[int]

    @property
    def names(self) -> list[str]:
        return [spec.name for spec in self.specs]


def recommend(swept: Sweep, comparison: Comparison) -> list[Recommended]:
    """Of each hook that had several recipes the best of those that were trained to the end, by its figures on `val`."""
    hooks = {hook: recipes for hook, recipes in swept.hooks.items() if len(recipes) > 1}
    on_val = {sae.name: sae.val for sae in comparison.saes if sae.kind == "sae"}
    made = []
    for hook, recipes in hooks.items():
        candidates = candidates_of(recipes, on_val.get)
        if comparison.ranked_on != VAL:
            why = (
                f"there are no images of a split {VAL!r}, of other patients than those that latents are chosen and "
                "reported on, to choose on: a choice on the reported images would flatter its figures."
            )
            made.append(Recommended(hook=hook, recipe=None, on=comparison.ranked_on, reason=why))
        elif not candidates:
            made.append(Recommended(hook=hook, recipe=None, on=VAL, reason="no recipe was trained to the end."))
        else:
            best = ordered(candidates)[0].candidate
            (saes,) = [r.saes for r in recipes if r.name == best.name]
            why = reason(candidates, VAL)
            made.append(
                Recommended(hook=hook, recipe=best.name, saes=saes, on=VAL, figures=dict(best.figures), reason=why)
            )
    return made


def pack(
    store: ActivationStore, specs: Sequence[SAESpec], config: TrainingConfig, memory: int = MEMORY
) -> list[list[SAESpec]]:
    """The specs in their order, in as few passes as the memory bound allows without changing that order.

    Raises:
        MedSAEError: an SAE that alone does not fit.
    """
    passes: list[list[SAESpec]] = []
    used = 0
    for spec in specs:
        needed = training_bytes(store.hooks[spec.hook].d, spec, config)
        if needed > memory:
            raise MedSAEError(
                f"SAE {spec.name} takes {needed / 2**30:.3g} GiB to train, more than the bound of "
                f"{memory / 2**30:.3g} GiB; raise the bound, or make it narrower"
            )
        if not passes or used + needed > memory:
            passes.append([])
            used = 0
        passes[-1].append(spec)
        used += needed
    return passes


def _begun(
    store: ActivationStore, specs: Sequence[SAESpec], halving: Halving, table: ImageTable | None, out: Path
) -> Sweep:
    """The sweep in `out`, as far as it came, or a new one.

    Raises:
        MedSAEError: it is another one.
    """
    new = Sweep.model_validate(
        {
            "schema": 1,
            "keep": halving.keep,
            "labels": list(table.label_names) if table is not None and halving.rungs > 1 else [],
            "recipes": swept_recipes(specs, {hook: info.d for hook, info in store.hooks.items()}),
            "rungs": [Rung(share=share) for share in halving.shares],
        }
    )
    if not (out / Sweep.FILE).is_file():
        return new
    there = Sweep.open(out)
    if lines := differences(_settings(there), _settings(new), "the folder"):
        raise MedSAEError("\n".join([f"{out} holds another sweep; choose another folder, or mend:", *lines]))
    return there


def _settings(swept: Sweep) -> dict[str, Any]:
    saes = {sae: recipe.name for recipe in swept.recipes for sae in recipe.saes}
    shares = [rung.share for rung in swept.rungs]
    return {"keep": swept.keep, "rungs": shares, "labels": swept.labels, "recipe of": saes}


def _top_r(store: ActivationStore, table: ImageTable | None) -> MeanTopR:
    if table is None:
        raise MedSAEError("halving chooses by the mean top r as well, and needs a table with labels")
    return MeanTopR(store, table)


def _tidy(swept: Sweep, k: int, grid: Sequence[_Pass]) -> None:
    """Remove the checkpoints to go on from, of passes of which nothing goes on after rung k."""
    going = {sae for recipe in swept.going(k + 1) for sae in recipe.saes}
    for at in grid:
        if not going & set(at.names):
            Checkpoints(at.folder, 0.0).finish()


def _finished(swept: Sweep, grid: Sequence[_Pass]) -> list[Path]:
    """Raises MedSAEError if there is none."""
    last = swept.rungs[-1]
    paths = [at.folder / name for at in grid for name in at.names if last.seeds(name) is not None]
    if not paths:
        raise MedSAEError("\n".join(["no SAE of the sweep was trained to the end:", *swept.diverged]))
    return paths
