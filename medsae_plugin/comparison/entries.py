"""What a comparison compares: scored SAEs, each with its store, its latents and what it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from medsae_plugin.comparison.correlation import LatentMoments, moments
from medsae_plugin.comparison.differences import Replicates
from medsae_plugin.errors import MedSAEError
from medsae_plugin.sae_folders import distinct_names
from medsae_plugin.scores.baselines import open_baselines
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.models import UnitScores
from medsae_plugin.scores.opening import open_latents
from medsae_plugin.scores.results import Evaluation
from medsae_plugin.scores.scoring import least_firing
from medsae_plugin.scores.units import Latents, Neurons, Units
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.baseline_folders import Note, baseline_folders
from medsae_plugin.training.records import read_training


@dataclass(frozen=True)
class Source:
    """A store, that is one encoder, and the SAEs that stand in it by name, each with the folder that it came from.

    baselines: those that stand beside these SAEs, by the name of each.
    """

    label: str
    store: ActivationStore
    saes: dict[str, tuple[Latents, Path | None]]
    baselines: dict[str, list[Units]] = field(default_factory=dict)

    @property
    def latents(self) -> dict[str, Latents]:
        """Of its SAEs, by name."""
        return {name: latents for name, (latents, _) in self.saes.items()}


@dataclass(frozen=True)
class Compared:
    """One scored SAE, a baseline of one, or one layer's raw neurons.

    name: as in the comparison, with the encoder in front where there are several encoders.
    made: what it was made from, but for its place and name: architecture, width, options, training, seed.
    top_activations: of each label its top latent on the images of `report`, see `Evaluation.top_activations`.
    """

    name: str
    source: Source
    units: Units
    scores: UnitScores
    matrix: LatentMatrix
    made: dict[str, Any]
    top_activations: Float[np.ndarray, "rows labels"]

    @property
    def is_sae(self) -> bool:
        return self.units.kind == "sae"

    def has_baseline(self, other: Compared) -> bool:
        """Whether the other one stands beside this SAE."""
        return self.source is other.source and other.units.baseline_of == self.scores.name

    @property
    def hook(self) -> str:
        return self.units.hook

    @property
    def layer(self) -> tuple[str, str]:
        return self.source.label, self.hook

    @property
    def seed(self) -> int | None:
        return self.made.get("seed")

    @property
    def variant(self) -> str:
        """What SAEs share that differ in their seed alone, at whatever layer."""
        return json.dumps({k: v for k, v in self.made.items() if k != "seed"}, sort_keys=True)

    def eligible(self, images: LabelledImages) -> Bool[np.ndarray, " latents"]:
        """The latents that fire on enough images of `select` to be matched."""
        select = images.rows("select")
        return self.moments(select).fired >= least_firing(len(select))

    def moments(self, rows: np.ndarray) -> LatentMoments:
        return moments(self.matrix, rows)


def sources_of(
    stores: Sequence[ActivationStore], saes: Any, device: str = "cpu", baselines: Sequence[str | Path] = ()
) -> list[Source]:
    """Each store with the SAEs that were trained on its encoder, and with their baselines; with one store, all SAEs are
    its.

    Raises:
        MedSAEError: stores of other images, or of one encoder twice; another encoder's SAE; a baseline of none of these
            SAEs; what `open_latents` refuses.
    """
    sources = _sources(stores, saes, device)
    of_weights = {latents.sae_sha256: k for k, s in enumerate(sources) for latents, _ in s.saes.values()}
    folders = baseline_folders(baselines)
    place = [of_weights.get(Note.open(folder).of_sha256, 0) for folder in folders]  # what is of none, the first refuses
    mine = [[f for f, at in zip(folders, place, strict=True) if at == k] for k in range(len(sources))]
    return [
        replace(source, baselines=open_baselines(of, source.latents, source.store, device))
        for source, of in zip(sources, mine, strict=True)
    ]


def _sources(stores: Sequence[ActivationStore], saes: Any, device: str) -> list[Source]:
    if len(stores) == 1:
        opened = open_latents(saes, stores[0], device)
        return [Source(stores[0].encoder_name, stores[0], opened)]
    hashes = [store.weights_sha256 for store in stores]
    if len(set(hashes)) < len(hashes):
        raise MedSAEError("two of the stores are of the same encoder; extract all its hooks into one store")
    for store in stores[1:]:
        _check_same_images(stores[0], store)
    of_store: dict[str, list[tuple[Latents, Path | None]]] = {sha: [] for sha in hashes}
    for latents, path in open_latents(saes, device=device).values():
        store = _store_of(latents, stores)
        latents.check_fits(store)
        of_store[store.weights_sha256].append((latents, path))
    names = [store.encoder_name for store in stores]
    labels = [name if names.count(name) == 1 else f"{name}@{sha[:8]}" for name, sha in zip(names, hashes, strict=True)]
    return [
        Source(label, store, _named(of_store[sha], keep=isinstance(saes, Mapping)))
        for label, store, sha in zip(labels, stores, hashes, strict=True)
        if of_store[sha]
    ]


def _named(saes: Sequence[tuple[Latents, Path | None]], keep: bool) -> dict[str, tuple[Latents, Path | None]]:
    """The SAEs of one store by name: folders by as little of their paths as tells them apart here, unless to `keep`."""
    short = iter(distinct_names([path for _, path in saes if path and not keep]))
    renamed = [(replace(one, name=next(short)) if path and not keep else one, path) for one, path in saes]
    return {one.name: (one, path) for one, path in renamed}


def _store_of(latents: Latents, stores: Sequence[ActivationStore]) -> ActivationStore:
    """The store of an SAE's encoder: by the checksum of its weights, else by its name."""
    sha, name = latents.encoder_sha256, latents.encoder
    found = [s for s in stores if (s.weights_sha256 == sha if sha else s.encoder_name == name)]
    if len(found) != 1:
        what = f"weights {sha[:12]}..." if sha else f"encoder {name}, and does not say which weights"
        raise MedSAEError(
            f"{latents.name} is an SAE of {what}; none of the stores is: they are of "
            f"{', '.join(s.encoder_name for s in stores)}"
        )
    return found[0]


