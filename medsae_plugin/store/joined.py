"""Two stores read as one: latents are chosen on one hospital's images and reported on another's."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from medsae_plugin.errors import MedSAEError
from medsae_plugin.store.reader import ActivationStore


class JoinedStore(ActivationStore):
    """The images of `first`, then those of `second`, at the hooks that both have.

    Paths of `first` begin with its name, and splits end with the name of their store: `train of A`. Nothing is copied.

    Args:
        names: what each store is called.
        other_patients: a patient's name in one is that of another person in the other, so those of `first` begin with
            its name.

    Raises:
        MedSAEError: stores of other encoders, preprocessing or positions, or without a common hook.
    """

    def __init__(
        self, first: ActivationStore, second: ActivationStore, names: tuple[str, str], other_patients: bool = False
    ) -> None:
        self.path, self._parts = second.path, (first, second)
        for what in ("encoder", "preprocessing", "positions"):
            one, other = getattr(first.manifest, what), getattr(second.manifest, what)
            if one != other:
                raise MedSAEError(
                    f"{first.path} and {second.path} are not of the same {what}, so what is chosen in one means "
                    f"nothing in the other: {one} and {other}"
                )
        theirs = second.hooks
        self.hooks = {
            name: info
            for name, info in first.hooks.items()
            if name in theirs and (info.d, info.rows_per_image) == (theirs[name].d, theirs[name].rows_per_image)
        }
        if not self.hooks:
            raise MedSAEError(f"{first.path} and {second.path} have no hook in common")
        self._first_images, n = len(first.images), len(first.readable_images)
        before = f"{names[0]}: "
        self._mark = before if other_patients else ""
        marked = {"path": before + first.images["path"], "patient": self._mark + first.images["patient"]}
        self.images = self._both(
            first.images.assign(**marked, split=_of(first, names[0])),
            second.images.assign(split=_of(second, names[1])),
        )
        self.failures = self._both(first.failures.assign(path=before + first.failures["path"]), second.failures)
        self._readable = np.setdiff1d(self.images["image_id"].to_numpy(), self.failures["image_id"].to_numpy())
        self._split = self.images["split"].to_numpy()[self._readable]
        self._first_readable = n
        told = "\0".join([*(part.manifest.images.sha256 for part in self._parts), *names])
        self.manifest = second.manifest.of_images(hashlib.sha256(told.encode()).hexdigest(), len(self.images))

    @cached_property
    def training_patients(self) -> dict[str, set[str]]:
        first, second = (part.training_patients for part in self._parts)
        return {split: {self._mark + patient for patient in of} for split, of in first.items()} | second

    def _both(self, first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
        moved = second.assign(image_id=second["image_id"] + self._first_images)
        return pd.concat([first, moved], ignore_index=True)

    def _rows(self, hook: str, members: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        per_image, n = self.hooks[hook].rows_per_image, self._first_readable
        place, within = members[rows // per_image], rows % per_image
        made = torch.empty((len(rows), self.hooks[hook].d))
        for part, mine, offset in zip(self._parts, (place < n, place >= n), (0, n), strict=True):
            if mine.any():
                rows_there = (place[mine] - offset) * per_image + within[mine]
                made[torch.from_numpy(mine)] = part._rows(hook, part._members(None), rows_there)
        return made


def _of(store: ActivationStore, name: str) -> pd.Series:
    split = store.images["split"]
    return split.where(split == "", split + f" of {name}")
