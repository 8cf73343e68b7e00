"""The parts of an `Evaluation`, as pydantic models: typed, and open for the figures that others declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, PrivateAttr
from pydantic_core import CoreSchema

from medsae_plugin.saved import Saved
from medsae_plugin.scores import at_home, declared  # noqa: F401  so that METRICS holds what schemas are to name
from medsae_plugin.scores.images import ALL
from medsae_plugin.scores.registry import METRICS
from medsae_plugin.scores.units import Kind, as_folder_name
from medsae_plugin.store.reader import ActivationStore

NOT_SPARSE = 0.25  # of the latents, on a row: random directions with ReLU have 0.5
LEAST_IN_BAND = 5
FIDELITY = ("explained_variance", "mse", "cosine", "l0", "dead", "dense")


def is_not_sparse(l0: float | None, d_sae: int | None) -> bool:
    """Whether an L0 is so large a share of the latents that nothing is sparse about them."""
    return l0 is not None and d_sae is not None and l0 >= NOT_SPARSE * d_sae


class Figures(BaseModel):
    """Exactly typed, and open for the figures that others declare, which are numbers or null."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    def value(self, name: str) -> float | None:
        """A declared figure; None where it is undefined or was not computed."""
        value = getattr(self, name, None)
        return None if value is None else float(value)

    @classmethod
    def titles(cls) -> dict[str, str]:
        """The declared figures that stand here, by name, each with its title: for the JSON schema."""
        return {}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        properties = handler.resolve_ref_schema(schema).setdefault("properties", {})
        for name, title in cls.titles().items():
            properties.setdefault(name, {"title": title, "anyOf": [{"type": "number"}, {"type": "null"}]})
        return schema


class Result(Figures, Saved):
    """What a command found, as it stands in the JSON file that it writes."""


class Split(Figures):
    """What a role is on: how many images and patients are scored, and how many images have no row in the table.

    in_thin_bands: patients who exchange labels with patients of unlike size (`statistics.permutation.in_thin_bands`).
    folds: of cross-fitting, where each is `report` in turn and the others are `select`. folds_of: the splits that these
        are of. left_out: patients that are not scored because an SAE was trained on them.
    """

    split: str
    images: int
    patients: int
    without_row: int = 0
    in_thin_bands: int | None = None
    folds: int | None = None
    folds_of: list[str] = []
    left_out: int = 0

    def rows(self, splits: Sequence[str]) -> Int[np.ndarray, " rows"]:
        """The images of these, each with its split, that the role is on, scored or not."""
        own = np.isin(np.asarray(splits), self.folds_of or [self.split])
        return np.flatnonzero(own | (self.split == ALL and not own.any()))


class Encoder(Figures):
    """Whose activations were scored."""

    name: str
    weights_sha256: str = ""

    @classmethod
    def of(cls, store: ActivationStore) -> Encoder:
        return cls(**store.manifest.encoder.model_dump())


class Judge(Figures):
    """Whose embeddings, at which hook, monosemanticity was judged by beside the encoder's own."""

    encoder: str
    weights_sha256: str
    hook: str


class Observation(Figures):
    """One label: how often it is there, and its top latent's figures, named as `METRICS`.

    positives, known, patients: images of `report` with the label, images and patients where it is known.
    latent: as `Units.label` shows it; None where no latent could be chosen. follows: the label that this latent has its
        largest r with. no_interval: why its figures have no interval over patients; None where they have one.
    """

    label: str
    positives: int
    known: int
    patients: int
    latent: int | str | None
    follows: str | None = None
    no_interval: str | None = None

    @property
    def scorable(self) -> bool:
        """Whether some images of `report` have it and some have not."""
        return 0 < self.positives < self.known

    @property
    def chosen_in(self) -> int | None:
        """Of cross-fitting, how many folds chose the latent; figures are then of each fold's own choice."""
        return (self.model_extra or {}).get("folds")

    @classmethod
    def titles(cls) -> dict[str, str]:
        return {m.name: m.title for m in METRICS.values() if "observations" in m.show}


class Gain(Figures):
    """How much larger an SAE's mean top r is than that of what stands beside it, with a 95% interval over the same
    patients, or why there is none.

    over, kind, candidates: of what, its kind, and how many units it chose from; None in files of version 0.1.
    at_live: the mean top r that it reaches with as many units as the SAE has alive, drawn from its own at random: the
        mean over all draws.
    """

    mean_top_r: float | None
    low: float | None = None
    high: float | None = None
    no_interval: str | None = None
    over: str | None = None
    kind: Kind | None = None
    candidates: int | None = None
    at_live: float | None = None


