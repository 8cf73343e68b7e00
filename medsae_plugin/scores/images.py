"""A store's images joined with what a table says of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from medsae_plugin.data.images import ImageFile, ImageFolder
from medsae_plugin.data.splits import folds_by_patient
from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.store import ActivationStore

ROLES = ("select", "report")
EMBEDDINGS = ("hook_embedding", "hook_embedding_unit")  # one space, the second of unit length
ALL = "all"


@dataclass(frozen=True)
class Folds:
    """Cross-fitting: `k` folds of the patients of the splits `of` (`all` is every split), drawn with `seed`."""

    k: int
    of: tuple[str, ...] = ("val", "test")
    seed: int = 0


@dataclass(frozen=True)
class LabelledImages:
    """Images in the order of a store's readable ones, which is that of a latent matrix's rows, with their labels.

    frame: `image_id`, `path` (relative to `root`), `patient`, `split`.
    labels: `(images, labels)` in {0, 1, nan = unknown, uncertain, or not in the table}.
    uncertain: `(images, labels)`, where a table that was read with `uncertain="keep"` says so.
    in_table: `(images,)`, the images that have a row in the table.
    splits: of each role the split whose images have it: `select`, where top latents and thresholds are chosen, and
        `report`, where they are scored. See `held_out`.
    assigned: of each image its role, "" for none, whether or not the table has a row of it; None where `splits` say it.
        See `members`.
    folds, folds_of: of cross-fitting, the same images with the roles of each fold, and the splits that these are of.
        See `cross_fitted`.
    left_out: how many patients are left out of `report`. See `without_reported`.
    data_set: what the table's images are of, such as "CheXpert"; "" where that is not known.
    reports: a text an image, "" where there is none; None where the table has no report column.
    covariates: what the table says of each image beside its labels (`sex`, `age` in years, `view`, `projection`,
        `laterality`, `site`, `device`), those that it has; "" or nan where it does not say, or has no such image.
    embeddings: the image embeddings `(rows, d_embedding)` of a slice of the images; None where the store has none.
    """

    frame: pd.DataFrame
    label_names: tuple[str, ...]
    labels: Float[np.ndarray, "images labels"]
    uncertain: Bool[np.ndarray, "images labels"] | None = None
    in_table: Bool[np.ndarray, " images"] | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    assigned: Shaped[np.ndarray, " images"] | None = None
    folds: tuple[LabelledImages, ...] = ()
    folds_of: tuple[str, ...] = ()
    left_out: int = 0
    data_set: str = ""
    root: Path | ImageFolder = Path()
    reports: tuple[str, ...] | None = None
    d_embedding: int = 0
    embeddings: Callable[[slice], Float[np.ndarray, "rows d"]] | None = None
    covariates: pd.DataFrame = field(default_factory=pd.DataFrame)

    @classmethod
    def of(cls, images: ActivationStore | pd.DataFrame, table: ImageTable) -> LabelledImages:
        """The readable images of a store, or those of a latent matrix (`LatentMatrix.images`), joined by their path.

        Raises:
            MedSAEError: the table has none of the images.
        """
        store = None if isinstance(images, pd.DataFrame) else images
        frame = (images if isinstance(images, pd.DataFrame) else images.readable_images).reset_index(drop=True)
        row_of = {path: i for i, path in enumerate(table.frame["path"])}
        rows = np.array([row_of.get(path, -1) for path in frame["path"]], dtype=np.int64)
        if (rows < 0).all():
            raise MedSAEError(
                f"no image of the store is in the table: the store has {frame['path'].iloc[0]!r}, the table has "
                f"{table.frame['path'].iloc[0]!r}; give both the same image root (--root)"
            )
        labels = table.labels[rows].astype(np.float64)
        labels[rows < 0] = np.nan
        reports = None
        if "report" in table.frame:
            texts = table.frame["report"].to_numpy()
            reports = tuple(str(texts[row]) if row >= 0 else "" for row in rows)
        joined = cls(
            frame,
            table.label_names,
            np.where(labels < 0, np.nan, labels),
            labels < 0,
            rows >= 0,
            data_set=table.data_set,
            root=table.root,
            reports=reports,
            covariates=_covariates(table, rows),
        )
        hook = next((hook for hook in EMBEDDINGS if store is not None and hook in store.hooks), None)
        if store is None or hook is None:
            return joined
        return replace(
            joined,
            d_embedding=store.hooks[hook].d,
            embeddings=lambda rows: store.image_rows(hook, rows).numpy(),
        )

    def with_roles(self, select: str = "train", report: str = "test", folds: Folds | None = None) -> LabelledImages:
        """`held_out`, or with folds `cross_fitted`."""
        return self.held_out(select, report) if folds is None else self.cross_fitted(folds)

    def held_out(self, select: str = "train", report: str = "test") -> LabelledImages:
        """The same, with the roles of two splits that share no patient.

        Raises:
            MedSAEError: there are no labels, or uncertain ones that no policy has turned into 0, 1 or unknown; a split
                without images; a patient in both splits.
        """
        self._check_scorable()
        members = {role: set(self.patients[self.in_split(split)]) for role, split in
                   zip(ROLES, (select, report), strict=True)}  # fmt: skip
        for role, split in zip(ROLES, (select, report), strict=True):
            if not members[role] and select != report:
                raise MedSAEError(f"the store has no readable images in split {split!r} (it has: {self._has_splits()})")
        both = len(members["select"] & members["report"])
        if both or select == report:
            raise MedSAEError(
                f"{both or 'all'} patients are in both {select!r} and {report!r}, so nothing is held out; split by "
                "patient"
            )
        made = replace(self, splits={"select": select, "report": report})
        scored = {role: len(made.rows(role)) for role in ROLES}
        if not all(scored.values()):
            parts = [
                f"{scored[r]} of the {scored[r] + made.without_row(r)} images of {made.splits[r]!r}" for r in ROLES
            ]
            raise MedSAEError(f"only {' and '.join(parts)} have a row in the table, so nothing can be scored")
        return made

    def cross_fitted(self, folds: Folds) -> LabelledImages:
        """The images of the splits `folds.of`, all of them `report`; and as its `folds` the same with the roles of each
        fold: that fold `report`, the others `select`.

        Folds are of patients, stratified over the labels (`folds_by_patient`).

        Raises:
            MedSAEError: as `held_out`; fewer than 2 folds, or than patients.
        """
        self._check_scorable()
        pool = np.isin(np.arange(len(self.frame)), self.rows_in(folds.of))
        of = tuple(split for split in folds.of if self.in_split(split).any())
        names = " and ".join(of)
        fold = np.full(len(self.frame), -1)
        fold[pool] = folds_by_patient(self.patients[pool].tolist(), folds.k, folds.seed, self.labels[pool])
        words = dict.fromkeys(ROLES, names)
        parts = [
            replace(self, splits=words, assigned=np.select([fold == k, pool], ["report", "select"], ""))
            for k in range(folds.k)
        ]
        if not all(len(part.rows(role)) for part in parts for role in ROLES):
            raise MedSAEError(f"a fold of {names} has no image with a row in the table; use fewer folds")
        return replace(self, splits=words, assigned=np.where(pool, "report", ""), folds=tuple(parts), folds_of=of)

    def without_reported(self, patients: Collection[str]) -> LabelledImages:
        """The same with the images of these patients left out of `report`."""
        if not patients:
            return self
        gone = (self.members == "report") & self.frame["patient"].isin(list(patients)).to_numpy()
        return replace(
            self,
            assigned=np.where(gone, "", self.members),
            folds=tuple(part.without_reported(patients) for part in self.folds),
            left_out=len(patients),
        )

    def _check_scorable(self) -> None:
        self.check_labels()
        if self.uncertain is not None and self.uncertain.any():
            raise MedSAEError(
                "labels must be 0, 1 or nan (unknown), and this table keeps uncertain ones as -1; choose a policy for "
                "them when reading (uncertain='ignore', 'zeros' or 'ones')"
            )

    def check_labels(self) -> None:
        """Raises MedSAEError where the table has no label columns."""
        if not self.label_names:
            raise MedSAEError(
                "the table has no label columns, so there is nothing to score against; name them (--labels). What its "
                "columns were taken for is what its describe() prints"
            )

    def check_apart(self, one: str, other: str) -> None:
        """Raises MedSAEError where a patient has images in both splits, or where the two are one."""
        if both := set(self.patients[self.in_split(one)]) & set(self.patients[self.in_split(other)]):
            raise MedSAEError(
                f"{len(both)} patients are in both {one!r} and {other!r}, so a name would be tried on images of "
                "patients that it was made from; split by patient, or name another split"
            )

    @cached_property
    def members(self) -> Shaped[np.ndarray, " images"]:
        """Of each image its role, "" for none, whether or not the table has a row of it."""
        if self.assigned is not None:
            return self.assigned
        return np.select([self.in_split(self.splits.get(role)) for role in ROLES], ROLES, "")

    @cached_property
    def roles(self) -> np.ndarray:
        """Of each image its role, "" for none: it is of another split, or has no row in the table."""
        return np.where(self._in_table(), self.members, "")

    def without_row(self, role: str) -> int:
        """How many images of a role are left out because the table has no row of them."""
        return int((~self._in_table() & (self.members == role)).sum())

    def in_split(self, split: str | None) -> Bool[np.ndarray, " images"]:
        """The images of a split; of `all`, unless a split is called so, every image."""
        own = self.frame["split"].to_numpy() == split
        return np.ones(len(self.frame), dtype=bool) if split == ALL and not own.any() else own

    def _in_table(self) -> Bool[np.ndarray, " images"]:
        return np.ones(len(self.frame), dtype=bool) if self.in_table is None else self.in_table

    def rows(self, role: str) -> Int[np.ndarray, " rows"]:
        """The images of a role."""
        return np.flatnonzero(self.roles == role)

    def halves(self, seed: int = 0) -> Int[np.ndarray, " images"]:
        """The two halves that penalties are chosen between: 0 or 1 for each image of `select`, by its patient; else -1.

        Args:
            seed: of which patient is in which.
        """
        rows = self.rows("select")
        names, code = np.unique(self.patients[rows], return_inverse=True)
        made = np.full(len(self.frame), -1)
        made[rows] = (np.random.default_rng(seed).permutation(len(names)) % 2)[code]
        return made

    def rows_in(self, splits: Sequence[str]) -> Int[np.ndarray, " rows"]:
        """The images in these splits.

        Raises:
            MedSAEError: there are none.
        """
        rows = np.flatnonzero(np.any([self.in_split(split) for split in splits], axis=0))
        if len(rows) == 0:
            names = ", ".join(map(repr, splits))
            raise MedSAEError(f"there are no images in split {names} (there are: {self._has_splits()})")
        return rows

    @cached_property
    def patients(self) -> np.ndarray:
        """The patient of each image."""
        return self.frame["patient"].to_numpy()

    @cached_property
    def patient_codes(self) -> Int[np.ndarray, " images"]:
        """A number an image, the same for all images of a patient: compared faster than names."""
        return pd.factorize(self.frame["patient"])[0]

    def count_patients(self, role: str) -> Float[np.ndarray, " labels"]:
        """Of each label, the patients with an image in this role where it is known."""
        rows = self.rows(role)
        known = ~np.isnan(self.labels[rows])
        return np.array([len(set(self.patient_codes[rows][k])) for k in known.T], dtype=np.float64)

    def as_told(self) -> Float[np.ndarray, "images labels"]:
        """The labels with -1 where the table is uncertain, as it was read with `uncertain="keep"`."""
        return self.labels if self.uncertain is None else np.where(self.uncertain, -1.0, self.labels)

    def without_embeddings(self) -> LabelledImages:
        """The same, for what reads no embeddings."""
        return replace(self, d_embedding=0, embeddings=None)

    def path(self, row: int | np.integer) -> Path | ImageFile:
        """Where the image of this row is."""
        return self.root / self.frame["path"].iloc[row]

    def _has_splits(self) -> str:
        return ", ".join(sorted(set(self.frame["split"]) - {""})) or "none"


def _covariates(table: ImageTable, rows: Int[np.ndarray, " images"]) -> pd.DataFrame:
    """The table's covariates of its rows; unknown where the row is -1."""
    found = table.covariates.iloc[rows].reset_index(drop=True)
    for name in found.columns:
        found[name] = found[name].where(rows >= 0, np.nan if pd.api.types.is_numeric_dtype(found[name]) else "")
    return found
