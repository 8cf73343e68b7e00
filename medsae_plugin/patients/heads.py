"""Fits concept heads: chosen and fitted on `select`, their strength chosen on `tune`, told of on `report`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.encoders.zero_shot import ZeroShot
from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.names import Names
from medsae_plugin.patients.calibration import brier, calibration_error, curve
from medsae_plugin.patients.head import ConceptHead
from medsae_plugin.patients.head_results import HeadKind, HeadLabel, HeadReport
from medsae_plugin.patients.rules import rules_of
from medsae_plugin.scores.image_means import image_means
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.logistic import Features, fit_head_tried
from medsae_plugin.scores.matrix import Aggregate, latent_matrix
from medsae_plugin.scores.models import Encoder, Split
from medsae_plugin.scores.opening import open_latents
from medsae_plugin.scores.protocols import kept_or_scratch
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.reported_auroc import ReportedAUROC
from medsae_plugin.scores.scoring import HeldOut, least_firing
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.units import Latents
from medsae_plugin.statistics.correlation import pearson_of
from medsae_plugin.store.reader import ActivationStore

KS = (1, 2, 5, 10, 20)
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_KNOTS = (1 / 3, 2 / 3)  # quantiles of a latent's activations where it fires; the first knot is 0


def fit_head(
    store: ActivationStore,
    sae: Any,
    table: ImageTable,
    out: str | Path | None = None,
    *,
    kind: HeadKind = "l1",
    aggregate: Aggregate = "max",
    select: str = "train",
    tune: str = "val",
    report: str = "test",
    zero_shot: ZeroShot | None = None,
    names: Names | None = None,
    leave_out_trained: bool = False,
    device: str = "cpu",
    progress: bool = True,
) -> ConceptHead:
    """Fit a head on an SAE's latents for each of the table's labels, beside a probe of all neurons of its hook.

    Candidates are the latents that fire often enough on `select`. `l1` takes all of them and a penalty on sizes, which
    leaves most out; `top-k` the k of largest |r| with the label there, and `additive` a curve of each of them, a line
    that bends at a third and two thirds of its activations. k and the penalty are those of the least cross-entropy on
    `tune`; nothing is chosen on `report`.

    Args:
        zero_shot: the encoder's own words for the labels, to stand beside; the store must hold its embeddings.
        names: of the latents, for tables and rules.
        out: a folder, for `head.safetensors` and `head.json`.

    Raises:
        MedSAEError: what `evaluate` refuses; several SAEs; names of another SAE; `tune` without images or with
            patients of another of the splits.
    """
    opened = open_latents(sae, store, device)
    if len(opened) != 1:
        raise MedSAEError(f"a head is of one SAE's latents, and here are {len(opened)}: {', '.join(opened)}")
    ((latents, _),) = opened.values()
    images = LabelledImages.of(store, table).with_roles(select, report)
    for split in (select, report):
        images.check_apart(tune, split)
    trained_on, seen = check_held_out([latents], store, images, leave_out_trained)
    images = images.without_reported(trained_on)
    tuned = images.rows_in([tune])
    named, words = _names(names, latents), _zero_shot(images, zero_shot)
    with kept_or_scratch(None) as folder:
        matrix = latent_matrix(store, latents, folder / "latents", aggregate=aggregate, progress=progress)
        every = sparse.csr_array(sparse.vstack([sparse.csr_array(part) for _, part in matrix.shards()]))
    neurons = np.concatenate([x for _, x in image_means(store, latents.hook)])
    data = _Data(HeldOut(images.without_embeddings()), tuned, every, neurons)
    fitted = [_fit(data, c, kind) for c in range(len(images.label_names))]
    splits = counts(images)
    made = HeadReport(
        encoder=Encoder.of(store),
        sae=latents.name,
        sae_sha256=str(latents.sae_sha256),
        hook=latents.hook,
        n=latents.n,
        aggregate=aggregate,
        kind=kind,
        select=splits["select"],
        tuned=Split(split=tune, images=len(tuned), patients=len(set(images.patients[tuned]))),
        report=splits["report"],
        held_out_from=seen.get(latents.name),
        names=named,
        labels=_figures(data, fitted, words),
    )
    head = _joined(fitted, made)
    if out is not None:
        head.save(out)
    return head


def _names(names: Names | None, latents: Latents) -> dict[int, str]:
    if names is None:
        return {}
    runs = [run for run in names.runs() if run.made["sae_sha256"] == latents.sae_sha256]
    if not runs:
        raise MedSAEError(f"the names are of the latents of another SAE than {latents.name}")
    return {int(unit.latent): unit.concept for run in runs for unit in run.of("latent")}


@dataclass(frozen=True)
class _Data:
    """What heads of all labels are fitted on. tuned: the images of `tune`; x: latents' activations, all images."""

    held_out: HeldOut
    tuned: Int[np.ndarray, " tuned"]
    x: sparse.csr_array
    neurons: Float[np.ndarray, "images d"]

    @cached_property
    def candidates(self) -> Int[np.ndarray, " chosen"]:
        """The latents that fire on enough images of `select`."""
        on_select = self.x[self.select]
        fires = np.bincount(on_select.indices[on_select.data > 0], minlength=on_select.shape[1])
        return np.flatnonzero(fires >= least_firing(len(self.select)))

    @cached_property
    def select(self) -> Int[np.ndarray, " selected"]:
        return self.held_out.images.rows("select")

    def known(self, rows: Int[np.ndarray, " rows"], c: int) -> tuple[Int[np.ndarray, " known"], np.ndarray]:
        """Those of some images where label c is known, with it."""
        y = self.held_out.images.labels[rows, c]
        return rows[~np.isnan(y)], y[~np.isnan(y)]


