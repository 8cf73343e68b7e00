"""`Comparison`: what was found of many SAEs, typed, as it stands in `comparison.json` and its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from pydantic import Field, PrivateAttr

from medsae_plugin._version import __version__
from medsae_plugin.comparison.table import format_comparison
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, write_parquet
from medsae_plugin.scores.models import FIDELITY, Encoder, Figures, Result, Split
from medsae_plugin.scores.registry import METRICS, shown
from medsae_plugin.scores.units import Kind

JSON = "comparison.json"


class ComparedEncoder(Encoder):
    """An encoder, and its label in the comparison."""

    label: str


class Thresholds(Figures):
    """From which r latents are linked and stable, and which share of the best layer's AUROC makes a label visible."""

    link: float
    stable: float
    visible: float


class ComparedLayer(Figures):
    """A hook of an encoder, of width d."""

    encoder: str
    hook: str
    d: int


class TopLatent(Figures):
    """Of a label its top latent, with the figures that are declared for comparisons, or why they have no interval."""

    label: str
    latent: int | str | None
    no_interval: str | None = None

    @classmethod
    def titles(cls) -> dict[str, str]:
        names = [name for m in shown("comparison") if m.per != "sae" for name in (m.name, m.low, m.high) if name]
        return {name: METRICS[name].title for name in names}


class ComparedSAE(Figures):
    """An SAE, or a layer's raw neurons: its fidelity, its figures per SAE with intervals, its top latents.

    mean_rank: on `Comparison.ranked_on`. val: where that is the split `val`, the SAE's figures there, of the whole of
        it; to choose by, not to report. headline: what an SAE gains over the best baseline of as many candidates, in
        words. pareto: whether no SAE of its layer explains as much of the variance with as small an L0. no_interval:
        why its means have no interval; None where they have one.
    """

    name: str
    encoder: str
    kind: Kind
    hook: str
    architecture: str | None
    d_in: int
    d_sae: int | None
    seed: int | None
    mean_rank: float | None = None
    val: dict[str, float | None] | None = None
    headline: str | None = None
    pareto: bool | None = None
    no_interval: str | None = None
    top: list[TopLatent]

    @classmethod
    def titles(cls) -> dict[str, str]:
        fidelity = {name: name.replace("_", " ") for name in FIDELITY}
        return fidelity | {m.name: m.title for m in METRICS.values() if m.per == "sae"}


class ComparedMaps(Figures):
    """Where the top units of an SAE, of an untrained one or of a layer's neurons look: the means over findings of what
    `medsae localize` gives of each, and of its chance."""

    name: str
    encoder: str
    kind: Kind
    hook: str
    findings: int
    figures: dict[str, float | None]
    chance: dict[str, float | None]


class LayerSees(Figures):
    """What a linear probe sees of a label at a layer, and that layer's best latent."""

    encoder: str
    hook: str
    auroc: float | None
    low: float | None
    high: float | None
    ridge: float | None
    no_interval: str | None = None
    sae: str | None
    latent: int | str | None
    latent_r: float | None
    latent_auroc: float | None


class Visible(Figures):
    """A label at every layer; visible_from: the places of each encoder's first layer where it is visible."""

    label: str
    visible_from: list[int]
    layers: list[LayerSees]


class Matched(Figures):
    """How alike the latents of two SAEs are."""

    a: str
    b: str


class Stability(Figures):
    """Of SAEs that differ in their seed alone; means: of each figure of an SAE `mean` and `sd` over the seeds."""

    recipe: str = ""
    saes: list[str]
    mean_max_correlation: float | None
    mean_assigned_correlation: float | None
    share_stable: float | None
    mean_max_cosine: float | None = None
    means: dict[str, dict[str, float]] = Field(default_factory=dict)


class Flow(Figures):
    """What becomes of latents from one layer to the next."""

    a: str
    b: str
    links: int
    fates: dict[str, int]
    origins: dict[str, int]


class Difference(Figures):
    """A figure of one recipe less that of another, means over their seeds, with its interval or why it has none.

    over: what the interval takes in, `patients and seeds`, or `patients`, where a recipe has one seed.
    """

    a: str
    b: str
    figure: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    fdr: float | None
    no_interval: str | None = None
    over: str = "patients"


class Comparison(Result):
    """SAEs side by side. `str()` is its tables for a terminal, `frame(name)` one of its tidy tables.

    ranked_on: the split on which mean ranks were chosen, and with them `best`, the SAE of the smallest; where it is
    that of `report`, the best one's figures are optimistic.

    The tables: `saes`, `observations`, `visibility`, `latents`, `matches`, `links`, `cka`, `differences`.
    """

    FILE: ClassVar[str] = JSON
    COMMAND: ClassVar[str] = "medsae compare"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    medsae_plugin: str = __version__
    aggregate: str
    select: Split
    report: Split
    resampling: dict[str, int] | None
    encoders: list[ComparedEncoder]
    thresholds: Thresholds
    layers: list[ComparedLayer]
    ranked_on: str = ""
    best: str | None = None
    saes: list[ComparedSAE]
    visibility: list[Visible]
    localisation: list[ComparedMaps] = Field(default_factory=list)
    cka: list[list[float | None]]
    cka_debiased: list[list[float | None]]
    matching: list[Matched]
    stability: list[Stability]
    flows: list[Flow]
    differences: list[Difference]
    _frames: dict[str, pd.DataFrame] = PrivateAttr({})

    @classmethod
    def open(cls, path: str | Path) -> Comparison:
        comparison = super().open(path)
        tables = sorted(cls.file_at(path).parent.glob("*.parquet"))
        comparison._frames = {p.stem: pd.read_parquet(p) for p in tables}
        return comparison

    def save(self, path: str | Path, frames: Mapping[str, pd.DataFrame] | None = None) -> None:
        """Write `comparison.json` and the tables, by default its own, into a folder."""
        folder = make_folder(Path(path))
        self._frames = dict(self._frames if frames is None else frames)
        for name, frame in self._frames.items():
            write_parquet(folder / f"{name}.parquet", frame)
        super().save(folder)

    def frame(self, name: str) -> pd.DataFrame:
        """One of the tables.

        Raises:
            MedSAEError: there is no such one.
        """
        if name not in self._frames:
            raise MedSAEError(f"the comparison has no table {name!r}; it has {', '.join(self._frames) or 'none'}")
        return self._frames[name]

    def __str__(self) -> str:
        return format_comparison(self.to_json())
