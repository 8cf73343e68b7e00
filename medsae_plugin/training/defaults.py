"""What an SAE's spec leaves open, filled in from the store that it is trained on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from medsae_plugin.errors import MedSAEError
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.specs import SAESpec, check_specs, config_class

WIDEST = 2
"""Latents for each dimension of a hook, at most."""
FIRINGS = 128
"""Times that a latent fires in one pass over the training rows, on average, at least: one of fewer rows has too few to
be learnt from, and does not fire on a validation split of a tenth as many."""
LEAST_K = 4
AUX_LOSS = 32.0
"""Coefficient of the auxiliary loss, of an architecture that has one. A latent that fired keeps the second moment that
Adam has of those gradients, and the residual that dead latents are to reconstruct is a few percent of the variance or
less: at SAE-Lens's 1 the steps of what has died are too small to bring it back in a short run."""


def fitted(store: ActivationStore, specs: Sequence[SAESpec]) -> list[SAESpec]:
    """The specs with what is left out filled in: the width, and of architectures that have them k and the coefficient
    of the auxiliary loss.

    Raises:
        MedSAEError: an unknown hook; what `check_specs` refuses.
    """
    there = [_fitted(store, spec) for spec in specs]
    check_specs(store, there)
    return there


def _fitted(store: ActivationStore, spec: SAESpec) -> SAESpec:
    if spec.hook not in store.hooks:
        raise MedSAEError(f"SAE {spec.name}: the store has no hook {spec.hook!r}; it has {', '.join(store.hooks)}")
    d, rows = store.hooks[spec.hook].d, store.n_rows(spec.hook, "train")
    has = {f.name for f in dataclasses.fields(config_class(spec))}
    ours = {"k": fitting_k(d), "aux_loss_coefficient": AUX_LOSS}
    options = {key: value for key, value in ours.items() if key in has} | spec.options
    expansion = spec.expansion or fitting_expansion(d, rows, options.get("k", fitting_k(d)))
    return dataclasses.replace(spec, expansion=expansion, options=options)


def fitting_k(d: int) -> int:
    """Latents that fire on a row of d dimensions: the square root of d, down to a multiple of 4."""
    return max(math.isqrt(d) // 4 * 4, LEAST_K)


def fitting_expansion(d: int, rows: int, k: int | float) -> int | float:
    """d_sae / d for this many training rows of d dimensions, k latents firing on a row: as many latents as fire
    `FIRINGS` times in a pass, down to a multiple of 8, at most `WIDEST` d. Rounded to four digits."""
    width = max(min(round(rows * k / FIRINGS), WIDEST * d) // 8 * 8, 8)
    return width // d if width % d == 0 else round(width / d, 4)


def what_was_filled(given: Sequence[SAESpec], there: Sequence[SAESpec]) -> list[str]:
    """A line for each spec that something was filled into."""
    lines = []
    for before, after in zip(given, there, strict=True):
        filled = [f"expansion {after.expansion:g}"] if before.expansion is None and after.expansion is not None else []
        filled += [f"{key} {value:g}" for key, value in after.options.items() if key not in before.options]
        if filled:
            lines.append(f"{after.name}: {', '.join(filled)}")
    return lines
