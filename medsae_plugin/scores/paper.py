"""The protocol of MedSAE (arXiv 2510.26411), to compare with its numbers. It is optimistic: nothing is held out.

It follows the code that its authors published (EIDOSLAB/medsae), number by number:

- Images: `greedy_subset` over all 14 observations and all images of the table, whatever their view and split. The
  authors' order is a shuffle that they have not published; here it is the table's, or one drawn with a seed.
- Labels: eight of the 14. An observation that is not mentioned is 0, one that is uncertain stays -1, as a number.
- Pearson's r of every latent with every label; only latents with |r| > 0.2 for some label count; a label's latent is
  the one of the largest signed r; H is the entropy of a latent's |r| over the eight labels, in nats.
- The encoder's raw neurons are a column like an SAE's, one sign each. Nothing untrained stands beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Real
from scipy import sparse, stats
from tqdm import tqdm

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.observations import OBSERVATIONS
from medsae_plugin.scores import metrics
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import Aggregate, image_activations
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.opening import open_latents
from medsae_plugin.scores.paper_results import PROTOCOL, PaperEvaluation, PaperObservation, PaperScores
from medsae_plugin.scores.registry import mean_known, number
from medsae_plugin.scores.units import Latents, Neurons, Units
from medsae_plugin.statistics.correlation import pearson_of
from medsae_plugin.store.reader import ActivationStore

__all__ = ["LABELS", "PROTOCOL", "PaperEvaluation", "evaluate_as_paper", "greedy_subset"]

LABELS = (
    "No Finding",
    "Cardiomegaly",
    "Lung Lesion",
    "Edema",
    "Pneumonia",
    "Pneumothorax",
    "Pleural Effusion",
    "Support Devices",
)
PER_CLASS = 200
LEAST_R = 0.2
ORDERS = 20
VALIDATION, _VALIDATION_ROWS = "val", 1024
_CHUNK_ELEMENTS = 2**23  # activations held dense while encoding


def greedy_subset(labels: Real[np.ndarray, "images labels"], per_class: int) -> Int[np.ndarray, " kept"]:
    """The rows of the images that are kept, in order.

    An image is kept if it has a positive label, and none of its positive labels has `per_class` images already; its
    positive labels are then counted. Once every label has as many, no other is kept, so none ever has more.

    Args:
        labels: 1 is positive; 0, and -1 for uncertain, are not.
    """
    positive = labels == 1
    codes, one_label = _as_bits(positive), _as_bits(np.eye(labels.shape[1], dtype=bool))
    counts, full, kept = [0] * len(one_label), 0, []
    for i, code in enumerate(codes):
        if code and not code & full:
            kept.append(i)
            for c in np.flatnonzero(positive[i]):
                counts[c] += 1
                if counts[c] >= per_class:
                    full |= one_label[c]
    return np.array(kept, dtype=np.int64)


def _as_bits(rows: Bool[np.ndarray, "rows columns"]) -> list[int]:
    """Each row as a number of as many bits: a hundred thousand rows are compared in a second."""
    return [int.from_bytes(row.tobytes(), "big") for row in np.packbits(rows, axis=1)]


def entropy(r: Float[np.ndarray, "latents labels"]) -> Float[np.ndarray, " latents"]:
    """-sum p ln(p + 1e-10) with p = |r| / (sum |r| + 1e-8), over the labels; nan where every r is."""
    weight = np.abs(np.nan_to_num(r))
    p = weight / (weight.sum(1, keepdims=True) + 1e-8)
    return np.where(np.isnan(r).all(1), np.nan, -(p * np.log(p + 1e-10)).sum(1))


def bce(r: Float[np.ndarray, "latents labels"]) -> float:
    """Binary cross-entropy of |r| to 1 at each latent's largest signed r and 0 elsewhere: a mean over all entries.

    Logarithms are at least -100, as in torch's `BCELoss`. nan without latents.
    """
    if not len(r):
        return float("nan")
    target = np.arange(r.shape[1]) == np.where(np.isnan(r), -np.inf, r).argmax(1)[:, None]
    said = np.where(target, np.abs(np.nan_to_num(r)), 1 - np.abs(np.nan_to_num(r)))
    with np.errstate(divide="ignore"):
        return float(-np.maximum(np.log(said), -100).mean())


def normalised_ranks(values: Float[np.ndarray, "models labels"]) -> Float[np.ndarray, " models"]:
    """The mean over labels of each model's rank, scaled so that the largest value has 1 and the smallest 0.

    Labels that a model lacks (nan) do not count. nan for all where there is one model alone.
    """
    known = ~np.isnan(values).any(0)
    if len(values) < 2 or not known.any():
        return np.full(len(values), np.nan)
    return ((stats.rankdata(values[:, known], axis=0) - 1) / (len(values) - 1)).mean(1)


def evaluate_as_paper(
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    out: str | Path | None = None,
    *,
    aggregate: Aggregate = "max",
    seed: int | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> PaperEvaluation:
    """Score SAEs, and the raw neurons of their hooks, by the paper's protocol; `metrics.json` goes to `out`.

    Args:
        table: read with `uncertain="keep"`; every image of it that the store holds can be in the subset.
        seed: shuffles the images before the subset is taken; None leaves them in the table's order. Beside it, means
            are told for the 20 orders of the seeds 0 to 19.

    Raises:
        MedSAEError: a table without the 14 observations, or one that was read with another policy for -1; fewer than
            two images; what `open_latents` refuses.
    """
    images, labels, in_order = _labelled(store, table)
    subsets = [_subset(labels, in_order, s) for s in (seed, *range(ORDERS))]
    if len(subsets[0]) < 2:
        raise MedSAEError("fewer than two images of the store have one of the 14 observations")
    opened = [latents for latents, _ in open_latents(saes, store, device).values()]
    hooks = {latents.hook: latents.d_in for latents in opened}
    units: list[Units] = [*opened, *(Neurons.of(hook, d) for hook, d in hooks.items())]
    ids = images.frame["image_id"].to_numpy()
    of_eight = labels[:, [OBSERVATIONS.index(name) for name in LABELS]]
    entries = []
    for one in tqdm(units, "scoring", disable=not progress):
        found = [_found(store, one, ids[rows], of_eight[rows], aggregate) for rows in subsets]
        entries.append(_scores(one, found, of_eight[subsets[0]], explained_variance(store, one)))
    chosen = subsets[0]
    result = PaperEvaluation(
        encoder=Encoder.of(store),
        aggregate=aggregate,
        seed=seed,
        table_images=len(table),
        without_activations=len(table) - len(in_order),
        images=len(chosen),
        patients=len(set(images.patient_codes[chosen])),
        positives=dict(zip(OBSERVATIONS, (labels[chosen] == 1).sum(0).tolist(), strict=True)),
        order_images=[len(rows) for rows in subsets[1:]],
        candidates=_ranked(entries),
    )
    if out is not None:
        result.save(out)
    return result


def explained_variance(store: ActivationStore, units: Units) -> float:
    """1 - sum_d var(x - x_hat) / sum_d var(x) over batches of 1,024 rows of the split `val`, averaged.

    Without the residual's mean, so never less than `FidelitySums` says. nan of neurons, and without such rows.
    """
    if not isinstance(units, Latents) or not store.n_rows(units.hook, VALIDATION):
        return float("nan")
    per_batch = max(1, _VALIDATION_ROWS // store.hooks[units.hook].rows_per_image)
    shares = []
    for _, rows in store.image_batches(units.hook, VALIDATION, per_batch):
        if len(rows) > 1:
            with torch.no_grad():
                left = rows.double() - units.sae.decode(units.encode(rows)).cpu().double()
            variance = float(rows.double().var(0).sum())
            shares.append(1 - float(left.var(0).sum()) / variance if variance > 0 else np.nan)
    return mean_known(np.array(shares))


class _Found(NamedTuple):
    """Of units over one subset: r `(units, labels)`, H, which are kept, each label's top unit, and how many fire."""

    r: Float[np.ndarray, "units labels"]
    h: Float[np.ndarray, " units"]
    kept: Bool[np.ndarray, " units"]
    top: Int[np.ndarray, " labels"]
    l0_rate: float
    dead_rate: float

    @property
    def top_r(self) -> Float[np.ndarray, " labels"]:
        return np.where(self.top >= 0, self.r[self.top, np.arange(len(self.top))], np.nan)

    @property
    def top_h(self) -> Float[np.ndarray, " labels"]:
        return np.where(self.top >= 0, self.h[self.top], np.nan)


