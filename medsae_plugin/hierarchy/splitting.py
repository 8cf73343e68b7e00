"""Whether another seed splits a label into the same latents, and a wider SAE into more."""

from __future__ import annotations

from collections.abc import Mapping

from medsae_plugin.comparison.correlation import correlations
from medsae_plugin.comparison.flow import LINK
from medsae_plugin.comparison.matching import STABLE, match
from medsae_plugin.hierarchy.carried import Carried
from medsae_plugin.hierarchy.results import Splitting
from medsae_plugin.hierarchy.tree import Tree
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.scoring import least_firing
from medsae_plugin.scores.sums import LatentStatistics

Carrying = Mapping[str, Carried]


def splitting(
    names: tuple[str, str],
    matrices: tuple[LatentMatrix, LatentMatrix],
    sums: tuple[LatentStatistics, LatentStatistics],
    carrying: tuple[Carrying, Carrying],
    tree: Tree,
    images: LabelledImages,
) -> list[Splitting]:
    """Two SAEs of one hook, label by label.

    Latents are matched as by `medsae compare`, chosen on `select`, with r on `report`. A latent of the first SAE is
    found again where its one-to-one partner carries the same label and has an r of 0.7; a child's latent of the second
    stands in the place of a parent's of the first where that is its best partner, with an r of 0.5.
    """
    rows = {role: images.rows(role) for role in ("select", "report")}
    eligible = [one.fired >= least_firing(one.n_images) for one in sums]
    forward, back = match(correlations(*matrices, rows), eligible[0], eligible[1])
    made = []
    for label in carrying[0]:
        mine, theirs = (one[label].latents for one in carrying)
        again = [j for j in mine if forward.assigned[j] in theirs and forward.assigned_r[j] >= STABLE]
        into = {}
        for child in tree.get(label, ()):
            latents = carrying[1][child].latents if child in carrying[1] else ()
            parts = [j for j in latents if back.best[j] in mine and back.best_r[j] >= LINK]
            if parts:
                into[child] = len(parts)
        made.append(
            Splitting(
                a=names[0],
                b=names[1],
                label=label,
                latents_a=len(mine),
                latents_b=len(theirs),
                again=len(again),
                into=into,
            )
        )
    return made
