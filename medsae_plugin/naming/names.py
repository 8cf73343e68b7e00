"""`Names`: latents and neurons with their names, typed, as in `names.json`, with no path, image or patient."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from medsae_plugin._version import __version__
from medsae_plugin.files import make_folder, write_text
from medsae_plugin.naming.firing import Kind
from medsae_plugin.naming.schema import LatentName
from medsae_plugin.scores.models import Result

JSON, CSV = "names.json", "names.csv"
KINDS: tuple[Kind, ...] = ("latent", "neuron")


class NamedUnit(BaseModel):
    """A latent or neuron and its name, or why it has none.

    Attributes:
        latent: its index; "-j" for the negative of neuron j.
        status: `named`; `skipped`, for it fires too seldom; `unanswered`, for no usable answer came.
        category: of the concept in the vocabulary, "" where it is not there.
        similarity: what the name was chosen by, where it was: the cosine of a term, the held-out r of a label.
        problem: why there is no name.
        round: the round of refinement that the name is from; 0 is the first proposal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    latent: Annotated[str, Field(pattern=r"^-?[0-9]+$")]
    status: Literal["named", "skipped", "unanswered"]
    concept: str = ""
    description: str = ""
    category: str = ""
    similarity: float | None = None
    problem: str = ""
    round: int = 0

    @property
    def key(self) -> tuple[Kind, str]:
        return self.kind, self.latent

    @property
    def name(self) -> LatentName:
        return LatentName(concept=self.concept, description=self.description)

    def renamed(self, name: LatentName, category: str, round: int) -> NamedUnit:
        """The same unit under a name that a round of refinement gave it."""
        return NamedUnit(
            kind=self.kind,
            latent=self.latent,
            status="named",
            concept=name.concept,
            description=name.description,
            category=category,
            round=round,
        )