def _labelled(
    store: ActivationStore, table: ImageTable
) -> tuple[LabelledImages, Float[np.ndarray, "images 14"], Int[np.ndarray, " in_table"]]:
    """The store's images, the 14 labels of each in {-1, 0, 1}, and those of the table as places there, in its order."""
    if missing := [name for name in OBSERVATIONS if name not in table.label_names]:
        raise MedSAEError(
            f"the protocol {PROTOCOL} counts CheXpert's 14 observations, and the table lacks {', '.join(missing)}"
        )
    if table.reading is not None and table.reading.uncertain not in (None, "keep"):
        raise MedSAEError(
            f"the protocol {PROTOCOL} keeps uncertain labels as -1, and this table was read with "
            f"uncertain={table.reading.uncertain!r}; read it with uncertain='keep'"
        )
    images = LabelledImages.of(store, table)
    told = images.as_told()[:, [table.label_names.index(name) for name in OBSERVATIONS]]
    place = {path: i for i, path in enumerate(images.frame["path"])}
    in_order = np.array([place[path] for path in table.frame["path"] if path in place], dtype=np.int64)
    return images, np.nan_to_num(told), in_order


def _subset(labels: np.ndarray, in_order: Int[np.ndarray, " rows"], seed: int | None) -> Int[np.ndarray, " kept"]:
    order = in_order if seed is None else np.random.default_rng(seed).permutation(in_order)
    return np.sort(order[greedy_subset(labels[order], PER_CLASS)])


