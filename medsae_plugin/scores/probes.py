"""Probes on few units, on all neurons, and on what an SAE reconstructs: fitted on `select`, scored on `report`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from scipy.special import logit
from tqdm import tqdm

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.scores.choice import Choice
from medsae_plugin.scores.image_means import image_means
from medsae_plugin.scores.images import Folds, LabelledImages
from medsae_plugin.scores.logistic import Features, Head, single_probes
from medsae_plugin.scores.matrix import Aggregate, LatentMatrix
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.probe_results import HookProbe, ProbedLabel, ProbedUnits, Probes
from medsae_plugin.scores.protocols import kept_or_scratch, unit_matrices
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.reported_auroc import ReportedAUROC
from medsae_plugin.scores.scoring import HeldOut, least_firing
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.units import Latents, Units
from medsae_plugin.statistics.correlation import pearson_of
from medsae_plugin.store.reader import ActivationStore

KS = (1, 2, 5, 10, 20, 50)
_BATCH_ROWS = 4096


def probe_units(
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    out: str | Path | None = None,
    *,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    folds: Folds | None = None,
    leave_out_trained: bool = False,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Probes:
    """Probe SAEs, what `open_units` sets beside them, and the raw neurons, for every label.

    - k-sparse: a logistic regression on the k units of largest |r| with the label on `select`, of those that fire often
      enough there (Gurnee et al. 2023, arXiv 2305.01610; SAEBench, arXiv 2503.09532).
    - sparse: one on all of them, with an L1 penalty.
    - single: of each unit its own regression on the label; the unit of the least binary cross-entropy on `select`.
    - the ceiling, of each hook: one on all neurons, averaged over positions; and what it tells of the same images where
      each SAE's reconstruction stands in for the activations.

    Each is fitted on `select` alone, its penalty chosen between two halves of the patients there. With folds, units are
    chosen and probes fitted anew for each, on the others, and AUROC is of pairs within a fold, as `cross_fitting` says.

    Args:
        folds, leave_out_trained: as of `evaluate`.
        out: a folder, for `probes.json`; one that `evaluate` wrote has the latent matrices already, and `medsae report`
            shows the probes with it.
        seed: of the untrained SAEs, and of the halves.

    Raises:
        MedSAEError: what `evaluate` refuses.
    """
    images = LabelledImages.of(store, table).with_roles(select, report, folds).without_embeddings()
    units = open_units(store, saes, seed, device)
    trained_on, seen = check_held_out(units, store, images, leave_out_trained)
    held_out = HeldOut(images.without_reported(trained_on))
    choices = Choice.each_of(held_out, seed)
    hooks = {hook: _Ceiling.of(store, hook, held_out, choices) for hook in dict.fromkeys(one.hook for one in units)}
    with kept_or_scratch(out) as folder:
        matrices = unit_matrices(store, units, folder / "latents", aggregate, progress)
        probed = [
            _probed(store, one, matrix, held_out, choices, hooks[one.hook])
            for one, matrix in zip(tqdm(units, "probing", disable=not progress), matrices, strict=True)
        ]
    for one in probed:
        one.held_out_from = seen.get(one.name)
    splits = counts(held_out.images)
    probes = Probes(
        encoder=Encoder.of(store),
        aggregate=aggregate,
        ks=list(KS),
        hooks=[found.probe(hook, store.hooks[hook].d) for hook, found in hooks.items()],
        units=probed,
        select=splits["select"],
        report=splits["report"],
    )
    if out is not None:
        probes.save(out)
    return probes


def ceiling_logits(
    store: ActivationStore, hook: str, held_out: HeldOut, seed: int = 0
) -> Float[np.ndarray, "rows labels"]:
    """The log-odds that the ceiling's probes, of all neurons of a hook, give each image of `report`, of folds that of
    its fold's; nan where there is no probe."""
    return _Ceiling.of(store, hook, held_out, Choice.each_of(held_out, seed)).said.logits


