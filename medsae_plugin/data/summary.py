"""What `medsae table` prints of a table: all that was understood, without opening an image; or opening all."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from medsae_plugin.data.images import ImageFolder, UnreadableImage, read_image
from medsae_plugin.data.spread import spread
from medsae_plugin.data.tables import ImageTable

_MOST_WORDS = 8


def summary(table: ImageTable) -> str:
    """`describe()`, and below it images a patient, covariates, and which files are there."""
    lines = [table.describe(), f"  images a patient: {_counted(table.frame['patient'].value_counts())}"]
    if "split" in table.frame and (splits := table.frame["split"]).any():
        each = table.frame.groupby(splits.where(splits != "", "none"))["patient"].nunique()
        lines.append(f"  patients a split: {', '.join(f'{split} {n:,}' for split, n in each.items())}")
    lines += [f"  {name}: {_covariate(values)}" for name, values in table.covariates.items()]
    return "\n".join([*lines, f"  files: {_files(table)}"])


def unreadable(table: ImageTable, workers: int, progress: bool) -> list[tuple[str, str]]:
    """The path and the reason of each image that cannot be read, in the table's order, having tried all.

    Raises:
        MedSAEError: a worker died.
    """
    paths = list(table.frame["path"])
    reasons = spread(partial(_reason, table.root), paths, workers, "opening", progress)
    return [(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason is not None]


def _reason(root: Path | ImageFolder, path: str) -> str | None:
    """Why an image cannot be read; None where it can. A process of its own may run this."""
    try:
        read_image(root / path)
    except UnreadableImage as error:
        return error.reason
    return None


def _counted(counts: pd.Series) -> str:
    """How many patients have 1 image, 2, ...; many numbers in bands."""
    edges = [1, 2, 3, 4, 6, 11, 21, 51, 101]
    bands = zip(edges, [*edges[1:], np.inf], strict=True)
    found = [(low, high, int(((counts >= low) & (counts < high)).sum())) for low, high in bands]
    words = [f"{_band(low, high)}: {n:,}" for low, high, n in found if n]
    return f"{', '.join(words)}; median {counts.median():g}, most {counts.max():,}"


def _band(low: int, high: int | float) -> str:
    if high == low + 1:
        return str(low)
    return f"{low} and more" if high == np.inf else f"{low}-{high - 1:g}"


def _covariate(values: pd.Series) -> str:
    if pd.api.types.is_numeric_dtype(values):
        known = values.dropna()
        if known.empty:
            return "unknown of all"
        low, first, median, third, high = (f"{q:g}" for q in known.quantile([0, 0.25, 0.5, 0.75, 1]))
        return (
            f"{low} to {high}, median {median}, half of them {first} to {third}; unknown {len(values) - len(known):,}"
        )
    counts = values[values != ""].value_counts()
    shown = [f"{word} {n:,}" for word, n in counts.head(_MOST_WORDS).items()]
    if len(counts) > _MOST_WORDS:
        shown.append(f"{len(counts) - _MOST_WORDS} more {counts.iloc[_MOST_WORDS:].sum():,}")
    return f"{', '.join(shown)}; unknown {int((values == '').sum()):,}"


def _files(table: ImageTable) -> str:
    if not isinstance(table.root, Path):
        return f"all {len(table):,} images are in {table.root}"
    missing = [path for path in table.frame["path"] if not os.path.isfile(f"{table.root}/{path}")]  # noqa: PTH113
    if not missing:
        return f"all {len(table):,} are under {table.root}"
    return f"{len(missing):,} of {len(table):,} are not under {table.root}, such as {missing[0]}"
