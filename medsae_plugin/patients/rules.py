"""A finding as a short list of rules over latents, after Med-MICN's (arXiv 2405.12533): read off a small tree."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from medsae_plugin.patients.head_results import Condition, Rule

_DEPTH, _LEAVES = 3, 6
_LEAST_IMAGES = 10  # of `select`, that a rule rests on
_MORE_THAN = 2.0  # times the finding's odds: what a rule must raise them by where it is learnt


def rules_of(
    latents: Int[np.ndarray, " chosen"],
    fitted: tuple[Float[np.ndarray, "images chosen"], Float[np.ndarray, " images"]],
    tried: tuple[Float[np.ndarray, "others chosen"], Float[np.ndarray, " others"], Shaped[np.ndarray, " others"]],
) -> list[Rule]:
    """Rules that raise a finding's odds, best first where they are learnt, with what they say of others.

    A tree of at most three conditions a rule, each of at least ten images; no two rules hold of one image.

    Args:
        latents: the numbers of the columns.
        fitted: activations and labels that rules are learnt on. tried: those of others, with their patients.
    """
    from sklearn.tree import DecisionTreeClassifier

    x, y = fitted
    tree = DecisionTreeClassifier(
        max_depth=_DEPTH, max_leaf_nodes=_LEAVES, min_samples_leaf=_LEAST_IMAGES, random_state=0
    ).fit(x, y)
    others, others_y, patients = tried
    at = tree.apply(others)
    odds = _odds(y.mean())
    found = []
    for leaf, conditions in _leaves(tree.tree_, latents):
        share = float(tree.tree_.value[leaf][0][1])
        if not conditions or _odds(share) < _MORE_THAN * odds:
            continue
        mine = at == leaf
        told = float(others_y[mine].mean()) if mine.any() else None
        rule = Rule(conditions=conditions, images=int(mine.sum()), patients=len(set(patients[mine])), share=told)
        found.append((-share, leaf, rule))
    return [rule for _, _, rule in sorted(found, key=lambda one: one[:2])]


def _odds(share: float) -> float:
    return share / max(1 - share, 1e-12)


def _leaves(tree: Any, latents: Int[np.ndarray, " chosen"], node: int = 0) -> list[tuple[int, list[Condition]]]:
    """The leaves below a node, each with what leads from there to it; of one latent the tightest bounds alone."""
    if tree.children_left[node] < 0:
        return [(node, [])]
    latent, threshold = int(latents[tree.feature[node]]), float(tree.threshold[node])
    found = []
    for above, child in ((False, tree.children_left[node]), (True, tree.children_right[node])):
        for leaf, further in _leaves(tree, latents, int(child)):
            said = any(c.latent == latent and c.above == above for c in further)
            first = [] if said else [Condition(latent=latent, above=above, threshold=threshold)]
            found.append((leaf, first + further))
    return found