class DensityBand(Figures):
    """The units that fire on at least `low` and less than `high` of the images (or on all), and their mean
    monosemanticity."""

    low: float
    high: float
    units: int
    monosemanticity: float


class UnitScores(Figures):
    """The scores of an SAE's latents, of a baseline's, or of a hook's neurons; figures per SAE are named as `METRICS`.

    baseline_of: the SAE that it stands beside; None for an SAE and for neurons, which stand beside all of their hook.
    fidelity: over the rows of `report` (`FidelitySums.figures`); None for neurons. image_level: `metrics.sparsity`.
    density_bands: those with a unit whose monosemanticity is defined; None of files that are older.
    mean_rank: among the SAEs, over the figures that rank. gain_over_neurons, gains: of an SAE, over the raw neurons and
        over each of its baselines; see `headline`. no_interval: why `mean_top_r` has no interval, or None.
    held_out_from: in words, whether the SAE and its encoder have seen the patients of `report`.
    """

    name: str
    kind: Kind
    hook: str
    architecture: str | None
    d_in: int
    d_sae: int | None
    baseline_of: str | None = None
    fidelity: dict[str, float | None] | None
    image_level: dict[str, float | None] = {}
    density_histogram: list[int] = []
    density_bands: list[DensityBand] | None = None
    observations: list[Observation]
    mean_rank: float | None = None
    gain_over_neurons: Gain | None = None
    no_interval: str | None = None
    gains: list[Gain] = []
    held_out_from: str | None = None
    _scored: list[UnitScores] = PrivateAttr([])

    @classmethod
    def titles(cls) -> dict[str, str]:
        return {m.name: m.title for m in METRICS.values() if m.per == "sae"}

    @property
    def folder_name(self) -> str:
        """Of the latent matrix, within an evaluation's `latents/`."""
        return as_folder_name(self.name)

    def link(self, scored: list[UnitScores]) -> None:
        """Tell it what was scored with it, itself among them."""
        self._scored = scored

    @property
    def neurons(self) -> UnitScores:
        """The raw neurons of the same hook."""
        return next(c for c in self._scored if c.kind == "neurons" and c.hook == self.hook)

    @property
    def baselines(self) -> list[UnitScores]:
        """What stands beside this SAE, such as an untrained one."""
        return [c for c in self._scored if c.baseline_of == self.name]

    @property
    def beside(self) -> list[UnitScores]:
        """What tables show next to this SAE: its hook's raw neurons, then its baselines."""
        neurons = [c for c in self._scored if c.kind == "neurons" and c.hook == self.hook]
        return [*neurons, *self.baselines]

    @property
    def candidates(self) -> int:
        """How many units there are to choose top units from."""
        return 2 * self.d_in if self.d_sae is None else self.d_sae

    @property
    def headline(self) -> Gain | None:
        """The gain over the best of what chose from as many candidates; None where nothing did.

        Best is the largest mean top r on `report`, which favours the baseline. An untrained SAE counts for nothing
        here: its TopK holds it down.
        """
        gains = [*self.gains, *([self.gain_over_neurons] if self.gain_over_neurons else [])]
        told = [
            (gain.mean_top_r, gain)
            for gain in gains
            if gain.candidates == self.candidates and gain.kind != "untrained" and gain.mean_top_r is not None
        ]
        return min(told, key=lambda pair: pair[0])[1] if told else None

    @property
    def untrained(self) -> UnitScores | None:
        return next((c for c in self.baselines if c.kind == "untrained"), None)

    @property
    def not_sparse(self) -> bool:
        """See `is_not_sparse`."""
        return is_not_sparse(self.value("l0"), self.d_sae)

    def monosemanticity_beside(self, other: UnitScores) -> tuple[float, float] | None:
        """The mean monosemanticity of these units and of others, at the densities of these.

        The rarer a unit fires, the more alike are the images on which it does, so two means compare only at like
        densities: within each band where both have `LEAST_IN_BAND` units, bands weighed by these. None without a band.
        """
        theirs = {band.low: band for band in other.density_bands or []}
        pairs = [
            (band.units, band.monosemanticity, theirs[band.low].monosemanticity)
            for band in self.density_bands or []
            if band.low in theirs and min(band.units, theirs[band.low].units) >= LEAST_IN_BAND
        ]
        n = sum(units for units, _, _ in pairs)
        if n == 0:
            return None
        return sum(units * own for units, own, _ in pairs) / n, sum(units * beside for units, _, beside in pairs) / n

    def of_label(self, label: str) -> Observation | None:
        return next((o for o in self.observations if o.label == label), None)

    def value(self, name: str) -> float | None:
        """A declared figure, or one of fidelity."""
        return (self.fidelity or {}).get(name) if name in FIDELITY else super().value(name)
