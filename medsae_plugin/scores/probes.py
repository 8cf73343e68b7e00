"""Probes on few units, on all neurons, and on what an SAE reconstructs: fitted on `select`, scored on `report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import reduce
from jaxtyping import Float, Int
from scipy import sparse
from tqdm import tqdm

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.logistic import Features, Head, fit_head, single_probes
from medsae_plugin.scores.matrix import Aggregate, LatentMatrix
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.probe_results import HookProbe, ProbedLabel, ProbedUnits, Probes
from medsae_plugin.scores.protocols import kept_or_scratch, unit_matrices
from medsae_plugin.scores.ranking import aurocs
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.scoring import least_firing
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

    Each is fitted on `select` alone, its penalty chosen between two halves of the patients there.

    Args:
        out: a folder, for `probes.json`; one that `evaluate` wrote has the latent matrices already, and `medsae report`
            shows the probes with it.
        seed: of the untrained SAEs, and of the halves.

    Raises:
        MedSAEError: what `evaluate` refuses.
    """
    images = LabelledImages.of(store, table).held_out(select, report)
    units = open_units(store, saes, seed, device)
    data = _Data(images, _halves(images, seed))
    hooks = {hook: _Ceiling.of(store, hook, data) for hook in dict.fromkeys(one.hook for one in units)}
    with kept_or_scratch(out) as folder:
        matrices = unit_matrices(store, units, folder / "latents", aggregate, progress)
        probed = [
            _probed(store, one, matrix, data, hooks[one.hook])
            for one, matrix in zip(tqdm(units, "probing", disable=not progress), matrices, strict=True)
        ]
    names, splits = images.label_names, counts(images)
    probes = Probes(
        encoder=Encoder(**store.manifest["encoder"]),
        aggregate=aggregate,
        ks=list(KS),
        hooks=[
            HookProbe(hook=hook, d=store.hooks[hook].d, auroc=dict(zip(names, map(number, found.auroc), strict=True)))
            for hook, found in hooks.items()
        ],
        units=probed,
        select=splits["select"],
        report=splits["report"],
    )
    if out is not None:
        probes.save(out)
    return probes


@dataclass(frozen=True)
class _Data:
    """The images of both roles. half: 0 or 1 for each image of `select`, by its patient."""

    images: LabelledImages
    half: Int[np.ndarray, " selected"]

    def fit(self, x: Features, c: int, l1: bool = False) -> Head | None:
        """A head for label c, on features of the images of `select`; None where the label does not vary there."""
        y = self.images.labels[self.images.rows("select"), c]
        known = ~np.isnan(y)
        if len(np.unique(y[known])) < 2 or x.shape[1] == 0:
            return None
        return fit_head(x[known], y[known], self.half[known], l1=l1)

    def auroc(self, logits: Float[np.ndarray, " reported"], c: int) -> float:
        """On the images of `report`."""
        return float(aurocs(logits[:, None], self.images.labels[self.images.rows("report")][:, [c]]).item())

    def probe(self, x: Features, c: int, l1: bool = False) -> tuple[float, Head | None]:
        """Fitted and scored, on features of all images; AUROC is nan without a head."""
        head = self.fit(x[self.images.rows("select")], c, l1)
        return (np.nan, None) if head is None else (self.auroc(head(x[self.images.rows("report")]), c), head)


@dataclass(frozen=True)
class _Ceiling:
    """Probes of all neurons of a hook, by label, and their AUROC."""

    heads: list[Head | None]
    auroc: Float[np.ndarray, " labels"]

    @classmethod
    def of(cls, store: ActivationStore, hook: str, data: _Data) -> _Ceiling:
        x = _image_means(store, hook)
        found = [data.probe(x, c) for c in range(data.images.labels.shape[1])]
        return cls([head for _, head in found], np.array([auroc for auroc, _ in found]))


