"""What a name is made from: images over a latent's firing range, label statistics, report sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.statistics.multiple import benjamini_hochberg
from medsae_plugin.statistics.score_test import PatientLabel, score_p

CHANCE = 0.05
MOST_TOLD = 6


@runtime_checkable
class Evidence(Protocol):
    """A way to choose the images that a name is made from."""

    @property
    def tells_labels(self) -> bool: ...

    def sample(
        self, column: Float[np.ndarray, " images"], patients: Sequence[object] | np.ndarray, seed: int | list[int]
    ) -> Sample | TooSeldom: ...

    def made(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Counts:
    """How many images of each kind a latent's evidence shows."""

    strongest: int = 5
    spread: int = 5
    silent: int = 5
    tells_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.strongest < 1 or self.spread < 0 or self.silent < 0:
            raise MedSAEError(
                f"evidence of {self.strongest} strongest, {self.spread} spread and {self.silent} silent images: ask "
                "for 1 strongest at least, and none below 0"
            )

    @property
    def patients(self) -> int:
        """The patients that a latent has to fire on, an image of each: the bound below which it is skipped."""
        return self.strongest + self.spread

    def sample(
        self, column: Float[np.ndarray, " images"], patients: Sequence[object] | np.ndarray, seed: int | list[int]
    ) -> Sample | TooSeldom:
        """See `sample_evidence`."""
        return sample_evidence(column, patients, self, seed)

    def made(self) -> dict[str, Any]:
        """How evidence is chosen, for the record beside names."""
        return asdict(self)


@dataclass(frozen=True)
class Sample:
    """Rows of a column: the strongest first, `spread` from strong to weak, and silent ones; each of another patient.

    tells_labels: whether the namer is told how often labels are given where the unit fires.
    """

    strongest: tuple[int, ...]
    spread: tuple[int, ...]
    silent: tuple[int, ...]
    tells_labels: bool = True

    @property
    def kinds(self) -> dict[str, tuple[int, ...]]:
        return {"strongest": self.strongest, "spread": self.spread, "silent": self.silent}


@dataclass(frozen=True)
class TooSeldom:
    """A latent that fires on fewer patients than a name takes; how many they are is not told, being a small count."""

    bound: int
    of: str = "patients"

    def __str__(self) -> str:
        return f"fires too seldom: on fewer than {self.bound} {self.of}"


def sample_evidence(
    column: Float[np.ndarray, " images"], patients: Sequence[object] | np.ndarray, counts: Counts, seed: int | list[int]
) -> Sample | TooSeldom:
    """Choose the images of a latent's evidence from its activations, one image a patient.

    The strongest images are those of the highest activation. The other firing images, one a patient, are cut into
    `counts.spread` parts of equal size by activation, and one is drawn from each. Silent images (activation 0 or less)
    are drawn from other patients still; there may be fewer of them, or none, for a latent that is seldom silent. Ties
    and draws follow the seed.
    """
    rng = np.random.default_rng(seed)
    patients = np.asarray(patients)
    shuffled = rng.permutation(len(column))
    order = shuffled[np.argsort(-column[shuffled], kind="stable")]
    firing = order[column[order] > 0]
    if len(np.unique(patients[firing])) < counts.patients:
        return TooSeldom(counts.patients)
    strongest = one_a_patient(firing, patients, patients[:0])[: counts.strongest]
    used = patients[strongest]
    # The draw decides which image stands for a patient, so that the weak end is not left to the patients of one image.
    others = one_a_patient(rng.permutation(firing), patients, used)
    others = others[np.argsort(-column[others], kind="stable")]
    spread = np.array(
        [rng.choice(part) for part in np.array_split(others, counts.spread)] if counts.spread else [], int
    )
    used = np.concatenate([used, patients[spread]])
    silent = one_a_patient(shuffled[column[shuffled] <= 0], patients, used)[: counts.silent]
    return Sample(tuple(map(int, strongest)), tuple(map(int, spread)), tuple(map(int, silent)))