@dataclass(frozen=True)
class _Fitted:
    """One label's head: its terms, and what it says of the images of `report`."""

    bias: float
    latent: Int[np.ndarray, " terms"]
    knot: Float[np.ndarray, " terms"]
    slope: Float[np.ndarray, " terms"]
    log_odds: Float[np.ndarray, " reported"]
    probe: Float[np.ndarray, " reported"]
    k: int | None
    strength: float | None
    share: float


def _fit(data: _Data, c: int, kind: HeadKind) -> _Fitted | None:
    """None where the label does not vary on `select` or on `tune`, or no latent fires often enough."""
    (rows, y), (tried, tried_y) = data.known(data.select, c), data.known(data.tuned, c)
    if len(np.unique(y)) < 2 or len(np.unique(tried_y)) < 2:
        return None
    chosen = data.candidates
    if not len(chosen):
        return None
    if kind != "l1":
        r = pearson_of(sparse.csr_array(data.x[rows][:, chosen].T.astype(np.float64)), y[:, None])[:, 0]
        chosen = chosen[np.argsort(-np.nan_to_num(np.abs(r)), kind="stable")[: max(KS)]]
    best = None
    for k in sorted({min(k, len(chosen)) for k in ([len(chosen)] if kind == "l1" else KS)}):
        latent, knot = _terms(data.x[rows], chosen[:k], kind)
        head, strength, loss = fit_head_tried(
            _hinges(data.x[rows], latent, knot, kind), y, _hinges(data.x[tried], latent, knot, kind), tried_y,
            STRENGTHS, l1=kind == "l1",
        )  # fmt: skip
        if best is None or loss < best[0]:
            best = loss, k, strength, head, latent, knot
    assert best is not None
    _, k, strength, head, latent, knot = best
    reported = data.held_out.report
    probe, _, _ = fit_head_tried(data.neurons[rows], y, data.neurons[tried], tried_y, STRENGTHS)
    kept = head.weights != 0
    return _Fitted(
        bias=head.bias,
        latent=latent[kept],
        knot=knot[kept],
        slope=head.weights[kept],
        log_odds=head(_hinges(data.x[reported], latent, knot, kind)),
        probe=probe(data.neurons[reported]),
        k=None if kind == "l1" else k,
        strength=strength,
        share=float(y.mean()),
    )


def _terms(
    on_select: sparse.csr_array, chosen: Int[np.ndarray, " chosen"], kind: HeadKind
) -> tuple[Int[np.ndarray, " terms"], Float[np.ndarray, " terms"]]:
    """The latent and the knot of each term."""
    if kind != "additive":
        return chosen, np.zeros(len(chosen))
    columns = sparse.csc_array(on_select[:, chosen])
    pairs = [(j, 0.0) for j in chosen.tolist()]
    for k, j in enumerate(chosen.tolist()):
        fired = columns.data[columns.indptr[k] : columns.indptr[k + 1]]
        knots = np.quantile(fired[fired > 0].astype(np.float64), _KNOTS) if (fired > 0).any() else []
        pairs += [(j, knot) for knot in dict.fromkeys(map(float, knots)) if knot > 0]
    latent, knot = zip(*pairs, strict=True)
    return np.array(latent, dtype=np.int64), np.array(knot, dtype=np.float64)