class _Said:
    """The log-odds that one kind of probe gives each image of `report`, label by label.

    Attributes:
        logits: nan where there is no probe.
        firing: where a probe says something else than of an image on which no unit fires.
    """

    def __init__(self, held_out: HeldOut) -> None:
        self._held_out = held_out
        self.logits = np.full(held_out.labels.shape, np.nan)
        self.firing = np.zeros(held_out.labels.shape, dtype=bool)

    def put(self, choice: Choice, c: int, head: Head | None, x: Features) -> None:
        """What a head of label c says, of features of the choice's images of `report`."""
        if head is not None:
            logits = head(x)
            self.logits[choice.place, c], self.firing[choice.place, c] = logits, logits != head.bias

    @cached_property
    def bce(self) -> Float[np.ndarray, " labels"]:
        """The mean binary cross-entropy over the images where the label is known, in nats; nan without a probe."""
        known, y = ~np.isnan(self._held_out.labels), np.nan_to_num(self._held_out.labels)
        with np.errstate(invalid="ignore"):
            terms = np.where(known, np.logaddexp(0, self.logits) - y * self.logits, 0)
        return np.where(known.any(0), terms.sum(0) / np.maximum(known.sum(0), 1), np.nan)

    @cached_property
    def told(self) -> ReportedAUROC:
        return ReportedAUROC.of(self._held_out, self.logits, self.firing)


@dataclass(frozen=True)
class _Ceiling:
    """Probes of all neurons of a hook, by choice and label, and what they tell."""

    heads: list[list[Head | None]]
    said: _Said
    label_names: tuple[str, ...]

    @classmethod
    def of(cls, store: ActivationStore, hook: str, held_out: HeldOut, choices: Sequence[Choice]) -> _Ceiling:
        x, names = _means(store, hook), held_out.images.label_names
        said, heads = _Said(held_out), []
        for choice in choices:
            on_select, on_report = x[choice.select], x[choice.report]
            heads.append([choice.fit(on_select, c) for c in range(len(names))])
            for c, head in enumerate(heads[-1]):
                said.put(choice, c, head, on_report)
        return cls(heads, said, names)

    def probe(self, hook: str, d: int) -> HookProbe:
        """The figures of it, by label."""
        told, has = self.said.told, {name: c for c, name in enumerate(self.label_names)}
        return HookProbe(
            hook=hook,
            d=d,
            auroc={name: number(told.auroc[c]) for name, c in has.items()},
            intervals={name: between for name, c in has.items() if (between := told.interval(c))},
            no_interval={name: why for name, c in has.items() if (why := told.no_interval[c])},
        )


@dataclass(frozen=True)
class _Fitted:
    """What was chosen and fitted for a label: the units of the k-sparse probes, best first, how many the sparse one
    kept, and the unit of the least cross-entropy with the weight of its regression; None where there is none."""

    units: list[int]
    kept: int | None
    single: int | None
    weight: float


def _probed(
    store: ActivationStore,
    units: Units,
    matrix: LatentMatrix,
    held_out: HeldOut,
    choices: Sequence[Choice],
    ceiling: _Ceiling,
) -> ProbedUnits:
    every = sparse.csr_array(sparse.vstack([sparse.csr_array(part) for _, part in matrix.shards()]))
    said = {figure: _Said(held_out) for figure in (*map(str, KS), "sparse", "reconstructed", "single_auroc", "share")}
    fitted = []
    for choice in choices:
        chosen_from = _candidates(store, units, matrix, every[choice.select])
        fitted.append(_fit(sparse.csr_array(every[:, chosen_from]), chosen_from, choice, said))
    if isinstance(units, Latents):
        rebuilt = _means(store, units.hook, units)
        for choice, heads in zip(choices, ceiling.heads, strict=True):
            for c, head in enumerate(heads):
                said["reconstructed"].put(choice, c, head, rebuilt[choice.report])
    labels = [
        _label(c, label, units, held_out, [one[c] for one in fitted], said)
        for c, label in enumerate(held_out.images.label_names)
    ]
    return ProbedUnits(name=units.name, kind=units.kind, hook=units.hook, baseline_of=units.baseline_of, labels=labels)


