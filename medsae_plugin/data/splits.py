"""Splits by patient, never by image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from jaxtyping import Bool, Float, Int

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


def split_hash(patients: Sequence[str], splits: Sequence[str]) -> str:
    """SHA-256 over which patient is in which split, whatever the order of the images, their paths and their number."""
    pairs = sorted(set(zip(patients, splits, strict=True)))
    return hashlib.sha256("".join(f"{patient}\0{split}\n" for patient, split in pairs).encode()).hexdigest()


def split_by_patient(
    patients: Sequence[str],
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
    labels: Float[np.ndarray, "images labels"] | None = None,
) -> list[str]:
    """The split of each image, given the patient of each image; all images of a patient share one.

    Fractions are counted in patients, and a split with a fraction above zero gets at least one. Patients are ordered by
    a hash of the seed and their name, so that the result does not depend on the order of the images. With labels, every
    split gets its share of the patients with each of them, the rarest first: see `_stratified`. Without, the order is
    cut at the fractions.

    Args:
        labels: of each image, 1 where a finding is there, 0 where it is not; anything else is neither. Of a label the
            rarer value is shared out, counted in patients with an image of that value.

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
    place = {name: k for k, name in enumerate(names)}
    code = np.array([place[name] for name in patients])
    has = np.zeros((len(names), 0), dtype=bool) if labels is None else _rarer_value(code, len(names), labels)
    of_patient = _stratified(has, _sizes(list(shares.values()), len(names)))
    split_names = list(shares)
    return [split_names[of_patient[k]] for k in code]


def folds_by_patient(
    patients: Sequence[str], k: int, seed: int = 0, labels: Float[np.ndarray, "images labels"] | None = None
) -> Int[np.ndarray, " images"]:
    """The fold of each image, 0 to k - 1: `k` equal splits of `split_by_patient`.

    Raises:
        MedSAEError: fewer than 2 folds, or than patients.
    """
    if k < 2:
        raise MedSAEError(f"folds are 2 or more, to choose on some and report on another; not {k}")
    return np.array([int(fold) for fold in split_by_patient(patients, {str(i): 1 / k for i in range(k)}, seed, labels)])


def _sizes(shares: Sequence[float], n: int) -> Int[np.ndarray, " splits"]:
    """How many of `n` patients each split gets: at least one."""
    ends = [0]
    for j, reached in enumerate(accumulate(shares), 1):
        left = len(shares) - j
        ends.append(min(max(round(reached * n), ends[-1] + 1), n - left) if left else n)
    return np.diff(ends)


def _rarer_value(
    code: Int[np.ndarray, " images"], n: int, labels: Float[np.ndarray, "images labels"]
) -> Bool[np.ndarray, "patients labels"]:
    """Whether each patient has an image with the label's rarer value."""
    found = np.zeros((2, n, labels.shape[1]), dtype=bool)
    for value in (0, 1):
        image, label = np.nonzero(labels == value)
        found[value, code[image], label] = True
    counts = found.sum(1)
    return np.where(counts[1] <= counts[0], found[1], found[0])


def _stratified(
    has: Bool[np.ndarray, "patients labels"], sizes: Int[np.ndarray, " splits"]
) -> Int[np.ndarray, " patients"]:
    """Splits of exactly these sizes, each with its share of the patients with each label: iterative stratification.

    Sechidis, Tsoumakas and Vlahavas (ECML PKDD 2011): of the label with the fewest patients left, each goes to the
    split that wants most of that label, then to that with the most room. Here a split that is full takes no more, and
    patients without a label fill what room is left, in their order.
    """
    room, of = sizes.copy(), np.full(len(has), -1)
    wanted, left = np.outer(sizes / len(has), has.sum(0)), has.sum(0)
    while left.any():
        label = int(np.where(left > 0, left, len(has) + 1).argmin())
        for patient in np.flatnonzero(has[:, label] & (of < 0)):
            want = np.where(room > 0, wanted[:, label].round(9), -np.inf)
            chosen = int(np.where(want == want.max(), room, -1).argmax())
            of[patient] = chosen
            wanted[chosen] -= has[patient]
            left -= has[patient]
            room[chosen] -= 1
    of[of < 0] = np.repeat(np.arange(len(sizes)), room)
    return of
