"""What latents carry: labels, and covariates as labels of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.images import LabelledImages


@dataclass(frozen=True)
class Concept:
    """What units are chosen for. columns: its labels, of which a covariate of three categories or more has several."""

    name: str
    columns: tuple[int, ...]
    is_covariate: bool = False


def with_covariates(images: LabelledImages, names: Sequence[str]) -> tuple[LabelledImages, list[Concept]]:
    """Images whose labels end with the covariates' categories, and the concepts: every label, then the covariates.

    Of a covariate of two categories the second by name is a label (`sex=Male`), of more each; a number is cut at its
    median over the images with a role (`age>=58`). A label may be named as a covariate too.

    Raises:
        MedSAEError: neither a covariate nor a label is called so; a covariate that does not vary.
    """
    labels = list(images.label_names)
    concepts = [Concept(name, (c,)) for c, name in enumerate(labels)]
    columns: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(names):
        if name in images.covariates:
            made = _categories(name, images.covariates[name], images.roles != "")
            first = len(labels) + len(columns)
            columns |= made
            concepts.append(Concept(name, tuple(range(first, first + len(made))), is_covariate=True))
        elif name in labels:
            concepts.append(Concept(name, (labels.index(name),), is_covariate=True))
        else:
            has = ", ".join([*map(str, images.covariates.columns), *labels])
            raise MedSAEError(
                f"the table has no covariate and no label {name!r}; it has: {has} (medsae table shows what was read)"
            )
    if not columns:
        return images, concepts
    return _with_labels(images, columns), concepts


def _with_labels(images: LabelledImages, columns: dict[str, Float[np.ndarray, " images"]]) -> LabelledImages:
    labels = np.column_stack([images.labels, *columns.values()])
    return replace(
        images,
        label_names=(*images.label_names, *columns),
        labels=labels,
        uncertain=np.zeros(labels.shape, dtype=bool),  # whoever has roles has none that is
        folds=tuple(_with_labels(fold, columns) for fold in images.folds),
    )


def _categories(name: str, values: pd.Series, scored: np.ndarray) -> dict[str, Float[np.ndarray, " images"]]:
    """A covariate as labels by their names: 1, 0, nan where it is unknown."""
    if pd.api.types.is_numeric_dtype(values):
        x = values.to_numpy(dtype=np.float64)
        seen = x[scored & ~np.isnan(x)]
        cut = float(np.median(seen)) if len(seen) else np.nan
        if len(seen) and seen.min() == cut:  # as many are the lowest: cut above them
            cut = float(seen[seen > cut].min(initial=np.inf))
        categories = {f"{name}>={cut:g}": np.where(np.isnan(x), np.nan, x >= cut)}
    else:
        words = values.fillna("").astype(str).to_numpy()
        there = sorted(set(words[scored]) - {""})
        of = there[1:] if len(there) == 2 else there
        categories = {f"{name}={word}": np.where(words == "", np.nan, words == word) for word in of}
    varying = [c for c in categories.values() if len(set(c[scored & ~np.isnan(c)])) == 2]
    if not varying:
        raise MedSAEError(f"the covariate {name!r} does not vary over the images that are scored")
    return categories
