"""The job of `medsae hierarchy`: latents along a tree of findings, chosen on `select`, followed on `report`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.hierarchy.absorption import NO_LATENT, NO_PROBE, Standing, absorption
from medsae_plugin.hierarchy.carried import Carried, carried, silent
from medsae_plugin.hierarchy.results import Absorption, CarriedLabel, Hierarchy, HierarchyUnits, Splitting
from medsae_plugin.hierarchy.splitting import splitting
from medsae_plugin.hierarchy.tree import Tree, pairs
from medsae_plugin.observations import HIERARCHY
from medsae_plugin.scores.choice import Choice
from medsae_plugin.scores.image_means import image_means
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.logistic import Head
from medsae_plugin.scores.matrix import Aggregate, LatentMatrix
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.protocols import kept_or_scratch, unit_matrices
from medsae_plugin.scores.ranking import aurocs
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.scoring import HeldOut, sum_up
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.units import Latents
from medsae_plugin.store.reader import ActivationStore


def score_hierarchy(
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    tree: Tree = HIERARCHY,
    out: str | Path | None = None,
    *,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    leave_out_trained: bool = False,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Hierarchy:
    """Where a parent's latents go silent on a child's images, which latent stands there instead, and how labels split.

    Absorption (see `absorption`): on the images of `report` that show a child and where a logistic probe of the parent,
    fitted on `select`, finds it (log-odds above 0), the share where all latents that carry the parent (see `carried`)
    are silent; beside images that show the parent without the child, and beside an untrained SAE. Splitting (see
    `splitting`): how many latents carry each label, and what another SAE of the hook, of another seed or width, has.

    Labels are taken as they are: a child is not made to say that its parent is present.

    Args:
        tree: of each parent its children, by the names of labels. CheXpert's by default.
        out: a folder, for `hierarchy.json`, `hierarchy.parquet` and the latent matrices.
        leave_out_trained: as of `evaluate`. seed: of the untrained SAEs, and of the halves of the patients.

    Raises:
        MedSAEError: what `evaluate` refuses; a tree of which the table has no parent with a child.
    """
    images = LabelledImages.of(store, table).held_out(select, report).without_embeddings()
    followed = pairs(tree, images.label_names)
    units = [one for one in open_units(store, saes, seed, device) if isinstance(one, Latents)]
    trained_on, seen = check_held_out(units, store, images, leave_out_trained)
    held_out = HeldOut(images.without_reported(trained_on))
    (choice,) = Choice.each_of(held_out, seed)
    hooks = dict.fromkeys(one.hook for one in units)
    parents = list(dict.fromkeys(parent for parent, _ in followed))
    heads = {hook: _probes(store, hook, choice, held_out, parents) for hook in hooks}
    with kept_or_scratch(out) as folder:
        matrices = unit_matrices(store, units, folder / "latents", aggregate, progress)
        scenes = [
            _Scene(store, one, matrix, held_out, choice, tree, followed)
            for one, matrix in zip(tqdm(units, "hierarchy", disable=not progress), matrices, strict=True)
        ]
        made = [scene.units(heads[scene.latents.hook][0], seen.get(scene.latents.name)) for scene in scenes]
        split = _splitting(scenes, tree, held_out.images)
    splits = counts(held_out.images)
    result = Hierarchy(
        encoder=Encoder.of(store),
        aggregate=aggregate,
        select=splits["select"],
        report=splits["report"],
        tree={parent: [child for one, child in followed if one == parent] for parent in parents},
        probes={hook: told for hook, (_, told) in heads.items()},
        units=made,
        splitting=split,
    )
    if out is not None:
        result.save(out)
    return result


class _Found:
    """A parent's probe, and where it finds the parent on `report`."""

    def __init__(self, head: Head, on_report: np.ndarray) -> None:
        self.weights, self.logits = head.weights, head(on_report)


def _probes(
    store: ActivationStore, hook: str, choice: Choice, held_out: HeldOut, parents: Sequence[str]
) -> tuple[dict[str, _Found], dict[str, float | None]]:
    """Of each parent its probe of all neurons of a hook, and its AUROC on `report`."""
    x = np.concatenate([part.astype(np.float32) for _, part in image_means(store, hook)])
    found: dict[str, _Found] = {}
    told: dict[str, float | None] = {}
    for parent in parents:
        c = held_out.images.label_names.index(parent)
        head = choice.fit(x[choice.select], c)
        if head is not None:
            found[parent] = _Found(head, x[choice.report])
            told[parent] = number(aurocs(found[parent].logits[:, None], held_out.labels[:, [c]]).item())
    return found, told


class _Scene:
    """One SAE with the latents that carry each label of the tree."""

    def __init__(
        self,
        store: ActivationStore,
        latents: Latents,
        matrix: LatentMatrix,
        held_out: HeldOut,
        choice: Choice,
        tree: Tree,
        followed: Sequence[tuple[str, str]],
    ) -> None:
        self.store, self.latents, self.matrix, self.held_out, self.followed = store, latents, matrix, held_out, followed
        self.select, names = sum_up(matrix, held_out.images)["select"], held_out.images.label_names
        labels = dict.fromkeys(label for pair in followed for label in pair)
        self.carried: dict[str, Carried] = {
            label: carried(matrix, choice, self.select, tree, label, names) for label in labels
        }

    def units(self, probes: dict[str, _Found], seen: str | None) -> HierarchyUnits:
        """What is said of it."""
        one = self.latents
        return HierarchyUnits.model_validate(
            {
                "name": one.name,
                "kind": one.kind,
                "hook": one.hook,
                "d_sae": one.n,
                "seed": one.sae.cfg.metadata.get("seed") if one.kind == "sae" else None,
                "baseline_of": one.baseline_of,
                "carried": [
                    CarriedLabel(label=label, latents=of.latents.tolist(), auroc=of.auroc.tolist())
                    for label, of in self.carried.items()
                ],
                "absorption": [self._absorption(parent, child, probes.get(parent)) for parent, child in self.followed],
                "held_out_from": seen,
            }
        )

    def _absorption(self, parent: str, child: str, probe: _Found | None) -> Absorption:
        images, latents = self.held_out.images, self.carried[parent].latents
        y = self.held_out.labels[:, [images.label_names.index(label) for label in (parent, child)]]
        if probe is None or not len(latents):
            why = NO_PROBE if probe is None else NO_LATENT
            return Absorption(parent=parent, child=child, images=int((y[:, 1] == 1).sum()), no_figures=why)
        found, quiet = probe.logits > 0, silent(self.matrix, latents, self.held_out.report)
        ids = images.frame["image_id"].to_numpy()[self.held_out.report][found & quiet]
        return absorption(
            parent,
            child,
            y=y,
            found=found,
            silent=quiet,
            standing=Standing.on(self.store, self.latents, ids, probe.weights),
            childs=self.carried[child].latents.tolist(),
            patients=self.held_out.patients,
        )


def _splitting(scenes: Sequence[_Scene], tree: Tree, images: LabelledImages) -> list[Splitting]:
    """Every two SAEs of a hook, from the narrower to the wider."""
    trained = sorted((s for s in scenes if s.latents.kind == "sae"), key=lambda s: s.latents.n)
    made: list[Splitting] = []
    for a, b in combinations(trained, 2):
        if a.latents.hook == b.latents.hook:
            names, carrying = (a.latents.name, b.latents.name), (a.carried, b.carried)
            made += splitting(names, (a.matrix, b.matrix), (a.select, b.select), carrying, tree, images)
    return made