def _fit(
    columns: sparse.csr_array, chosen_from: Int[np.ndarray, " chosen"], choice: Choice, said: dict[str, _Said]
) -> list[_Fitted]:
    """Probes of the units `chosen_from`, whose activations are the columns, of each label; they are put into `said`."""
    labels, on_select, on_report = choice.labels[choice.select], columns[choice.select], columns[choice.report]
    by_unit, reported = sparse.csc_array(on_select), sparse.csc_array(on_report)
    r = pearson_of(sparse.csr_array(by_unit.T.astype(np.float64)), labels)
    single = single_probes(by_unit, labels)
    fitted = []
    for c, y in enumerate(labels.T):
        order = np.argsort(-np.nan_to_num(np.abs(r[:, c])), kind="stable")[: max(KS)]
        few, few_reported = (x[:, order].toarray().astype(np.float64) for x in (by_unit, reported))
        for k in KS:
            said[str(k)].put(choice, c, choice.fit(few[:, :k], c), few_reported[:, :k])
        head = choice.fit(on_select, c, l1=True)
        said["sparse"].put(choice, c, head, on_report)
        j = None if not len(chosen_from) or np.isnan(single.bce[:, c]).all() else int(np.nanargmin(single.bce[:, c]))
        if j is not None:
            alone = Head(single.weight[[j], c], float(single.bias[j, c]))
            said["single_auroc"].put(choice, c, alone, reported[:, [j]].toarray())
            said["share"].logits[choice.place, c] = logit(np.nanmean(y))
        fitted.append(
            _Fitted(
                units=chosen_from[order].tolist(),
                kept=None if head is None else int(np.count_nonzero(head.weights)),
                single=None if j is None else int(chosen_from[j]),
                weight=np.nan if j is None else float(single.weight[j, c]),
            )
        )
    return fitted


def _label(
    c: int, label: str, units: Units, held_out: HeldOut, fitted: Sequence[_Fitted], said: dict[str, _Said]
) -> ProbedLabel:
    """What the probes of label c tell, by choice fitted."""
    y = held_out.labels[:, c]
    told = {figure: one.told for figure, one in said.items() if figure != "share"}
    kept = [one.kept for one in fitted if one.kept is not None]
    singles = [one.single for one in fitted if one.single is not None]
    single = min(set(singles), key=lambda j: (-singles.count(j), j)) if singles else None
    return ProbedLabel(
        label=label,
        positives=int((y == 1).sum()),
        known=int((~np.isnan(y)).sum()),
        latents=[[units.label(j) for j in one.units] for one in fitted],
        k_sparse={str(k): number(told[str(k)].auroc[c]) for k in KS},
        sparse=number(told["sparse"].auroc[c]),
        sparse_units=float(np.mean(kept)) if kept else None,
        reconstructed=number(told["reconstructed"].auroc[c]),
        single=None if single is None else units.label(single),
        single_in=singles.count(single) if single is not None and held_out.images.folds else None,
        single_weight=None if single is None else float(np.mean([o.weight for o in fitted if o.single == single])),
        single_auroc=number(told["single_auroc"].auroc[c]),
        single_bce=number(said["single_auroc"].bce[c]),
        prevalence_bce=number(said["share"].bce[c]),
        intervals={figure: between for figure, one in told.items() if (between := one.interval(c))},
        no_interval={figure: why for figure, one in told.items() if (why := one.no_interval[c])},
    )


def _candidates(
    store: ActivationStore, units: Units, matrix: LatentMatrix, on_select: sparse.csr_array
) -> Int[np.ndarray, " chosen"]:
    """The units to choose from: those that fire on enough images of `select`; of neurons that have one activation an
    image, or the mean of several, the axes alone, since a negative tells what its axis does."""
    if units.kind == "neurons" and (store.hooks[units.hook].rows_per_image == 1 or matrix.manifest.aggregate == "mean"):
        return np.arange(units.d_in)
    fired = np.bincount(on_select.indices[on_select.data > 0], minlength=units.n)
    return np.flatnonzero(fired >= least_firing(on_select.shape[0]))


@torch.no_grad()
def _means(store: ActivationStore, hook: str, units: Latents | None = None) -> Float[np.ndarray, "images d"]:
    """The mean over positions of each readable image's activations, or of an SAE's reconstruction of them, float32."""
    through = None if units is None else lambda rows: units.sae.decode(units.encode(rows)).cpu()
    chunk = max(1, _BATCH_ROWS // store.hooks[hook].rows_per_image)
    return np.concatenate([x.astype(np.float32) for _, x in image_means(store, hook, chunk, through)])