class Names(Result):
    """Names of latents and, beside them, of raw neurons.

    made: how: encoder, hook, SAE (by hash), namer, split, seed, counts of evidence, refinement. Where the names are of
        several runs of `medsae name`, what these share, and under `runs` what each has of its own with the `latents`
        and `neurons` that are named by it.
    """

    FILE: ClassVar[str] = JSON
    COMMAND: ClassVar[str] = "medsae name"

    schema_version: Literal[1] = 1
    medsae_plugin: str = __version__
    made: dict[str, Any]
    units: tuple[NamedUnit, ...] = Field(
        validation_alias=AliasChoices("names", "units"), serialization_alias="names", default=()
    )

    @model_validator(mode="after")
    def _each_run_is_told(self) -> Names:
        """`made` tells of each run the SAE and the split, and of several which units are whose."""
        several = "runs" in self.made
        try:
            for run in self.made["runs"] if several else [{}]:
                (self.made | run)["sae_sha256"], (self.made | run)["split"]
                if several:
                    {*run["latents"], *run["neurons"]}
        except (KeyError, TypeError) as error:
            raise ValueError(f"made does not tell how each name was made: {error}") from None
        return self

    def of(self, kind: Kind) -> list[NamedUnit]:
        """The named units of a kind."""
        return [unit for unit in self.units if unit.kind == kind and unit.status == "named"]

    def runs(self) -> list[Names]:
        """The names of each run, where they are of several; else these."""
        shared = {key: value for key, value in self.made.items() if key != "runs"}
        runs = []
        for run in self.made.get("runs", ()):
            own = {("latent", latent) for latent in run["latents"]} | {("neuron", neuron) for neuron in run["neurons"]}
            made = shared | {key: value for key, value in run.items() if key not in ("latents", "neurons")}
            runs.append(Names(made=made, units=tuple(unit for unit in self.units if unit.key in own)))
        return runs or [self]

    @property
    def splits(self) -> list[str]:
        """The splits whose images names were made from."""
        return list(dict.fromkeys(run.made["split"] for run in self.runs()))

    @property
    def chosen_on(self) -> dict[str, str]:
        """Splits on which names were kept or given up, beside those that they were made from, each with what did so."""
        found: dict[str, str] = {}
        for made in (run.made for run in self.runs()):
            if refined := made.get("refined"):
                found[refined["check_split"]] = "rounds of refinement kept the names that did better there"
            if held_out := made.get("namer", {}).get("held_out"):
                found[held_out] = "the backend `label` kept the names that were above chance there"
        return found

    def counts(self) -> str:
        """How many were named, in words."""
        lines = []
        for kind in KINDS:
            statuses = [unit.status for unit in self.units if unit.kind == kind]
            if statuses:
                told = (f"{statuses.count(status)} {status}" for status in ("named", "unanswered", "skipped"))
                lines.append(f"{len(statuses)} {kind}s: {', '.join(told)}")
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write `names.json` and `names.csv` into a folder."""
        folder, text = make_folder(Path(path)), io.StringIO()
        writer = csv.DictWriter(text, list(NamedUnit.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(unit.model_dump() for unit in self.units)
        write_text(folder / CSV, text.getvalue())
        self.save_json(folder)

    def save_json(self, folder: Path) -> None:
        """Write `names.json` alone, as people read it: in the letters of its names."""
        write_text(folder / JSON, json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def kept_beside(names: Names, folder: Path, otherwise: str) -> list[str]:
    """What a folder's `names.json` holds besides these, and where another name was left in place, in lines.

    otherwise: how such another name came about.
    """
    mine = {unit.key: unit for unit in names.units if unit.status == "named"}
    there = {unit.key: unit for unit in Names.open(folder).units if unit.status == "named"}
    lines = []
    if others := len(there.keys() - mine.keys()):
        lines.append(f"{folder / JSON} keeps {others} names of other latents or neurons")
    if stayed := sum(key in there and there[key].name != unit.name for key, unit in mine.items()):
        lines.append(f"{folder / JSON} keeps {stayed} other names of the same ones, {otherwise}")
    return lines


_SHARED = ("encoder", "hook", "sae_sha256")


def differences(there: Names, made: Mapping[str, Any]) -> list[str]:
    """In what names were made otherwise than `made` says, refinement aside; None in `made` is what is not known yet."""
    found = []
    for run in there.runs():
        for key in (run.made.keys() | made.keys()) - {"refined"}:
            before, now = run.made.get(key), made.get(key)
            if isinstance(before, dict) and isinstance(now, dict):
                now = {k: before.get(k) if v is None else v for k, v in now.items()}
            if before != now:
                found.append(key)
    return sorted(set(found))


def merged(there: Names, new: Names, *, replace_others: bool = False) -> Names:
    """Names with those of a later run of the same SAE: no name is lost to none, nor to one that was made otherwise.

    A later name takes the place of one that was made alike and not been refined further. One that was made otherwise
    stays, unless `replace_others`.
    """
    fresh = {unit.key: unit for unit in new.units}
    parts = []
    for run in there.runs():
        yields = _rounds(run) <= _rounds(new) if not differences(run, new.made) else replace_others
        stays = [
            unit
            for unit in run.units
            if unit.key not in fresh or (unit.status == "named" and not (yields and fresh[unit.key].status == "named"))
        ]
        for unit in stays:
            fresh.pop(unit.key, None)
        parts.append(Names(made=run.made, units=tuple(stays)))
    return _together([*parts, Names(made=new.made, units=tuple(fresh.values()))])


def _rounds(names: Names) -> int:
    return int(names.made.get("refined", {}).get("rounds", 0))


def _together(parts: Sequence[Names]) -> Names:
    """Runs as one list of names, in the order of their units; those made alike are one run."""
    runs: list[Names] = []
    for part in parts:
        alike = next((k for k, run in enumerate(runs) if run.made == part.made), None)
        if alike is None:
            runs.append(part)
        else:
            runs[alike] = Names(made=part.made, units=runs[alike].units + part.units)
    runs = [run for run in runs if run.units] or runs[-1:]
    units = tuple(sorted((unit for run in runs for unit in run.units), key=_order))
    if len(runs) == 1:
        return Names(made=runs[0].made, units=units)
    own = []
    for run in runs:
        what = {f"{kind}s": [u.latent for u in sorted(run.units, key=_order) if u.kind == kind] for kind in KINDS}
        own.append({key: value for key, value in run.made.items() if key not in _SHARED} | what)
    return Names(made={**{key: runs[0].made.get(key) for key in _SHARED}, "runs": own}, units=units)


def _order(unit: NamedUnit) -> tuple[str, bool, int]:
    return unit.kind, unit.latent.startswith("-"), abs(int(unit.latent))