def _found(store: ActivationStore, units: Units, ids: np.ndarray, labels: np.ndarray, aggregate: Aggregate) -> _Found:
    n = units.d_in if units.kind == "neurons" else units.n  # neurons as they are, without their negatives
    per_chunk = max(1, _CHUNK_ELEMENTS // (units.n * store.hooks[units.hook].rows_per_image))
    chunks = []
    for first in range(0, len(ids), per_chunk):
        some = ids[first : first + per_chunk]
        with torch.no_grad():
            rows = store.rows_of(units.hook, some).flatten(0, 1)
            chunks.append(image_activations(rows, units, len(some), aggregate)[:, :n].cpu().numpy())
    a = sparse.csr_array(np.concatenate(chunks).T.astype(np.float64))
    r = pearson_of(a, labels)
    kept = np.nan_to_num(np.abs(r)).max(1) > LEAST_R
    fired = np.diff(a.indptr)
    return _Found(
        r,
        entropy(r),
        kept,
        metrics.top_latent(r, kept),
        float(fired.mean() / max(1, len(ids))),
        float((fired == 0).mean()),
    )


def _scores(units: Units, found: Sequence[_Found], labels: np.ndarray, explained: float) -> PaperScores:
    one = found[0]
    observations = [
        PaperObservation(
            label=name,
            positives=int((labels[:, c] == 1).sum()),
            uncertain=int((labels[:, c] == -1).sum()),
            latent=units.label(int(one.top[c])),
            r=number(one.top_r[c]),
            entropy=number(one.top_h[c]),
        )
        for c, name in enumerate(LABELS)
    ]
    return PaperScores(
        name=units.name,
        kind=units.kind,
        hook=units.hook,
        latents=len(one.r),
        kept=int(one.kept.sum()),
        mean_top_r=number(mean_known(one.top_r)),
        mean_top_entropy=number(mean_known(one.top_h)),
        bce=number(bce(one.r[one.kept])),
        l0_rate=one.l0_rate,
        explained_variance=number(explained),
        dead_rate=one.dead_rate,
        order_mean_top_r=[number(mean_known(other.top_r)) for other in found[1:]],
        order_mean_top_entropy=[number(mean_known(other.top_h)) for other in found[1:]],
        observations=observations,
    )


def _ranked(entries: Sequence[PaperScores]) -> list[PaperScores]:
    """With their ranks, sorted as the paper's code sorts its columns: by the mean rank of H, those of low H first.

    One that keeps no latent has no rank, and comes last.
    """
    with_latents = [e for e in entries if e.kept]
    for field, of in (("rank_r", "r"), ("rank_entropy", "entropy")):
        values = np.array([[getattr(o, of) for o in e.observations] for e in with_latents], dtype=np.float64)
        ranks = normalised_ranks(values.reshape(len(with_latents), len(LABELS)))
        for entry, rank in zip(with_latents, ranks, strict=True):
            setattr(entry, field, number(rank))
    return sorted(entries, key=lambda e: (not e.kept, np.inf if e.rank_entropy is None else e.rank_entropy))
