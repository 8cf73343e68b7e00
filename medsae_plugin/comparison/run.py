"""Many SAEs on the same images: scored, matched with each other, followed from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from medsae_plugin.comparison.cka import CKASums, cka_of_layers
from medsae_plugin.comparison.correlation import correlations
from medsae_plugin.comparison.differences import (
    Resampled,
    differences,
    explained_variance,
    resample,
)
from medsae_plugin.comparison.entries import Compared, Source, compared_of, sources_of
from medsae_plugin.comparison.flow import Flow, flow
from medsae_plugin.comparison.found import Found, Layer, Pair, summarise, tables
from medsae_plugin.comparison.matching import DecoderCosines, Matching, match
from medsae_plugin.comparison.results import Comparison
from medsae_plugin.comparison.visibility import Visibility, probe
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.scores.images import Folds, LabelledImages
from medsae_plugin.scores.matrix import Aggregate
from medsae_plugin.scores.models import UnitScores
from medsae_plugin.scores.protocols import evaluate
from medsae_plugin.scores.resampling import PatientBootstrap
from medsae_plugin.scores.scoring import Resampling
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.units import Latents
from medsae_plugin.store.reader import ActivationStore

SCORES = "scores"


def compare(
    stores: ActivationStore | Sequence[ActivationStore],
    saes: Any,
    table: ImageTable,
    out: str | Path,
    *,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    folds: Folds | None = None,
    leave_out_trained: bool = False,
    resampling: Resampling | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Comparison:
    """Compare SAEs: layers, architectures, widths and seeds of one encoder, or of several over the same images.

    Every SAE is scored as by `evaluate`, beside the raw neurons of its hook. Then: a linear probe of each
    observation at every hook of the stores (`probe`); CKA of all hooks (`CKASums`); latents matched between every two
    SAEs (`match`); stability across seeds; what becomes of latents from each layer to the next (`flow`); and the
    differences of every two SAEs, and of each SAE and its neurons, with a paired bootstrap over patients.

    Memory grows with the latents of two SAEs (their product) and with the square of the layers' widths, not with the
    number of images times latents.

    Args:
        stores: one, or one for each encoder, of the same images.
        saes: folders or SAEs, several, or what `train_saes` returned; an SAE belongs to the store of the encoder that
            its metadata name.
        folds, leave_out_trained: as of `evaluate`. With folds, probes are cross-fitted as well; latents are matched by
            the roles of the first fold alone, since a match of one fold need not be that of another.
        out: a folder, for `comparison.json`, the tables `saes`, `observations`, `visibility`, `latents`, `matches`,
            `links`, `cka` and `differences` (parquet, one row a thing), and `scores/`, the evaluation itself.

    Returns:
        The comparison; `print` it for its tables.

    Raises:
        MedSAEError: what `evaluate` refuses; stores that do not hold the same images.
    """
    resampling, out = resampling or Resampling(), Path(out)
    sources = sources_of([stores] if isinstance(stores, ActivationStore) else list(stores), saes, device)
    images = LabelledImages.of(sources[0].store, table).with_roles(select, report, folds).without_embeddings()
    trained_on = _trained_on(sources, images, leave_out_trained)
    images = images.without_reported(trained_on)
    compared: list[Compared] = []
    for source in sources:
        folder = out / SCORES if len(sources) == 1 else out / SCORES / source.label
        evaluation = evaluate(
            source.store,
            {name: path or latents.sae for name, (latents, path) in source.saes.items()},
            table,
            folder,
            aggregate=aggregate,
            select=select,
            report=report,
            folds=folds,
            leave_out_trained=trained_on,
            resampling=resampling,
            device=device,
            progress=progress,
        )
        compared += compared_of(source, evaluation, folder, "" if len(sources) == 1 else f"{source.label}/")
    patients = images.patients[images.rows("report")]
    bootstrap = PatientBootstrap(patients, resampling.n_bootstrap, resampling.seed)
    layers = _layers(sources, images, bootstrap, progress)
    order = {(layer.encoder, layer.hook): k for k, layer in enumerate(layers)}
    resampled = [_resample(c, images, bootstrap) for c in tqdm(compared, "resampling", disable=not progress)]
    found = Found(
        evaluation=evaluation,
        encoders=[source.store.manifest["encoder"] | {"label": source.label} for source in sources],
        label_names=images.label_names,
        compared=compared,
        resampled=resampled,
        layers=layers,
        cka=_cka(sources),
        pairs=_pairs([c for c in compared if c.is_sae], (images.folds or (images,))[0], order, progress),
        differences=differences(
            [c.name for c in compared],
            [_points(c) for c in compared],
            resampled,
            images.label_names,
            _compared(compared),
        ),
    )
    comparison = summarise(found)
    comparison.save(out, tables(found, comparison))
    return comparison


def _trained_on(sources: Sequence[Source], images: LabelledImages, leave_out: bool) -> set[str]:
    """The patients to leave out of all SAEs' scores: those that any was trained on."""
    opened = ((source.store, latents) for source in sources for latents, _ in source.saes.values())
    return {patient for store, one in opened for patient in check_held_out([one], store, images, leave_out)[0]}


