"""What a comparison compares: scored SAEs, each with its store, its latents and what it was made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medsae_plugin.comparison.correlation import LatentMoments, moments
from medsae_plugin.errors import MedSAEError
from medsae_plugin.evaluation.candidates import check_sae_folder, load_sae, matrix_folder
from medsae_plugin.evaluation.latents import LatentMatrix
from medsae_plugin.evaluation.scoring import least_firing
from medsae_plugin.evaluation.targets import Targets
from medsae_plugin.files import read_json

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.activations import ActivationStore

SAE_CONFIG, TRAINING = "cfg.json", "training.json"


@dataclass(frozen=True)
class Site:
    """A store, that is one encoder, and the SAEs that stand in it."""

    label: str
    store: ActivationStore
    sae_paths: tuple[Path, ...]


@dataclass(frozen=True)
class Subject:
    """One scored SAE, or one layer's raw neurons.

    name: as in the comparison, with the encoder in front where there are several encoders.
    figures: its entry in the evaluation's `metrics.json`.
    made: what it was made from, but for its place and name: architecture, width, options, training, seed.
    """

    name: str
    site: Site
    figures: dict[str, Any]
    matrix: LatentMatrix
    path: Path | None
    made: dict[str, Any]

    @property
    def hook(self) -> str:
        return str(self.figures["hook"])

    @property
    def layer(self) -> tuple[str, str]:
        return self.site.label, self.hook

    @property
    def seed(self) -> int | None:
        return self.made.get("seed")

    @property
    def variant(self) -> str:
        """What SAEs share that differ in their seed alone, at whatever layer."""
        return json.dumps({k: v for k, v in self.made.items() if k != "seed"}, sort_keys=True)

    def top(self) -> np.ndarray:
        """The top latent of each label, -1 for none; for neurons a column of their matrix."""
        return np.array([_column(o["latent"], self.figures["d_in"]) for o in self.figures["observations"]])

    def eligible(self, targets: Targets) -> np.ndarray:
        """The latents that fire on enough images of `select` to be matched."""
        select = targets.rows("select")
        return self.moments(select).fired >= least_firing(len(select))

    def moments(self, rows: np.ndarray) -> LatentMoments:
        return moments(self.matrix, rows)

    def load(self) -> SAE[Any]:
        assert self.path is not None
        return load_sae(self.path)


def sites_of(stores: Sequence[ActivationStore], sae_paths: Sequence[str | Path]) -> list[Site]:
    """Each store with the SAEs that were trained on its encoder; with one store, all SAEs are its.

    Raises:
        MedSAEError: stores of other images, or of one encoder twice; a folder without an SAE; another encoder's SAE.
    """
    paths = [Path(p) for p in sae_paths]
    if len(stores) == 1:
        return [Site(str(stores[0].manifest["encoder"]["name"]), stores[0], tuple(paths))]
    encoders = [store.manifest["encoder"] for store in stores]
    hashes = [encoder["weights_sha256"] for encoder in encoders]
    if len(set(hashes)) < len(hashes):
        raise MedSAEError("two of the stores are of the same encoder; extract all its hooks into one store")
    for store in stores[1:]:
        _check_same_images(stores[0], store)
    of_store: dict[str, list[Path]] = {sha: [] for sha in hashes}
    for path in paths:
        sha = _encoder_of(path)
        if sha not in of_store:
            raise MedSAEError(f"{path} was trained on an encoder that none of the stores is of")
        of_store[sha].append(path)
    names = [encoder["name"] for encoder in encoders]
    labels = [name if names.count(name) == 1 else f"{name}@{sha[:8]}" for name, sha in zip(names, hashes, strict=True)]
    return [
        Site(label, store, tuple(of_store[sha]))
        for label, store, sha in zip(labels, stores, hashes, strict=True)
        if of_store[sha]
    ]


def subjects_of(site: Site, metrics: dict[str, Any], scores: Path, prefix: str = "") -> list[Subject]:
    """The SAEs of a site in the order given, then the raw neurons of each of its hooks."""
    kept = [c for c in metrics["candidates"] if c["kind"] != "untrained"]
    paths = [*site.sae_paths, *([None] * (len(kept) - len(site.sae_paths)))]
    return [
        Subject(
            name=prefix + figures["name"],
            site=site,
            figures=figures,
            matrix=LatentMatrix(scores / "latents" / matrix_folder(figures["name"])),
            path=path,
            made={} if path is None else _made(path),
        )
        for figures, path in zip(kept, paths, strict=True)
    ]


def _made(path: Path) -> dict[str, Any]:
    """From `training.json` where there is one, else from the SAE's own config."""
    if (path / TRAINING).is_file():
        report = read_json(path / TRAINING)
        spec = {k: v for k, v in report["sae"].items() if k not in ("name", "hook")}
        return {**spec, "training": {k: v for k, v in report["training"].items() if k != "seed"}}
    config = read_json(path / SAE_CONFIG)
    metadata = config.pop("metadata", {})
    return {**{k: v for k, v in config.items() if k not in ("device", "d_in")}, "seed": metadata.get("seed")}


def _encoder_of(path: Path) -> str:
    check_sae_folder(path)
    metadata = read_json(path / SAE_CONFIG).get("metadata", {})
    return str(metadata.get("encoder_sha256"))


def _check_same_images(one: ActivationStore, other: ActivationStore) -> None:
    columns = ["image_id", "path", "patient", "split"]
    if not one.readable_images[columns].equals(other.readable_images[columns]):
        raise MedSAEError(
            f"{one.path} and {other.path} do not hold the same images in the same splits; extract both from one table"
        )


def _column(latent: int | str | None, d_in: int) -> int:
    if latent is None:
        return -1
    return d_in - int(latent) if isinstance(latent, str) else latent