def compared_of(source: Source, evaluation: Evaluation, folder: Path, prefix: str = "") -> list[Compared]:
    """The SAEs of a source in the order given, their baselines, then the raw neurons of each of its hooks."""
    saes = source.latents
    units: dict[str, Units] = {**saes}
    units |= {one.name: one for found in source.baselines.values() for one in found}
    neurons = [Neurons.of(hook, d) for hook, d in {u.hook: u.d_in for u in saes.values()}.items()]
    units |= {one.name: one for one in neurons}
    return [
        Compared(
            name=prefix + name,
            source=source,
            units=one,
            scores=evaluation[name],
            matrix=LatentMatrix(folder / "latents" / one.folder_name),
            made=_made(*source.saes[name]) if name in source.saes else {},
            top_activations=evaluation.top_activations(name),
        )
        for name, one in units.items()
    ]


def recipes_of(compared: Sequence[Compared]) -> list[Replicates]:
    """The SAEs of one layer that were made alike but for their seed (`Compared.variant`, from what each says of itself)
    together; raw neurons, and SAEs of which two have one seed, each alone."""
    groups: dict[tuple[tuple[str, str], str], list[int]] = {}
    for k, one in enumerate(compared):
        groups.setdefault((one.layer, one.variant if one.is_sae else one.name), []).append(k)
    made = []
    for places in groups.values():
        if len({compared[k].seed for k in places}) == len(places) > 1:
            made.append(Replicates(f"{compared[places[0]].name} ({len(places)} seeds)", tuple(places)))
        else:
            made += [Replicates(compared[k].name, (k,), compared[k].units.kind != "neurons") for k in places]
    return made


def _made(latents: Latents, path: Path | None) -> dict[str, Any]:
    """From `training.json` where there is one, else from the SAE's own config."""
    if path is not None and (record := read_training(path)):
        made = record.trained_by
        spec = {k: v for k, v in made["sae"].items() if k not in ("name", "hook")}
        return {**spec, "training": {k: v for k, v in made["training"].items() if k != "seed"}}
    config = json.loads(json.dumps(latents.sae.cfg.to_dict(), default=str))
    metadata = config.pop("metadata", {})
    return {**{k: v for k, v in config.items() if k not in ("device", "d_in")}, "seed": metadata.get("seed")}


def _check_same_images(one: ActivationStore, other: ActivationStore) -> None:
    columns = ["image_id", "path", "patient", "split"]
    if not one.readable_images[columns].equals(other.readable_images[columns]):
        raise MedSAEError(
            f"{one.path} and {other.path} do not hold the same images in the same splits; extract both from one table"
        )
