"""The images that latents are named and judged on, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from medsae_plugin.errors import MedSAEError
from medsae_plugin.evaluation.targets import rows_of

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable


@dataclass(frozen=True)
class ImageData:
    """Images in the order of a latent matrix's rows.

    frame: `image_id`, `path` (relative to `root`), `patient`, `split`.
    labels: `(images, labels)` of 0, 1 and nan (unknown, or not in the table).
    reports: a text an image, "" where there is none; None where the table has no report column.
    """

    root: Path
    frame: pd.DataFrame
    labels: Float[np.ndarray, "images labels"]
    label_names: tuple[str, ...]
    reports: tuple[str, ...] | None = None

    @classmethod
    def of(cls, images: pd.DataFrame, table: ImageTable) -> ImageData:
        """The images of a latent matrix (`LatentMatrix.images`), with what the table says of them.

        Raises:
            MedSAEError: the table has none of the images.
        """
        rows = rows_of(list(images["path"]), table)
        labels = table.labels[rows].astype(np.float64)
        labels[(rows < 0)[:, None] | (labels < 0)] = np.nan
        reports = None
        if "report" in table.frame:
            texts = table.frame["report"].to_numpy()
            reports = tuple(str(texts[row]) if row >= 0 else "" for row in rows)
        return cls(table.root, images.reset_index(drop=True), labels, table.label_names, reports)

    def path(self, row: int | np.integer) -> Path:
        """Where the image of this row is on disk."""
        return self.root / self.frame["path"].iloc[row]

    @cached_property
    def patients(self) -> np.ndarray:
        """A number an image, the same for all images of a patient."""
        return pd.factorize(self.frame["patient"])[0]

    def rows(self, splits: Sequence[str]) -> np.ndarray:
        """The rows of the images in these splits.

        Raises:
            MedSAEError: there are none.
        """
        rows = np.flatnonzero(self.frame["split"].isin(list(splits)).to_numpy())
        if len(rows) == 0:
            has = ", ".join(sorted(set(self.frame["split"]) - {""})) or "none"
            raise MedSAEError(f"there are no images in split {', '.join(map(repr, splits))} (there are: {has})")
        return rows

    def check_apart(self, one: str, other: str) -> None:
        """Raises MedSAEError where a patient has images in both splits, or where the two are one."""
        patients = [set(self.frame.loc[self.frame["split"] == split, "patient"]) for split in (one, other)]
        if both := patients[0] & patients[1]:
            raise MedSAEError(
                f"{len(both)} patients are in both {one!r} and {other!r}, so a name would be tried on images of "
                "patients that it was made from; split by patient, or name another split"
            )