def _layers(
    sources: Sequence[Source], images: LabelledImages, bootstrap: PatientBootstrap, progress: bool
) -> list[Layer]:
    places = [(source, hook) for source in sources for hook in source.store.hooks]
    made: list[Layer] = []
    for source, hook in tqdm(places, "probing layers", disable=not progress):
        visibility: Visibility = probe(source.store, hook, images, bootstrap)
        made.append(Layer(source.label, hook, source.store.hooks[hook].d, visibility))
    return made


def _cka(sources: Sequence[Source]) -> CKASums:
    return cka_of_layers([(source.store, hook) for source in sources for hook in source.store.hooks])


def _resample(compared: Compared, images: LabelledImages, bootstrap: PatientBootstrap) -> Resampled:
    activations = compared.top_activations(images)
    made = resample(activations, images, bootstrap, _points(compared)["mean_top_entropy"])
    if images.folds:
        _leave_intervals_that_hold(made, compared.scores)
    if isinstance(compared.units, Latents):
        variance = explained_variance(compared.source.store, compared.units.sae, compared.hook, images, bootstrap)
        made.figures["explained_variance"] = variance
    return made


def _leave_intervals_that_hold(made: Resampled, scores: UnitScores) -> None:
    """Of cross-fitted labels those above chance, of means those of which most labels are; see `cross_fitting`."""
    told = [o.value("p_null") for o in scores.observations]
    above = np.array([p is not None and p < 0.05 for p in told])
    made.by_label.update({name: np.where(above, values, np.nan) for name, values in made.by_label.items()})
    if 2 * above.sum() <= sum(p is not None for p in told):
        made.figures.update({name: np.full(len(values), np.nan) for name, values in made.figures.items()})


def _points(compared: Compared) -> dict[str, float]:
    """The figures that differences are taken of, by their names there."""
    scores = compared.scores
    named = {name: scores.value(name) for name in ("mean_top_r", "mean_top_entropy")}
    if scores.fidelity:
        named["explained_variance"] = scores.value("explained_variance")
    named |= {f"r: {o.label}": o.value("r") for o in scores.observations}
    return {name: np.nan if value is None else float(value) for name, value in named.items()}


def _compared(compared: Sequence[Compared]) -> list[tuple[int, int]]:
    """Every two SAEs, and each SAE with the neurons of its layer."""
    saes = [k for k, c in enumerate(compared) if c.is_sae]
    neurons = {c.layer: k for k, c in enumerate(compared) if not c.is_sae}
    return [*combinations(saes, 2), *((k, neurons[compared[k].layer]) for k in saes)]


def _pairs(
    saes: Sequence[Compared], images: LabelledImages, order: dict[tuple[str, str], int], progress: bool
) -> list[Pair]:
    rows = {role: images.rows(role) for role in ("select", "report")}
    eligible = {s.name: s.eligible(images) for s in saes}
    followed = _followed(saes, order)
    pairs = []
    for a, b in tqdm(list(combinations(saes, 2)), "matching", disable=not progress):
        if order[a.layer] > order[b.layer]:
            a, b = b, a
        r = correlations(a.matrix, b.matrix, rows)
        forward, back = match(r, eligible[a.name], eligible[b.name])
        links: Flow | None = None
        if (a.name, b.name) in followed:
            links = flow(r, eligible[a.name], eligible[b.name])
        pairs.append(Pair(a, b, forward, back, _cosines(a, b, forward, back), links))
    return pairs


def _cosines(a: Compared, b: Compared, forward: Matching, back: Matching) -> DecoderCosines | None:
    """None where the SAEs stand in different spaces."""
    if a.layer != b.layer:
        return None
    of_a, of_b = (s.units.directions().double().numpy() for s in (a, b))
    return DecoderCosines.of(of_a, of_b, forward, back)


def _followed(saes: Sequence[Compared], order: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """The pairs whose latents are followed: of consecutive layers the SAEs of one make and seed, or the first ones."""
    chains: dict[tuple[str, str, int | None], list[Compared]] = {}
    for s in saes:
        chains.setdefault((s.source.label, s.variant, s.seed), []).append(s)
    used = [_by_layer(chain, order) for chain in chains.values()]
    used = [chain for chain in used if len(chain) > 1]
    if not used:
        used = [
            _by_layer([s for s in saes if s.source.label == label], order) for label in {s.source.label for s in saes}
        ]
    return {(a.name, b.name) for chain in used for a, b in pairwise(chain)}


def _by_layer(chain: Sequence[Compared], order: dict[tuple[str, str], int]) -> list[Compared]:
    """The first SAE of each layer, in the order of the forward pass."""
    first: dict[tuple[str, str], Compared] = {}
    for s in chain:
        first.setdefault(s.layer, s)
    return sorted(first.values(), key=lambda s: order[s.layer])
