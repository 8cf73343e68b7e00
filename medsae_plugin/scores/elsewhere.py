"""External validation: latents are chosen on some images, and reported on those of another table or another store.

Both give a store and a table for `evaluate`, `compare` and whatever else takes them, with the splits to choose and to
report on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medsae_plugin.data.joining import join_tables
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.sae_folders import distinct_names
from medsae_plugin.store.joined import JoinedStore
from medsae_plugin.store.reader import ActivationStore


@dataclass(frozen=True)
class Scene:
    """A store and a table, and the splits of them to choose and to report on.

    home: a split of other patients of the hospital that is chosen at, where another is reported on; None without one.
    """

    store: ActivationStore
    table: ImageTable
    select: str
    report: str
    home: str | None = None


def with_test_table(store: ActivationStore, table: ImageTable, test: ImageTable, select: str = "train") -> Scene:
    """Choose on a split's images, but for those of the table `test`, and report on those that it has.

    Raises:
        MedSAEError: the store has no image of `test`; `join_tables`.
    """
    name = Path(test.reading.source).name if test.reading is not None else "the test table"
    mine = store.images["path"].isin(set(test.frame["path"])).to_numpy()
    if not mine.any():
        raise MedSAEError(
            f"the store has none of the {len(test):,} images of {name}; extract them into it (medsae extract "
            "--test-table), or into a store of their own (--select-from)"
        )
    splits = np.where(mine, name, store.images["split"])
    return Scene(store.with_splits(splits.tolist()), join_tables(table, test), select, name)


def chosen_at(
    select_store: ActivationStore,
    select_table: ImageTable,
    store: ActivationStore,
    table: ImageTable,
    *,
    select: str = "train",
    report: str = "test",
    other_patients: bool = False,
) -> Scene:
    """Choose on a split of one hospital's store, and report on a split of another's.

    Args:
        other_patients: the same name at both is that of two people; otherwise it is that of one, who is in both.

    Raises:
        MedSAEError: the same store twice; patients of one name in both, without `other_patients`; an image in both;
            `JoinedStore`, `join_tables`.
    """
    if select_store.path.resolve() == store.path.resolve():
        raise MedSAEError(f"{store.path} is to be chosen and reported on; without --select-from, its splits are")
    here, there = distinct_names([select_store.path, store.path])
    both = set(select_store.images["patient"]) & set(store.images["patient"])
    if both and not other_patients:
        raise MedSAEError(
            f"{len(both)} patients of {store.path} are in {select_store.path} too, such as {min(both)!r}, so they are "
            "not held out; if these are other people who happen to have the same number, say so (--other-patients)"
        )
    joined = JoinedStore(select_store, store, (here, there), other_patients)
    first = replace(select_table, frame=select_table.frame.assign(path=f"{here}: " + select_table.frame["path"]))
    kept = select_store.readable_images
    kept = kept[kept["path"].isin(set(select_table.frame["path"]))]
    home = f"{report} of {here}" if report != select and (kept["split"] == report).any() else None
    return Scene(joined, join_tables(first, table), f"{select} of {here}", f"{report} of {there}", home)
