"""Many SAEs on the same images: scored, matched with each other, followed from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from medsae_plugin.comparison.flow import Flow, flow
from medsae_plugin.comparison.matching import DecoderCosines, Matching, match
from medsae_plugin.comparison.output import Comparison, Layer, Pair, write
from medsae_plugin.comparison.subjects import Site, Subject, sites_of, subjects_of
from medsae_plugin.comparison.visibility import Visibility, probe
from medsae_plugin.evaluation.latents import Aggregate
from medsae_plugin.evaluation.resampling import PatientBootstrap
from medsae_plugin.evaluation.scores import evaluate_saes
from medsae_plugin.evaluation.scoring import Resampling
from medsae_plugin.evaluation.targets import Targets, targets_of

if TYPE_CHECKING:
    from medsae_plugin.activations import ActivationStore
    from medsae_plugin.data.tables import ImageTable

SCORES = "scores"


def compare_saes(
    stores: ActivationStore | Sequence[ActivationStore],
    sae_paths: Sequence[str | Path],
    table: ImageTable,
    out: str | Path,
    *,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    resampling: Resampling | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare SAEs: layers, architectures, widths and seeds of one encoder, or of several over the same images.

    Every SAE is scored as by `evaluate_saes`, beside the raw neurons of its hook. Then: a linear probe of each
    observation at every hook of the stores (`probe`); CKA of all hooks (`CKASums`); latents matched between every two
    SAEs (`match`); stability across seeds; what becomes of latents from each layer to the next (`flow`); and the
    differences of every two SAEs, and of each SAE and its neurons, with a paired bootstrap over patients.

    Memory grows with the latents of two SAEs (their product) and with the square of the layers' widths, not with the
    number of images times latents.

    Args:
        stores: one, or one for each encoder, of the same images.
        sae_paths: folders in SAE-Lens's format; an SAE belongs to the store of the encoder that its metadata name.
        out: a folder, for `comparison.json`, the tables `saes`, `observations`, `visibility`, `latents`, `matches`,
            `links`, `cka` and `differences` (parquet, one row a thing), and `scores/`, the evaluation itself.

    Returns:
        The contents of `comparison.json`.

    Raises:
        MedSAEError: what `evaluate_saes` refuses; stores that do not hold the same images.
    """
    resampling, out = resampling or Resampling(), Path(out)
    sites = sites_of([stores] if not isinstance(stores, Sequence) else list(stores), sae_paths)
    subjects: list[Subject] = []
    for site in sites:
        scores = out / SCORES if len(sites) == 1 else out / SCORES / site.label
        metrics = evaluate_saes(
            site.store,
            list(site.sae_paths),
            table,
            scores,
            aggregate=aggregate,
            select=select,
            report=report,
            resampling=resampling,
            progress=progress,
        )
        subjects += subjects_of(site, metrics, scores, "" if len(sites) == 1 else f"{site.label}/")
    targets = targets_of(sites[0].store, table, select, report).labels_only()
    patients = targets.patients[targets.rows("report")]
    bootstrap = PatientBootstrap(patients, resampling.n_bootstrap, resampling.seed)
    layers = _layers(sites, targets, bootstrap, progress)
    saes = [s for s in subjects if s.path is not None]
    order = {(layer.encoder, layer.hook): k for k, layer in enumerate(layers)}
    resampled = [_resample(s, targets, bootstrap) for s in tqdm(subjects, "resampling", disable=not progress)]
    comparison = Comparison(
        header={key: metrics[key] for key in ("medsae_plugin", "aggregate", "select", "report", "resampling")},
        encoders=[site.store.manifest["encoder"] | {"label": site.label} for site in sites],
        label_names=targets.label_names,
        subjects=subjects,
        resampled=resampled,
        layers=layers,
        cka=_cka(sites),
        pairs=_pairs(saes, targets, order, progress),
        differences=differences(
            [s.name for s in subjects],
            [_points(s) for s in subjects],
            resampled,
            targets.label_names,
            _compared(subjects),
        ),
    )
    return write(comparison, out)


def _layers(sites: Sequence[Site], targets: Targets, bootstrap: PatientBootstrap, progress: bool) -> list[Layer]:
    places = [(site, hook) for site in sites for hook in site.store.hooks]
    made: list[Layer] = []
    for site, hook in tqdm(places, "probing layers", disable=not progress):
        visibility: Visibility = probe(site.store, hook, targets, bootstrap)
        made.append(Layer(site.label, hook, site.store.hooks[hook].d, visibility))
    return made


def _cka(sites: Sequence[Site]) -> CKASums:
    return cka_of_layers([(site.store, hook) for site in sites for hook in site.store.hooks])


def _resample(subject: Subject, targets: Targets, bootstrap: PatientBootstrap) -> Resampled:
    entropy = _points(subject)["mean_top_entropy"]
    made = resample(subject.matrix, subject.top(), targets, bootstrap, entropy)
    if subject.path is not None:
        sae = subject.load()
        variance = explained_variance(subject.site.store, sae, subject.hook, targets, bootstrap)
        made.figures["explained_variance"] = variance
    return made


def _points(subject: Subject) -> dict[str, float]:
    """The figures that differences are taken of, by their names there."""
    figures = subject.figures
    named = {name: figures[name] for name in ("mean_top_r", "mean_top_entropy")}
    if figures["fidelity"]:
        named["explained_variance"] = figures["fidelity"]["explained_variance"]
    named |= {f"r: {o['label']}": o["r"] for o in figures["observations"]}
    return {name: np.nan if value is None else float(value) for name, value in named.items()}


def _compared(subjects: Sequence[Subject]) -> list[tuple[int, int]]:
    """Every two SAEs, and each SAE with the neurons of its layer."""
    saes = [k for k, s in enumerate(subjects) if s.path is not None]
    neurons = {s.layer: k for k, s in enumerate(subjects) if s.path is None}
    return [*combinations(saes, 2), *((k, neurons[subjects[k].layer]) for k in saes)]


def _pairs(saes: Sequence[Subject], targets: Targets, order: dict[tuple[str, str], int], progress: bool) -> list[Pair]:
    rows = {role: targets.rows(role) for role in ("select", "report")}
    eligible = {s.name: s.eligible(targets) for s in saes}
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


def _cosines(a: Subject, b: Subject, forward: Matching, back: Matching) -> DecoderCosines | None:
    """None where the SAEs stand in different spaces."""
    if a.layer != b.layer:
        return None
    of_a, of_b = (s.load().W_dec.detach().cpu().double().numpy() for s in (a, b))
    return DecoderCosines.of(of_a, of_b, forward, back)


def _followed(saes: Sequence[Subject], order: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """The pairs whose latents are followed: of consecutive layers the SAEs of one make and seed, or the first ones."""
    chains: dict[tuple[str, str, int | None], list[Subject]] = {}
    for s in saes:
        chains.setdefault((s.site.label, s.variant, s.seed), []).append(s)
    used = [_by_layer(chain, order) for chain in chains.values()]
    used = [chain for chain in used if len(chain) > 1]
    if not used:
        used = [_by_layer([s for s in saes if s.site.label == site], order) for site in {s.site.label for s in saes}]
    return {(a.name, b.name) for chain in used for a, b in pairwise(chain)}


def _by_layer(chain: Sequence[Subject], order: dict[tuple[str, str], int]) -> list[Subject]:
    """The first SAE of each layer, in the order of the forward pass."""
    first: dict[tuple[str, str], Subject] = {}
    for s in chain:
        first.setdefault(s.layer, s)
    return sorted(first.values(), key=lambda s: order[s.layer])