def one_a_patient(rows: np.ndarray, patients: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The first row of each patient, in order, without the patients that are used."""
    rows = rows[~np.isin(patients[rows], used)]
    first = np.unique(patients[rows], return_index=True)[1]
    return rows[np.sort(first)]


@dataclass(frozen=True)
class LabelShare:
    """A label among the firing and the silent images where it is known, and its correlation r (nan where undefined).

    p: of the score test between patients (`statistics.score_test`). fdr: Benjamini and Hochberg's, over the labels of
        the latent.
    """

    label: str
    firing: float
    silent: float
    r: float
    p: float
    fdr: float

    def __str__(self) -> str:
        if np.isnan(self.r):
            return f"{self.label}, which does not vary there"
        if np.isnan(self.p):
            return f"{self.label}, r {self.r:.2f}, the same in all patients"
        return f"{self.label}, r {self.r:.2f}, p {'< 0.001' if self.p < 0.001 else f'{self.p:.2g}'}"


def label_shares(
    column: Float[np.ndarray, " images"],
    labels: Float[np.ndarray, "images labels"],
    names: Sequence[str],
    patients: Int[np.ndarray, " images"],
) -> list[LabelShare]:
    """Every label's share among a latent's firing and silent images, by |r|, the largest first."""
    r = np.full(len(names), np.nan)
    activations = sparse.csr_array(column[:, None])
    means = []
    for c in range(len(names)):
        known = ~np.isnan(labels[:, c])
        y, a = labels[known, c], column[known].astype(np.float64)
        means.append((_mean(y[a > 0]), _mean(y[a <= 0])))
        if len(y) > 1 and a.std() > 0 and y.std() > 0:
            r[c] = np.clip(np.corrcoef(a, y)[0, 1], -1, 1)
    p = np.array([score_p(activations, PatientLabel.of(y, patients))[0] for y in labels.T])
    figures = zip(names, means, r.tolist(), p.tolist(), benjamini_hochberg(p).tolist(), strict=True)
    shares = [LabelShare(name, *mean, *more) for name, mean, *more in figures]
    return sorted(shares, key=lambda s: -abs(np.nan_to_num(s.r)))


def above_chance(shares: Sequence[LabelShare]) -> list[LabelShare]:
    """The labels that go with a latent, or against it, more than chance does (fdr < 0.05), in their order."""
    return [s for s in shares if s.fdr < CHANCE]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def told_labels(shares: Sequence[LabelShare]) -> list[LabelShare]:
    """Those of the labels above chance that a namer is told of: at most `MOST_TOLD`."""
    return above_chance(shares)[:MOST_TOLD]


def format_shares(shares: Sequence[LabelShare]) -> str:
    """The labels that tell most, in words; "" where there are none."""
    if not any(np.isfinite(s.r) for s in shares):
        return ""
    told = told_labels(shares)
    if not told:
        return "No label is given more often or less often where it responds than chance would have it."
    lines = []
    for s in told:
        # A unit that responds everywhere has no elsewhere; its r stands all the same.
        parts = [
            f"{x:.0%} {where}" for x, where in ((s.firing, "where it responds"), (s.silent, "elsewhere")) if x == x
        ]
        lines.append(f"- {s.label}: {', '.join(parts)} (r = {s.r:.2f})")
    return "\n".join(["How often a label is given to images (labels are mined from reports and err):", *lines])


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n|\n(?=[A-Z ]+:)")


def report_sentences(
    data: LabelledImages, rows: Sequence[int | np.integer], most: int = 4, longest: int = 300
) -> list[str]:
    """The first sentences of these images' reports, `most` a report, each cut to `longest` characters."""
    sentences: list[str] = []
    for row in rows:
        text = data.reports[row] if data.reports is not None else ""
        pieces = [" ".join(piece.split()) for piece in _SENTENCE_END.split(text)]
        sentences += [piece[:longest] for piece in pieces if piece][:most]
    return list(dict.fromkeys(sentences))
