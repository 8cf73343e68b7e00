"""`Evaluation`: what was found, typed, as it stands in `metrics.json` and `latents.parquet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import Field, PrivateAttr, model_validator

from medsae_plugin._version import __version__
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, write_parquet
from medsae_plugin.scores.models import Encoder, Judge, Result, Split, UnitScores
from medsae_plugin.scores.scoring import Scored
from medsae_plugin.scores.summary import latent_frame, summaries
from medsae_plugin.scores.table import at_home, format_table

METRICS_FILE, LATENTS_FILE = "metrics.json", "latents.parquet"


class Evaluation(Result):
    """SAEs, baselines and neurons scored against labels. `str()` is the table, `frame()` one row a latent.

    select, report: where top latents were chosen, and where every figure is from. candidates: all that was scored, each
    SAE with its baselines; `saes` are the SAEs. resampling: None where only sums are known. judge: None without one.
    """

    FILE: ClassVar[str] = METRICS_FILE
    COMMAND: ClassVar[str] = "medsae evaluate"

    schema_version: Literal[3] = Field(default=3, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    aggregate: str
    select: Split
    report: Split
    home: Split | None = None
    q: float | None = None
    resampling: dict[str, int] | None = None
    judge: Judge | None = None
    images_without_labels: int = 0
    unreadable_images: int = 0
    candidates: list[UnitScores]
    _frame: pd.DataFrame | None = PrivateAttr(None)
    _folder: Path | None = PrivateAttr(None)
    _tops: dict[str, np.ndarray] = PrivateAttr({})

    @model_validator(mode="before")
    @classmethod
    def _of_schema_2(cls, content: Any) -> Any:
        """What version 0.1 wrote: an untrained SAE said whose it is by its name, an interval was a pair."""
        if not isinstance(content, Mapping) or content.get("schema") != 2:
            return content
        return {**content, "schema": 3, "candidates": [_of_2(c) for c in content.get("candidates", [])]}

    def model_post_init(self, context: Any) -> None:
        for scores in self.candidates:
            scores.link(self.candidates)

    @classmethod
    def of(
        cls,
        scored: Sequence[Scored],
        encoder: Encoder,
        aggregate: str,
        splits: Mapping[str, Any],
        **more: Any,
    ) -> Evaluation:
        """The figures of these units."""
        evaluation = cls(encoder=encoder, aggregate=aggregate, candidates=summaries(scored), **splits, **more)
        evaluation._frame = latent_frame(scored)
        evaluation._tops = {s.units.name: s.top_activations for s in scored if s.matrix is not None}
        return evaluation

    @classmethod
    def open(cls, path: str | Path) -> Evaluation:
        evaluation = super().open(path)
        evaluation._folder = cls.file_at(path).parent
        return evaluation

    def save(self, path: str | Path) -> None:
        """Write `metrics.json` into a folder, and `latents.parquet` where the latents' figures are at hand."""
        folder = make_folder(Path(path))
        if self._frame is not None:
            write_parquet(folder / LATENTS_FILE, self._frame)
        super().save(folder)

    def frame(self, name: str | None = None) -> pd.DataFrame:
        """One row a latent (or neuron): its own figures, then its figures for every label, `figure: label`.

        Args:
            name: of one SAE alone.

        Raises:
            MedSAEError: the folder that this was opened from has no `latents.parquet`.
        """
        if self._frame is None:
            file = (self._folder or Path()) / LATENTS_FILE
            if self._folder is None or not file.is_file():
                raise MedSAEError(f"{self._folder} is incomplete: there is no {LATENTS_FILE} in it")
            self._frame = self._of_these(pd.read_parquet(file))
        return self._frame if name is None else self._frame[self._frame["name"] == name].reset_index(drop=True)

    def top_activations(self, name: str) -> Float[np.ndarray, "rows labels"]:
        """Of each label the top unit, of the units of this name, on the images of `report`; zeros where there is none.
        Of folds it is each fold's own, standardised. Not of an evaluation that was opened, or made of sums alone."""
        return self._tops[name]

    def only(self, name: str) -> Evaluation:
        """One SAE's part of this evaluation: its scores, its baselines', and those of its hook's neurons."""
        kept = [self[name], *self[name].baselines, *(c for c in self[name].beside if c.kind == "neurons")]
        narrowed = Evaluation.read({**self.to_json(), "candidates": [c.model_dump(by_alias=True) for c in kept]})
        narrowed._folder = self._folder
        narrowed._frame = None if self._frame is None else narrowed._of_these(self._frame)
        return narrowed

    def _of_these(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame[frame["name"].isin([c.name for c in self.candidates])].reset_index(drop=True)

    @property
    def saes(self) -> list[UnitScores]:
        return [c for c in self.candidates if c.kind == "sae"]

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        return tuple(o.label for o in self.candidates[0].observations) if self.candidates else ()

    def __getitem__(self, name: str) -> UnitScores:
        """The scores of this name."""
        for scores in self.candidates:
            if scores.name == name:
                return scores
        raise KeyError(name)

    def __str__(self) -> str:
        table = format_table(self.saes, self.select, self.report, self.aggregate, self.resampling is not None)
        return table if self.home is None else f"{table}\n\n{at_home(self.saes, self.home, self.report)}"


def _of_2(candidate: Mapping[str, Any]) -> dict[str, Any]:
    entry = {k: v for k, v in candidate.items() if k != "mean_top_r_interval"}
    low, high = candidate.get("mean_top_r_interval") or (None, None)
    twin = candidate.get("kind") == "untrained"
    name = str(candidate.get("name", "")).removeprefix("untrained ")
    return {**entry, "mean_top_r_low": low, "mean_top_r_high": high, "baseline_of": name if twin else None}
