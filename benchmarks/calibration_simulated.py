"""What the rows of `calibration.py` are made of: null latents and labels of patients, and what a row found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

FIRST, LAST = "No Finding", "Support Devices"  # CheXpert's label columns lie between


@dataclass(frozen=True)
class Settings:
    """quick: a minute for all rows. seed: of every draw. chexpert: CheXpert's `train.csv`, if it is at hand."""

    quick: bool
    seed: int = 0
    chexpert: Path | None = None

    def replications(self, quick: int, full: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Found:
    """How often something happened, of how many replications; or why there is nothing to count.

    error: twice the Monte Carlo error; by default that of independent replications.
    """

    times: float = 0
    of: int = 0
    reason: str = ""
    error: float | None = None

    def __str__(self) -> str:
        if self.reason:
            return self.reason
        rate = self.times / self.of
        error = 2 * math.sqrt(max(rate * (1 - rate), 1 / self.of) / self.of) if self.error is None else self.error
        return f"{rate:.3g} +- {error:.2g} ({self.of:,})"


@dataclass(frozen=True)
class Row:
    """One line of the table: what is counted, the rate that it should have, the rate before, and how to count."""

    what: str
    nominal: str
    before: str
    find: Callable[[Settings], Found]


def patients_of(sizes: np.ndarray) -> np.ndarray:
    """A number of the patient of each image."""
    return np.repeat(np.arange(len(sizes)), sizes)


def chexpert_sizes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Images of n patients as CheXpert's have: of 64,540 patients 35 % one, 27 % two, and a tail to 92."""
    counts = (22581, 17547, 6965, 4685, 2910, 2154, 1414, 1168, 909, 685, 555, 432, 351, 301, 245, 198, 152, 176, 125)
    tail = np.arange(20, 93)
    shares = np.concatenate([counts, 1102 * 0.92 ** (tail - 20) / (0.92 ** (tail - 20)).sum()])
    return rng.choice(np.arange(1, 93), size=n, p=shares / shares.sum())


def correlated(rng: np.random.Generator, patients: np.ndarray, columns: int, icc: float) -> np.ndarray:
    """Standard normals, a patient's of one intraclass correlation, `(images, columns)`."""
    own = rng.normal(size=(patients.max() + 1, columns))[patients]
    return math.sqrt(icc) * own + math.sqrt(1 - icc) * rng.normal(size=own.shape)


def latents(
    rng: np.random.Generator, patients: np.ndarray, densities: np.ndarray, icc: float = 0.0, heavy: bool = False
) -> np.ndarray:
    """Null latents `(images, latents)`: normals above the quantile of their density, zeros elsewhere.

    heavy: the cube of that, so that few images carry a latent.
    """
    from scipy import stats

    over = np.maximum(correlated(rng, patients, len(densities), icc) - stats.norm.isf(densities), 0)
    return over**3 if heavy else over


def positives(rng: np.random.Generator, patients: np.ndarray, shares: np.ndarray, icc: float = 0.0) -> np.ndarray:
    """Labels `(images, labels)` that a share of the images has."""
    from scipy import stats

    return (correlated(rng, patients, len(shares), icc) > stats.norm.isf(shares)).astype(np.float64)


def chexpert_labels(file: Path) -> Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]:
    """Of CheXpert's table: a draw of n of its patients, as the patient of each image, and labels in {0, 1, nan}."""
    table = pd.read_csv(file)
    code, names = pd.factorize(table["Path"].str.extract(r"(patient\d+)")[0])
    told = table.loc[:, FIRST:LAST].to_numpy(dtype=np.float64)
    labels = np.where(told == -1, np.nan, np.nan_to_num(told))

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        kept = np.isin(code, rng.choice(len(names), n, replace=False))
        return pd.factorize(code[kept])[0], labels[kept]

    return draw
