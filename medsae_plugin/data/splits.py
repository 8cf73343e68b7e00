"""Splits by patient, never by image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from medsae_plugin.errors import MedSAEError

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}
SPLIT_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What tables and folders call a split, in lower case, and what it is called here."""


def named_splits(cells: Sequence[str]) -> list[str]:
    """A table's splits by the names used here; what is none of `SPLIT_WORDS` keeps its name, and empty is no split."""
    return [SPLIT_WORDS.get(cell.strip().casefold(), cell.strip()) for cell in cells]


def says_splits(cells: Sequence[str]) -> bool:
    """Whether all of the cells are names of splits, or empty."""
    words = {cell.strip().casefold() for cell in set(cells)} - {""}
    return bool(words) and words <= SPLIT_WORDS.keys()


def patients_in_two_splits(patients: Sequence[str], splits: Sequence[str]) -> list[str]:
    """Those who have images in more than one split."""
    of: dict[str, str] = {}
    pairs = ((patient, split) for patient, split in zip(patients, splits, strict=True) if split)
    return sorted({patient for patient, split in pairs if of.setdefault(patient, split) != split})


def split_by_patient(
    patients: Sequence[str], fractions: Mapping[str, float] = DEFAULT_FRACTIONS, seed: int = 0
) -> list[str]:
    """The split of each image, given the patient of each image; all images of a patient share one.

    Patients are ordered by a hash of the seed and their name and cut at the fractions (counted in patients), so the
    result does not depend on the order of the images. A split with a fraction above zero gets at least one patient.

    Raises:
        MedSAEError: fractions that are negative or do not add up to 1, fewer patients than splits, a nameless patient.
    """
    shares = {name: share for name, share in fractions.items() if share != 0}
    if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise MedSAEError(f"shares of patients should be positive and add up to 1, not {dict(fractions)}")
    if not all(patients):
        raise MedSAEError("an image has no patient; name the patient column, so that no patient is in two splits")
    names = sorted(set(patients), key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    if len(names) < len(shares):
        raise MedSAEError(f"{len(names)} patients cannot be split into {', '.join(shares)}")
    split_of: dict[str, str] = {}
    start, reached = 0, 0.0
    for k, (split, share) in enumerate(shares.items()):
        reached += share
        left = len(shares) - k - 1
        end = len(names) if left == 0 else min(max(round(reached * len(names)), start + 1), len(names) - left)
        split_of.update(dict.fromkeys(names[start:end], split))
        start = end
    return [split_of[name] for name in patients]
