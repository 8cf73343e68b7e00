"""Covariates of images: what a regression takes of them, and the strata that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

AGE_EDGES = (20, 40, 60, 80)  # of the strata of a covariate that is a number, as age is


@dataclass(frozen=True)
class Covariate:
    """One covariate of some images.

    stratum: of each image, "" where unknown; of a number the band that it is in. strata: their names, in order.
    number: of each image, nan where unknown; None of categories.
    """

    name: str
    stratum: Shaped[np.ndarray, " images"]
    strata: tuple[str, ...]
    number: Float[np.ndarray, " images"] | None = None

    @classmethod
    def of(cls, values: pd.Series) -> Covariate:
        """Numbers are put into bands (under 20, 20-39, 40-59, 60-79, 80 and over), words are strata as they are."""
        name = str(values.name)
        if not pd.api.types.is_numeric_dtype(values):
            words = values.fillna("").astype(str).to_numpy()
            return cls(name, words, tuple(sorted(set(words) - {""})))
        x = values.to_numpy(dtype=np.float64)
        pairs = pairwise(AGE_EDGES)
        bands = [f"under {AGE_EDGES[0]}", *(f"{a}-{b - 1}" for a, b in pairs), f"{AGE_EDGES[-1]} and over"]
        stratum = np.where(np.isnan(x), "", np.array(bands)[np.digitize(np.nan_to_num(x), AGE_EDGES)])
        return cls(name, stratum, tuple(band for band in bands if (stratum == band).any()), x)

    @property
    def known(self) -> Bool[np.ndarray, " images"]:
        return self.stratum != ""

    def rows(self, some: Bool[np.ndarray, " images"]) -> Covariate:
        """Of some images, with the strata that these have."""
        stratum = self.stratum[some]
        strata = tuple(s for s in self.strata if (stratum == s).any())
        return Covariate(self.name, stratum, strata, None if self.number is None else self.number[some])

    @property
    def varies(self) -> bool:
        """Whether there is more than one stratum, or number."""
        return len(self.strata) > 1 if self.number is None else bool(np.ptp(self.number[self.known]) > 0)

    @property
    def design(self) -> Float[np.ndarray, "images columns"]:
        """Columns of a regression on it, beside an intercept: the number, or 1 in each category but the first."""
        if self.number is not None:
            return self.number[:, None]
        return (self.stratum[:, None] == np.array(self.strata[1:], dtype=str)).astype(np.float64)


def known_of(covariates: Sequence[Covariate]) -> Bool[np.ndarray, " images"]:
    """The images of which all of these are known."""
    return np.all([one.known for one in covariates], axis=0)


def design_of(covariates: Sequence[Covariate]) -> Float[np.ndarray, "images columns"]:
    """The columns of all of them."""
    return np.concatenate([one.design for one in covariates], axis=1)
