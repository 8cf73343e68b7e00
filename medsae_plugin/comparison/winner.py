"""Which SAE is best: chosen on patients on whom nothing is reported, for a winner's own figures flatter it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medsae_plugin.comparison.entries import Compared
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.metrics import mean_ranks
from medsae_plugin.scores.protocols import fidelity_of
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.scoring import HeldOut, Scored, sum_up
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.summary import ranked

VAL = "val"
_FIDELITY = ("explained_variance", "l0", "dead")


class Ranking(NamedTuple):
    """The split on which SAEs were ranked, and the mean rank of each by its name; None where there is none.

    figures: of each SAE on that split, where it is `val`: those that it was ranked by, and of fidelity and sparsity.
    """

    split: str
    ranks: dict[str, float | None]
    figures: dict[str, dict[str, float | None]]


def rank(compared: Sequence[Compared], table: ImageTable, select: str, report: str, images: LabelledImages) -> Ranking:
    """The mean ranks of the SAEs over the figures that rank, on the split `val`, or on `report` where there is none.

    There is no `val` where the store has no images in `val` that the table knows, where it is `select` or `report`, and
    where it shares patients with either, for then it is not held out; nor with folds. Patients of `val` that an SAE was
    trained on, as its own store was split otherwise, are left out.

    Args:
        images: those that are reported on.
    """
    saes = [one for one in compared if one.is_sae]
    if images.folds or VAL in (select, report) or not all(_has_val(one, table, (select, report)) for one in saes):
        figures = [{name: one.scores.value(name) for name in ranked()} for one in saes]
        split = images.splits["report"]
    else:
        figures, split = [_on_val(one, table, select) for one in saes], VAL
    names = [one.name for one in saes]
    ranks = dict(zip(names, mean_ranks(figures, ranked()), strict=True))
    return Ranking(split, ranks, dict(zip(names, figures, strict=True)) if split == VAL else {})


def _has_val(one: Compared, table: ImageTable, others: Sequence[str]) -> bool:
    images = LabelledImages.of(one.source.store, table)
    split = images.frame["split"].to_numpy()
    told = split == VAL if images.in_table is None else (split == VAL) & images.in_table
    elsewhere = set(images.patients[np.isin(split, others)])
    return bool(told.any()) and not elsewhere & set(images.patients[split == VAL])


def _on_val(one: Compared, table: ImageTable, select: str) -> dict[str, float | None]:
    """The figures that rank, of top latents chosen on `select` as ever, and those of fidelity and sparsity."""
    store = one.source.store
    images = LabelledImages.of(store, table).held_out(select, VAL)
    images = images.without_reported(check_held_out([one.units], store, images, leave_out=True)[0])
    fidelity = fidelity_of(store, one.units, images)
    sums = sum_up(one.matrix, images)
    scored = Scored(one.units, sums, fidelity=fidelity, matrix=one.matrix, held_out=HeldOut(images))
    figures = {} if fidelity is None else fidelity.figures()
    return {name: number(figures[name]) for name in _FIDELITY if name in figures} | {
        name: number(scored[name]) for name in ranked()
    }
