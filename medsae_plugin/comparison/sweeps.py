"""Training a grid of SAEs over one store, several in each pass over the data, and comparing them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsae_plugin.comparison.results import Comparison
from medsae_plugin.comparison.run import compare
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.defaults import fitted
from medsae_plugin.training.plan import training_bytes
from medsae_plugin.training.recipes import Recipe
from medsae_plugin.training.run import train_saes
from medsae_plugin.training.specs import SAESpec, TrainingConfig

MEMORY = 4 * 2**30
"""Bytes that the SAEs of one pass may take while they train."""

PASSES, COMPARISON = "passes", "comparison"


def sweep(
    store: ActivationStore,
    recipe: Recipe,
    table: ImageTable,
    out: str | Path,
    *,
    memory: int = MEMORY,
    progress: bool = True,
    **options: Any,
) -> Comparison:
    """Train the SAEs of a recipe (`train_grid`), and compare them.

    Args:
        out: a folder, for what `train_grid` writes, and `comparison/`.
        options: further arguments of `compare`.

    Returns:
        What `compare` does.

    Raises:
        MedSAEError: what `train_grid` and `compare` refuse.
    """
    paths = train_grid(store, recipe, out, memory=memory, progress=progress)
    return compare(store, paths, table, Path(out) / COMPARISON, progress=progress, **options)


def train_grid(
    store: ActivationStore, recipe: Recipe, out: str | Path, *, memory: int = MEMORY, progress: bool = True
) -> list[Path]:
    """Train the SAEs of a recipe, as many in one pass over the store as `memory` holds.

    Run again with the same arguments, it goes on where it was stopped: a finished pass is not trained again, an
    unfinished one continues from its last checkpoint (`n_checkpoints` of the recipe's training).

    Args:
        recipe: of `load_grid`, or of `load_recipe`.
        out: a folder, for `passes/00/` and so on, each of them what `train_saes` writes.
        memory: bytes; see `training_bytes`.

    Returns:
        The folder of each SAE, in the recipe's order.

    Raises:
        MedSAEError: what `train_saes` refuses; an SAE that alone does not fit in `memory`.
    """
    there = fitted(store, recipe.specs)
    paths: list[Path] = []
    for k, specs in enumerate(pack(store, there, recipe.config, memory)):
        folder = Path(out) / PASSES / f"{k:02d}"
        paths += train_saes(store, specs, recipe.config, folder, progress=progress).values()
    return paths


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
