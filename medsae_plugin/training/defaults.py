"""What an SAE's spec leaves open, filled in from the store that it is trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from medsae_plugin.errors import MedSAEError
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.specs import SAESpec, config_class

WIDEST = 4
"""Latents for each dimension of a hook, at most."""
FIRINGS = 100
"""Times that a latent fires in one pass over the training rows, on average, at least: one of fewer rows has too few to
be learnt from, and does not fire on a validation split of a tenth as many."""
DIMENSIONS_A_LATENT = 12
"""Dimensions of a hook for each latent that fires on a row."""
LEAST_K = 4


def fitted(store: ActivationStore, specs: Sequence[SAESpec]) -> list[SAESpec]:
    """The specs with their widths, and where their architectures have one their k, filled in where they are left out.

    Raises:
        MedSAEError: an unknown hook, architecture or option.
    """
    return [_fitted(store, spec) for spec in specs]


def _fitted(store: ActivationStore, spec: SAESpec) -> SAESpec:
    if spec.hook not in store.hooks:
        raise MedSAEError(f"SAE {spec.name}: the store has no hook {spec.hook!r}; it has {', '.join(store.hooks)}")
    d, rows = store.hooks[spec.hook].d, store.n_rows(spec.hook, "train")
    options = dict(spec.options)
    if "k" not in options and "k" in {f.name for f in dataclasses.fields(config_class(spec))}:
        options["k"] = fitting_k(d)
    expansion = spec.expansion
    if expansion is None:
        k = options.get("k", fitting_k(d))
        width = fitting_width(d, rows, k) if isinstance(k, int | float) else d  # what it is else is said by the check
        expansion = width // d if width % d == 0 else width / d
    return dataclasses.replace(spec, expansion=expansion, options=options)


def fitting_k(d: int) -> int:
    """Latents that fire on a row of d dimensions: a twelfth of d, down to a multiple of 4."""
    return max(d // DIMENSIONS_A_LATENT // 4 * 4, LEAST_K)


def fitting_width(d: int, rows: int, k: float) -> int:
    """Latents for this many training rows of d dimensions, k of which fire on a row: as many as fire `FIRINGS` times in
    a pass, down to a multiple of 8, at most `WIDEST` d."""
    return max(min(round(rows * k / FIRINGS), WIDEST * d) // 8 * 8, 8)


def what_was_filled(given: Sequence[SAESpec], there: Sequence[SAESpec]) -> list[str]:
    """A line for each spec that something was filled into."""
    lines = []
    for before, after in zip(given, there, strict=True):
        filled = [f"expansion {after.expansion:g}"] if before.expansion is None and after.expansion is not None else []
        filled += [f"k {k}" for k in [after.options.get("k")] if k is not None and "k" not in before.options]
        if filled:
            lines.append(f"{after.name}: {', '.join(filled)}")
    return lines
