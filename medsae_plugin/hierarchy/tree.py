"""A tree of findings: of each parent its children."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medsae_plugin.errors import MedSAEError
from medsae_plugin.yaml_files import read_yaml

Tree = Mapping[str, Sequence[str]]


def read_tree(path: str | Path) -> dict[str, list[str]]:
    """A YAML file of `parent: [children]`, labels by their names.

    Raises:
        MedSAEError: it is something else, or a label is beneath itself.
    """
    tree = read_yaml(path, dict[str, list[str]], "tree")
    for label in tree:
        if label in beneath(tree, label):
            raise MedSAEError(f"{path}: {label!r} is beneath itself")
    return tree


def beneath(tree: Tree, label: str) -> set[str]:
    """The children of a label, theirs, and so on."""
    found: set[str] = set()
    left = list(tree.get(label, ()))
    while left:
        child = left.pop()
        if child not in found:
            found.add(child)
            left += tree.get(child, ())
    return found


def line(tree: Tree, label: str) -> set[str]:
    """What is above and beneath a label."""
    return beneath(tree, label) | {other for other in tree if label in beneath(tree, other)}


def pairs(tree: Tree, labels: Sequence[str]) -> list[tuple[str, str]]:
    """The parents with their children that are labels, both.

    Raises:
        MedSAEError: there is none.
    """
    found = [(parent, child) for parent, children in tree.items() for child in children]
    known = [pair for pair in found if set(pair) <= set(labels)]
    if not known:
        wanted = ", ".join(f"{parent} over {child}" for parent, child in found) or "nothing"
        raise MedSAEError(
            f"of the tree ({wanted}) the table has no parent with a child; it has {', '.join(labels)}. Name one of "
            "your own (--tree), or let labels be called as CheXpert's (--chexpert-names)"
        )
    return known
