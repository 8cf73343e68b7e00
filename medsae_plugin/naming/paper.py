"""How MedSAE's reference names and judges (arXiv 2510.26411; its `assign_names_VLM.py`, `naming_eval.py`): two presets.

Ours stay the default. docs/naming.md says by how much each choice here flatters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from medsae_plugin.naming.evidence import Sample, TooSeldom
from medsae_plugin.naming.trials import Trial

PAPER = "medsae-paper"
FIRES = 1e-7
"""An activation above which the reference holds a neuron to fire."""


@dataclass(frozen=True)
class PaperEvidence:
    """Of a unit that fires on more than `more_than` images, L of them: its ranking is cut to min(`ranks`, L - L // 3),
    and half of the `images` are the first of it, half the last.

    Images and not patients are counted; no silent image is shown, and no label is told.
    """

    images: int = 30
    ranks: int = 100
    more_than: int = 60
    tells_labels: ClassVar[bool] = False

    def sample(
        self, column: Float[np.ndarray, " images"], patients: Sequence[object] | np.ndarray, seed: int | list[int]
    ) -> Sample | TooSeldom:
        """As `Counts.sample`; nothing is drawn."""
        fires = int((np.abs(column) > FIRES).sum())
        if column.var() == 0 or fires <= self.more_than:
            return TooSeldom(self.more_than + 1, "images")
        ranking = _ranking(column)[: min(self.ranks, fires - fires // 3)]
        half = self.images // 2
        first, last = ranking[:half], ranking[len(ranking) - (self.images - half) :]
        return Sample(tuple(map(int, first)), tuple(map(int, last)), (), tells_labels=False)

    def made(self) -> dict[str, Any]:
        return {"preset": PAPER, **asdict(self), "labels": False}


@dataclass(frozen=True)
class PaperTrials:
    """The `each` strongest images of a unit, and as many silent ones, with replacement where there are fewer.

    Of the split that names were made from, unless another is named: the evidence of a name is then among them. An
    answer that cannot be read is taken for "does not fit".
    """

    each: int = 30
    group: ClassVar[int] = 5
    held_out: ClassVar[bool] = False
    unread_is_no: ClassVar[bool] = True
    name: ClassVar[str] = PAPER

    def sample(
        self,
        column: Float[np.ndarray, " images"],
        rows: Int[np.ndarray, " images"],
        patients: Int[np.ndarray, " images"],
        seed: int | list[int],
    ) -> Trial | None:
        """As `Trials.sample`; None where the unit is silent nowhere, or there are fewer images than `each`."""
        rng = np.random.default_rng(seed)
        silent = np.flatnonzero(column <= FIRES)
        if len(silent) == 0 or len(column) < self.each:
            return None
        strongest = _ranking(column)[: self.each]
        drawn = rng.choice(silent, self.each, replace=len(silent) < self.each)
        places = rng.permutation(np.concatenate([strongest, drawn]))
        return Trial(tuple(int(rows[place]) for place in places), (column[places] >= FIRES).astype(np.int64))


def _ranking(column: Float[np.ndarray, " images"]) -> Int[np.ndarray, " images"]:
    """From the strongest on; equal ones in the order of the images, so that evidence and trial rank alike."""
    return np.argsort(-column, kind="stable")
