"""`Hierarchy`: what becomes of a parent's latents where a child is present, typed, as in `hierarchy.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
from pydantic import Field

from medsae_plugin._version import __version__
from medsae_plugin.files import make_folder, write_parquet
from medsae_plugin.scores.models import Encoder, Figures, Result, Split
from medsae_plugin.scores.table import without_rows
from medsae_plugin.text import aligned, fixed


class CarriedLabel(Figures):
    """The latents that carry a label, and AUROC of a probe of the first, the first two, and so on, on `select`."""

    label: str
    latents: list[int]
    auroc: list[float]


class Instead(Figures):
    """A latent that stands in the parent's place on some images: its mean part of what they have along the parent's
    probe, its cosine with that, and whether it is one of the child's."""

    latent: int
    images: int
    part: float
    cosine: float
    childs: bool


class Absorption(Figures):
    """A parent and a child, over images of `report`; a share is None of no images.

    images: that show the child. found: those where the parent's probe finds it; of these `silent` is the share where
        all of the parent's latents are silent, `absorbed` that where another latent stands in their place, and of this
        `by_child` the share where that is one of the child's.
    others, others_silent, others_absorbed: the same of images that show the parent and not the child. low, high: the
        95% interval over patients of silent - others_silent, or why there is none.
    no_figures: why there are none at all.
    """

    parent: str
    child: str
    images: int
    found: int = 0
    silent: float | None = None
    absorbed: float | None = None
    by_child: float | None = None
    others: int = 0
    others_silent: float | None = None
    others_absorbed: float | None = None
    low: float | None = None
    high: float | None = None
    no_interval: str | None = None
    instead: list[Instead] = Field(default=[])
    no_figures: str | None = None


class HierarchyUnits(Figures):
    """An SAE, or an untrained one beside it, whose `baseline_of` names it."""

    name: str
    kind: Literal["sae", "untrained"]
    hook: str
    d_sae: int
    seed: int | None = None
    baseline_of: str | None = None
    carried: list[CarriedLabel]
    absorption: list[Absorption]
    held_out_from: str | None = None


class Splitting(Figures):
    """A label in two SAEs of one hook: how many latents carry it in each, how many of a's are found again in b, and in
    how many of a child's latents of b one of a's goes on, by child."""

    a: str
    b: str
    label: str
    latents_a: int
    latents_b: int
    again: int
    into: dict[str, int]


class Hierarchy(Result):
    """What `score_hierarchy` found; `str()` is its tables.

    probes: of each hook and parent the AUROC of its probe on `report`.
    """

    FILE: ClassVar[str] = "hierarchy.json"
    COMMAND: ClassVar[str] = "medsae hierarchy"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    medsae_plugin: str = __version__
    encoder: Encoder
    aggregate: str
    select: Split
    report: Split
    tree: dict[str, list[str]]
    probes: dict[str, dict[str, float | None]]
    units: list[HierarchyUnits]
    splitting: list[Splitting]

    def frame(self) -> pd.DataFrame:
        """A row each of units, parent and child."""
        rows: list[dict[str, Any]] = []
        for units in self.units:
            for one in units.absorption:
                row = {"units": units.name, "kind": units.kind, "hook": units.hook, "d_sae": units.d_sae}
                row |= one.model_dump(exclude={"instead"})
                row["instead"] = [i.latent for i in one.instead]
                rows.append(row)
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> None:
        """Write `hierarchy.json` and `hierarchy.parquet` into a folder."""
        folder = make_folder(Path(path))
        write_parquet(folder / "hierarchy.parquet", self.frame())
        super().save(folder)

    def __str__(self) -> str:
        select, report = self.select, self.report
        head = [
            f"Latents chosen and probes fitted on {select.split} ({select.images} images, {select.patients} patients), "
            f"figures on {report.split} ({report.images} images, {report.patients} patients).",
            *([f"Left out: {report.left_out} patients that an SAE was trained on."] if report.left_out else []),
            *without_rows(select, report),
            "found: images that show the child and where a probe of the parent finds it. silent: of these the share",
            "where no latent of the parent's fires; absorbed: where another latent has most of it in its place; its:",
            "the share of those that is of a latent of the child's. without: images that show the parent, where it is",
            "found, and not the child; their silent and absorbed; [95%]: of the difference of silent, over patients.",
            "instead: the latents that stand there, by images, * the child's own.",
        ]
        parts = ["\n".join(head), *(_absorption(u, self.probes[u.hook]) for u in self.units), *self._counts()]
        return "\n\n".join(parts)

    def _counts(self) -> list[str]:
        """How many latents carry each label, by SAE, and two SAEs side by side."""
        labels = list(dict.fromkeys(c.label for u in self.units for c in u.carried))
        rows = [["latents that carry it", *labels]]
        for u in self.units:
            of = {c.label: len(c.latents) for c in u.carried}
            seed = "" if u.seed is None else f", seed {u.seed}"
            rows.append([f"{u.name} ({u.d_sae} latents{seed})", *(str(of.get(label, "-")) for label in labels)])
        made = ["\n".join(aligned(rows, rule_after=(1,)))]
        if self.splitting:
            rows = [["from", "to", "observation", "latents", "there", "again", "in a child's latents there"]]
            for s in self.splitting:
                into = ", ".join(f"{n} of {child}" for child, n in s.into.items())
                rows.append([s.a, s.b, s.label, str(s.latents_a), str(s.latents_b), str(s.again), into])
            made.append("\n".join(["Splitting between SAEs of one hook", *aligned(rows, rule_after=(1,))]))
        return made


def _absorption(units: HierarchyUnits, probes: dict[str, float | None]) -> str:
    heads = ["parent", "AUROC", "latents", "child", "+", "found", "silent", "absorbed", "its", "without", "silent"]
    rows = [[*heads, "absorbed", "[95%]", "instead"]]
    carried = {c.label: len(c.latents) for c in units.carried}
    for one in units.absorption:
        between = "" if one.low is None or one.high is None else f"[{one.low:+.2f}, {one.high:+.2f}]"
        instead = " ".join(f"#{i.latent}{'*' if i.childs else ''} ({i.images})" for i in one.instead)
        sizes = ["-" if one.no_figures else str(n) for n in (one.found, one.others)]
        figures = [sizes[0], *map(fixed, (one.silent, one.absorbed, one.by_child)), sizes[1]]
        figures += [*map(fixed, (one.others_silent, one.others_absorbed)), between, instead]
        told = [one.parent, fixed(probes.get(one.parent)), str(carried.get(one.parent, 0)), one.child, str(one.images)]
        rows.append([*told, *figures])
    reasons: dict[str, list[str]] = {}
    for one in units.absorption:
        if why := one.no_figures or one.no_interval:
            reasons.setdefault(why, []).append(f"{one.child} under {one.parent}")
    return "\n".join(
        [
            f"{units.name} ({units.hook})",
            *aligned(rows, rule_after=(1,)),
            *(f"no interval: {', '.join(of)} ({why})" for why, of in reasons.items()),
            *([units.held_out_from] if units.held_out_from else []),
        ]
    )
