"""What latents are scored against, image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.activations import ActivationStore
    from medsae_plugin.data.tables import ImageTable

ROLES = ("select", "report")
EMBEDDING = "hook_embedding"


@dataclass(frozen=True)
class Targets:
    """One row an image of a latent matrix.

    labels: `(images, labels)` in {0, 1, nan = unknown}.
    patients: of each image. roles: `select` (where top latents and thresholds are chosen), `report` (where they are
        scored), or "" (left out: of another split, or without a row in the table).
    without_row: of each role, the images of its split that are left out because the table has no row of them.
    embeddings: the embeddings of a slice of the images, for the monosemanticity score; None where there are none.
    """

    label_names: tuple[str, ...]
    labels: Float[np.ndarray, "images labels"]
    patients: np.ndarray
    roles: np.ndarray
    d_embedding: int = 0
    embeddings: Callable[[slice], Float[np.ndarray, "rows d"]] | None = None
    without_row: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))

    def rows(self, role: str) -> np.ndarray:
        """The images of a role."""
        return np.flatnonzero(self.roles == role)

    def count_patients(self, role: str) -> Float[np.ndarray, " labels"]:
        """Of each label, the patients with an image in this role where it is known."""
        rows = self.rows(role)
        known = ~np.isnan(self.labels[rows])
        return np.array([len(set(self.patients[rows][k])) for k in known.T], dtype=np.float64)

    def labels_only(self) -> Targets:
        """The same without embeddings."""
        return replace(self, d_embedding=0, embeddings=None)


def targets_of(store: ActivationStore, table: ImageTable, select: str, report: str) -> Targets:
    """The table's labels for the store's readable images, the store's patients and splits, and its image embeddings.

    Images that the table has no row of are in no role.

    Raises:
        MedSAEError: the table has no label columns, or shares no image with the store; a split without images, or
            without images that have a row; a patient in both splits.
    """
    images = store.readable_images
    splits = images["split"].to_numpy()
    roles = np.where(splits == select, "select", np.where(splits == report, "report", ""))
    _check_splits(images["patient"].to_numpy(), splits, roles, select, report)
    labels = align_labels(list(images["path"]), table)
    has_row = rows_of(list(images["path"]), table) >= 0
    without = {role: int((~has_row & (roles == role)).sum()) for role in ROLES}
    scored = {role: int((has_row & (roles == role)).sum()) for role in ROLES}
    if not all(scored.values()):
        counts = [
            f"{scored[role]} of the {scored[role] + without[role]} images of {split!r}"
            for role, split in zip(ROLES, (select, report), strict=True)
        ]
        raise MedSAEError(f"only {' and '.join(counts)} have a row in the table, so nothing can be scored")
    roles = np.where(has_row, roles, "")
    patients = images["patient"].to_numpy()
    if EMBEDDING not in store.hooks:
        return Targets(table.label_names, labels, patients, roles, without_row=without)

    def embeddings(rows: slice) -> np.ndarray:
        return store.image_rows(EMBEDDING, rows).numpy()

    return Targets(table.label_names, labels, patients, roles, store.hooks[EMBEDDING].d, embeddings, without)


def rows_of(paths: Sequence[str], table: ImageTable) -> Int[np.ndarray, " images"]:
    """The table's row of the image at each path; -1 where it has none.

    Raises:
        MedSAEError: the table has none of these images.
    """
    position = {path: i for i, path in enumerate(table.frame["path"])}
    rows = np.array([position.get(path, -1) for path in paths])
    if (rows < 0).all():
        raise MedSAEError(
            f"no image of the store is in the table: the store has {paths[0]!r}, the table has "
            f"{table.frame['path'].iloc[0]!r}; give both the same image root (--root)"
        )
    return rows


def align_labels(paths: Sequence[str], table: ImageTable) -> Float[np.ndarray, "images labels"]:
    """The table's labels of the images at these paths; nan where the table lacks an image.

    Raises:
        MedSAEError: the table has no label columns, or none of these images.
    """
    if not table.label_names:
        raise MedSAEError(
            "the table has no label columns, so there is nothing to score against; name them (--labels). What its "
            "columns were taken for is what its describe() prints"
        )
    found = rows_of(paths, table)
    labels = table.labels[found].astype(np.float64)
    labels[found < 0] = np.nan
    return labels


def _check_splits(patients: np.ndarray, splits: np.ndarray, roles: np.ndarray, select: str, report: str) -> None:
    members = {role: set(patients[roles == role]) for role in ROLES}
    for role, split in zip(ROLES, (select, report), strict=True):
        if not members[role] and select != report:
            has = ", ".join(sorted(set(splits) - {""})) or "none"
            raise MedSAEError(f"the store has no readable images in split {split!r} (it has: {has})")
    both = len(members["select"] & members["report"])
    if both or select == report:
        raise MedSAEError(
            f"{both or 'all'} patients are in both {select!r} and {report!r}, so nothing is held out; split by patient"
        )