def _probed(store: ActivationStore, units: Units, matrix: LatentMatrix, data: _Data, ceiling: _Ceiling) -> ProbedUnits:
    labels, rows = data.images.labels, {role: data.images.rows(role) for role in ("select", "report")}
    every = sparse.csc_array(sparse.vstack([sparse.csr_array(part) for _, part in matrix.shards()]))
    chosen_from = _candidates(store, units, matrix, rows["select"])
    columns = sparse.csc_array(every[:, chosen_from])
    by_image = sparse.csr_array(columns)
    on_select = sparse.csc_array(by_image[rows["select"]])
    r = pearson_of(sparse.csr_array(on_select.T.astype(np.float64)), labels[rows["select"]])
    single = single_probes(on_select, labels[rows["select"]])
    rebuilt = _image_means(store, units.hook, units) if isinstance(units, Latents) else None
    made = []
    for c, label in enumerate(data.images.label_names):
        order = np.argsort(-np.nan_to_num(np.abs(r[:, c])), kind="stable")[: max(KS)]
        dense = columns[:, order].toarray().astype(np.float64)
        sparse_auroc, head = data.probe(by_image, c, l1=True)
        y = labels[rows["report"], c]
        kept = ceiling.heads[c]
        made.append(
            ProbedLabel(
                label=label,
                positives=int((y == 1).sum()),
                known=int((~np.isnan(y)).sum()),
                latents=[units.label(int(chosen_from[j])) for j in order],
                k_sparse={str(k): number(data.probe(dense[:, :k], c)[0]) for k in KS},
                sparse=number(sparse_auroc),
                sparse_units=None if head is None else int(np.count_nonzero(head.weights)),
                reconstructed=None
                if rebuilt is None or kept is None
                else number(data.auroc(kept(rebuilt[rows["report"]]), c)),
                **_single(units, chosen_from, sparse.csc_array(by_image[rows["report"]]), single, data, c),
            )
        )
    return ProbedUnits(name=units.name, kind=units.kind, hook=units.hook, baseline_of=units.baseline_of, labels=made)


def _single(
    units: Units, chosen_from: np.ndarray, reported: sparse.csc_array, single: Any, data: _Data, c: int
) -> dict[str, Any]:
    """The unit of the least cross-entropy on `select`, and what its regression tells of `report`."""
    y = data.images.labels[data.images.rows("report"), c]
    known = ~np.isnan(y)
    if not len(chosen_from) or np.isnan(single.bce[:, c]).all() or not known.any():
        return {}
    j = int(np.nanargmin(single.bce[:, c]))
    logit = single.weight[j, c] * reported[:, [j]].toarray()[:, 0].astype(np.float64) + single.bias[j, c]
    selected = data.images.labels[data.images.rows("select"), c]
    base = float(np.log(np.nanmean(selected) / (1 - np.nanmean(selected))))
    return {
        "single": units.label(int(chosen_from[j])),
        "single_weight": number(single.weight[j, c]),
        "single_auroc": number(data.auroc(logit, c)),
        "single_bce": number(_bce(logit[known], y[known])),
        "prevalence_bce": number(_bce(np.full(known.sum(), base), y[known])),
    }


def _bce(logit: np.ndarray, y: np.ndarray) -> float:
    return float((np.logaddexp(0, logit) - y * logit).mean())


def _candidates(
    store: ActivationStore, units: Units, matrix: LatentMatrix, select: np.ndarray
) -> Int[np.ndarray, " chosen"]:
    """The units to choose from: those that fire on enough images; of neurons that have one activation an image, or the
    mean of several, the axes alone, since a negative tells what its axis does."""
    if units.kind == "neurons" and (
        store.hooks[units.hook].rows_per_image == 1 or matrix.manifest["aggregate"] == "mean"
    ):
        return np.arange(units.d_in)
    fired = np.zeros(units.n)
    for rows, part in matrix.shards():
        mine = select[(select >= rows.start) & (select < rows.stop)] - rows.start
        fired += np.asarray((sparse.csr_array(part)[mine] > 0).sum(0)).ravel()
    return np.flatnonzero(fired >= least_firing(len(select)))


@torch.no_grad()
def _image_means(store: ActivationStore, hook: str, units: Latents | None = None) -> Float[np.ndarray, "images d"]:
    """The mean over positions of each readable image's activations, or of an SAE's reconstruction of them, float32."""
    per_image = store.hooks[hook].rows_per_image
    parts: list[np.ndarray] = []
    for _, rows in store.image_batches(hook, None, max(1, _BATCH_ROWS // per_image)):
        x = rows if units is None else units.sae.decode(units.encode(rows)).cpu()
        parts.append(reduce(x.float(), "(image position) d -> image d", "mean", position=per_image).numpy())
    return np.concatenate(parts)


def _halves(images: LabelledImages, seed: int) -> Int[np.ndarray, " selected"]:
    patients = images.patients[images.rows("select")]
    names, code = np.unique(patients, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % 2)[code]
