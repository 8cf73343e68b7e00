"""Many SAEs on the same images: scored, matched with each other, followed from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm

from medsae_plugin.comparison.cka import CKASums, cka_of_layers
from medsae_plugin.comparison.correlation import correlations
from medsae_plugin.comparison.differences import Replicates, differences
from medsae_plugin.comparison.entries import Compared, Source, compared_of, recipes_of, sources_of
from medsae_plugin.comparison.flow import Flow, flow
from medsae_plugin.comparison.found import Found, Layer, Pair, summarise, tables
from medsae_plugin.comparison.left_out import left_out
from medsae_plugin.comparison.looks import localised
from medsae_plugin.comparison.matching import DecoderCosines, Matching, match
from medsae_plugin.comparison.results import Comparison
from medsae_plugin.comparison.visibility import Visibility, probe
from medsae_plugin.comparison.winner import rank
from medsae_plugin.data.regions import Regions
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.images import Folds, LabelledImages
from medsae_plugin.scores.judge import JudgeStore
from medsae_plugin.scores.matrix import Aggregate
from medsae_plugin.scores.protocols import evaluate
from medsae_plugin.scores.scoring import HeldOut, Resampling
from medsae_plugin.scores.seen import check_held_out
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
    home: str | None = None,
    folds: Folds | None = None,
    leave_out_trained: bool = False,
    resampling: Resampling | None = None,
    baselines: Sequence[str | Path] = (),
    judge: JudgeStore | None = None,
    regions: Regions | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Comparison:
    """Compare SAEs: layers, architectures, widths and seeds of one encoder, or of several over the same images.

    Every SAE is scored as by `evaluate`, beside the raw neurons of its hook. Then: a linear probe of each
    observation at every hook of the stores (`probe`); CKA of all hooks (`CKASums`); latents matched between every two
    SAEs (`match`); stability across seeds; what becomes of latents from each layer to the next (`flow`); and the
    differences of every two recipes, and of each recipe and its neurons, over patients and seeds (`differences`). SAEs
    that differ in their seed alone are one recipe. Ranks, and so the winner, are chosen on the split `val` where the
    store has images in it that are neither `select` nor `report`, and else on `report`, and it says so (`rank`).

    Memory grows with the latents of two SAEs (their product) and with the square of the layers' widths, not with the
    number of images times latents.

    Args:
        stores: one, or one for each encoder, of the same images.
        saes: folders or SAEs, several, or what `train_saes` returned; an SAE belongs to the store of the encoder that
            its metadata name.
        baselines: folders of `medsae baselines`; those of an SAE are scored beside it.
        judge: as of `evaluate`, for the SAEs of every store.
        regions: of findings on the images, for where the SAEs of each layer look (`localised`); with two splits, not
            with folds.
        home, folds, leave_out_trained: as of `evaluate`. With folds, probes are cross-fitted as well; latents are
            matched by the roles of the first fold alone, since a match of one fold need not be that of another.
        out: a folder, for `comparison.json`, the tables `saes`, `observations`, `visibility`, `latents`, `matches`,
            `links`, `cka` and `differences` (parquet, one row a thing), and `scores/`, the evaluation itself.

    Returns:
        The comparison; `print` it for its tables.

    Raises:
        MedSAEError: what `evaluate` refuses; stores that do not hold the same images; regions and folds.
    """
    if regions is not None and folds is not None:
        raise MedSAEError("regions are scored between two splits; leave the folds out, or the regions")
    resampling, out = resampling or Resampling(), Path(out)
    sources = sources_of([stores] if isinstance(stores, ActivationStore) else list(stores), saes, device, baselines)
    images = LabelledImages.of(sources[0].store, table).with_roles(select, report, folds).without_embeddings()
    trained_on = _trained_on(sources, images, leave_out_trained)
    images = images.without_reported(trained_on)
    shared: dict[str, Any] = {"aggregate": aggregate, "select": select, "report": report,
                              "leave_out_trained": trained_on, "device": device, "progress": progress}  # fmt: skip
    compared: list[Compared] = []
    for source in sources:
        folder = _scores_of(out, source, sources)
        evaluation = evaluate(
            source.store,
            source.saes,
            table,
            folder,
            home=home,
            folds=folds,
            resampling=resampling,
            baselines=source.baselines,
            judge=judge,
            **shared,
        )
        compared += compared_of(source, evaluation, folder, "" if len(sources) == 1 else f"{source.label}/")
    held_out = HeldOut(images)
    layers = _layers(sources, held_out, progress)
    order = {(layer.encoder, layer.hook): k for k, layer in enumerate(layers)}
    without_each = [left_out(c, held_out) for c in tqdm(compared, "jackknife", disable=not progress)]
    recipes = recipes_of(compared)
    found = Found(
        evaluation=evaluation,
        encoders=[{**source.store.manifest.encoder.model_dump(), "label": source.label} for source in sources],
        label_names=images.label_names,
        compared=compared,
        recipes=recipes,
        left_out=without_each,
        layers=layers,
        cka=_cka(sources),
        pairs=_pairs([c for c in compared if c.is_sae], (images.folds or (images,))[0], order, progress),
        differences=differences(without_each, _paired(compared, recipes)),
        ranking=rank(compared, table, select, report, images),
    )
    comparison = summarise(found)
    if regions is not None:
        folders = [(source, _scores_of(out, source, sources)) for source in sources]
        comparison.localisation = localised(folders, table, regions, seed=resampling.seed, **shared)
    comparison.save(out, tables(found, comparison))
    return comparison


def _scores_of(out: Path, source: Source, sources: Sequence[Source]) -> Path:
    """Where the evaluation of a store's SAEs is."""
    return out / SCORES if len(sources) == 1 else out / SCORES / source.label


def _trained_on(sources: Sequence[Source], images: LabelledImages, leave_out: bool) -> set[str]:
    """The patients to leave out of all SAEs' scores: those that any was trained on."""
    opened = ((source.store, latents) for source in sources for latents, _ in source.saes.values())
    return {patient for store, one in opened for patient in check_held_out([one], store, images, leave_out)[0]}


def _layers(sources: Sequence[Source], held_out: HeldOut, progress: bool) -> list[Layer]:
    places = [(source, hook) for source in sources for hook in source.store.hooks]
    made: list[Layer] = []
    for source, hook in tqdm(places, "probing layers", disable=not progress):
        visibility: Visibility = probe(source.store, hook, held_out)
        made.append(Layer(source.label, hook, source.store.hooks[hook].d, visibility))
    return made


def _cka(sources: Sequence[Source]) -> CKASums:
    return cka_of_layers([(source.store, hook) for source in sources for hook in source.store.hooks])


def _paired(compared: Sequence[Compared], recipes: Sequence[Replicates]) -> list[tuple[Replicates, Replicates]]:
    """Every two recipes, and each with the neurons of its layer and with its baselines."""
    saes = [one for one in recipes if compared[one.places[0]].is_sae]
    beside = [(one, other) for one in saes for other in recipes if _is_beside(compared, one, other)]
    return [*combinations(saes, 2), *beside]


def _is_beside(compared: Sequence[Compared], one: Replicates, other: Replicates) -> bool:
    first, over = compared[one.places[0]], compared[other.places[0]]
    if over.units.kind == "neurons":
        return over.layer == first.layer
    return any(compared[k].has_baseline(over) for k in one.places)


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