def _hinges(
    x: sparse.csr_array, latent: Int[np.ndarray, " terms"], knot: Float[np.ndarray, " terms"], kind: HeadKind
) -> Features:
    columns = sparse.csr_array(x[:, latent])
    return columns if kind == "l1" else np.maximum(0, columns.toarray().astype(np.float64) - knot)


def _joined(fitted: list[_Fitted | None], report: HeadReport) -> ConceptHead:
    """A label without a head has no term, and no bias but 0: its log-odds tell nothing, as `report` says."""
    has = [(c, one) for c, one in enumerate(fitted) if one is not None]
    if not has:
        raise MedSAEError(
            f"no label varies on both {report.select.split!r} and {report.tuned.split!r}, so no head can be fitted"
        )
    bias = np.zeros(len(fitted))
    for c, one in has:
        bias[c] = one.bias
    label = np.repeat([c for c, _ in has], [len(one.latent) for _, one in has])
    parts = {key: np.concatenate([getattr(one, key) for _, one in has]) for key in ("latent", "knot", "slope")}
    return ConceptHead(bias=bias, label=label, report=report, **parts)


def _zero_shot(images: LabelledImages, zero_shot: ZeroShot | None) -> Float[np.ndarray, "reported labels"] | None:
    """The encoder's own scores of the images of `report`; nan of labels that it has no words for."""
    import torch

    if zero_shot is None:
        return None
    if images.embeddings is None:
        raise MedSAEError("the store holds no hook_embedding, so zero-shot scores cannot be told; extract it too")
    rows = images.rows("report")
    scores = np.full((len(rows), len(images.label_names)), np.nan)
    found = zero_shot.scores(torch.from_numpy(images.embeddings(slice(None))[rows])).numpy()
    for k, label in enumerate(zero_shot.labels):
        if label in images.label_names:
            scores[:, images.label_names.index(label)] = found[:, k]
    return scores


def _figures(
    data: _Data, fitted: list[_Fitted | None], zero_shot: Float[np.ndarray, "reported labels"] | None
) -> list[HeadLabel]:
    held_out = data.held_out
    blank = np.full(len(held_out.report), np.nan)
    said = np.stack([blank if one is None else one.log_odds for one in fitted], axis=1)
    told = ReportedAUROC.of(held_out, said)
    probe = ReportedAUROC.of(held_out, np.stack([blank if f is None else f.probe for f in fitted], axis=1))
    words = None if zero_shot is None else ReportedAUROC.of(held_out, zero_shot).auroc
    found = []
    for c, (one, label) in enumerate(zip(fitted, held_out.images.label_names, strict=True)):
        y = held_out.labels[:, c]
        known = ~np.isnan(y)
        row = HeadLabel(
            label=label,
            positives=int((y == 1).sum()),
            known=int(known.sum()),
            latents=0 if one is None else len(np.unique(one.latent)),
            auroc=number(told.auroc[c]),
            interval=told.interval(c),
            no_interval=told.no_interval[c],
            probe=number(probe.auroc[c]),
            probe_interval=probe.interval(c),
            zero_shot=None if words is None else number(words[c]),
        )
        if one is not None and known.any():
            probability = 1 / (1 + np.exp(-one.log_odds[known]))
            row.k, row.strength = one.k, one.strength
            row.brier, row.brier_of_share = (
                brier(probability, y[known]),
                brier(np.full(known.sum(), one.share), y[known]),
            )
            row.curve = curve(probability, y[known])
            row.ece = calibration_error(row.curve)
            row.rules = _rules(data, c, one)
        found.append(row)
    return found


def _rules(data: _Data, c: int, one: _Fitted) -> list:
    latents = np.unique(one.latent)
    if not len(latents):
        return []
    (rows, y), (told, told_y) = data.known(data.select, c), data.known(data.held_out.report, c)
    dense = [np.asarray(sparse.csr_array(data.x[of][:, latents]).toarray(), dtype=np.float64) for of in (rows, told)]
    return rules_of(latents, (dense[0], y), (dense[1], told_y, data.held_out.images.patients[told]))
