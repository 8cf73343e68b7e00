"""`Selectivity`: what is left of every finding when the units of one are silent, typed, as in `selectivity.json`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from pydantic import Field

from medsae_plugin._version import __version__
from medsae_plugin.causal.results import PromptSet
from medsae_plugin.files import make_folder, write_parquet
from medsae_plugin.scores.models import Encoder, Result, Split
from medsae_plugin.scores.table import without_rows
from medsae_plugin.selectivity import table
from medsae_plugin.selectivity.models import AblatedUnits


class Selectivity(Result):
    """What `score_selectivity` found; `str()` is its tables.

    labels: the findings. covariates: each with the names of its labels, by which `Effect` calls them.
    """

    FILE: ClassVar[str] = "selectivity.json"
    COMMAND: ClassVar[str] = "medsae selectivity"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    prompts: PromptSet | None = None
    aggregate: str
    select: Split
    report: Split
    ks: list[int]
    draws: int
    labels: list[str]
    covariates: dict[str, list[str]]
    positives: dict[str, int]
    unreadable_images: int = 0
    units: list[AblatedUnits]

    def frame(self) -> pd.DataFrame:
        """A row each of units, measure, k, ablated concept ("" for random units) and label whose change it is."""
        return pd.DataFrame(self._rows())

    def _rows(self) -> Iterator[dict[str, object]]:
        for units in self.units:
            for one in units.ablations:
                told: dict[str, object] = {
                    "units": units.name,
                    "kind": units.kind,
                    "hook": units.hook,
                    "measure": units.measure,
                }
                told |= {"k": one.k, "ablated": one.concept or "", "covariate": one.covariate}
                for effect in one.effects:
                    yield {**told, "unedited": units.unedited[effect.target], **effect.model_dump()}

    def save(self, path: str | Path) -> None:
        """Write `selectivity.json` and `selectivity.parquet` into a folder."""
        folder = make_folder(Path(path))
        write_parquet(folder / "selectivity.parquet", self.frame())
        super().save(folder)

    def __str__(self) -> str:
        parts = ["\n".join(self._head())]
        for measure in dict.fromkeys(u.measure for u in self.units):
            units = [u for u in self.units if u.measure == measure]
            parts += [table.means(units)] + [table.covariate(units, *of) for of in self.covariates.items()]
            for one in units:
                if one.kind == "sae":
                    parts += [table.by_observation(one, self.labels, self.positives, self.ks)]
                    parts += [table.matrix(one, self.labels, self.ks[len(self.ks) // 2])]
        return "\n\n".join(parts)

    def _head(self) -> list[str]:
        select, report = self.select, self.report
        sizes = f"({report.images} images, {report.patients} patients)"
        if report.folds:
            roles = (
                f"Cross-fitted over {report.folds} folds of the patients of {report.split} {sizes}: units chosen and "
                f"probes fitted on all folds but one, changes on that one; {self.aggregate} over positions."
            )
            rows = without_rows(report)
        else:
            chosen = f"{select.split} ({select.images} images, {select.patients} patients)"
            roles = f"Units chosen and probes fitted on {chosen}, changes on {report.split} {sizes}; "
            roles += f"{self.aggregate} over positions."
            rows = without_rows(select, report)
        gone = [f"Left out: {report.left_out} patients that an SAE was trained on."] if report.left_out else []
        gone += [f"{self.unreadable_images} images could not be read again."] if self.unreadable_images else []
        return [
            roles,
            *gone,
            *rows,
            "Changes of AUROC, after less before, when k units are silent. own: of the observation that they carry;",
            "others: the mean of the other observations; selectivity: others less own; random: own, when as many live",
            f"units are silent that are drawn at random (mean of {self.draws} draws). [95%]: over patients.",
        ]
