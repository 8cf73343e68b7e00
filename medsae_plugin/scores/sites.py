"""Sums of one site in a folder, and the table that the folders of several sites give together.

    site.json                        encoder, splits with counts, labels, and which latents of which SAEs
    00-select.safetensors            `LatentStatistics` of units 0 on the split for choosing, and on the other
    00-report.safetensors
    00-fidelity.safetensors          `FidelitySums` of it, where it is an SAE

No image, path or patient is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import refuse_other_content, replacing_folder
from medsae_plugin.saved import Saved
from medsae_plugin.scores.images import ROLES, LabelledImages
from medsae_plugin.scores.matrix import Aggregate
from medsae_plugin.scores.models import Encoder, Split
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.protocols import fidelity_of, kept_or_scratch, unit_matrices
from medsae_plugin.scores.results import Evaluation
from medsae_plugin.scores.scoring import Scored, sum_up
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.scores.units import Units, described
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.fidelity import FidelitySums

SITE = "site.json"


class Site(Saved):
    """Of what the sums of a site are, and of how much; nothing in it is of a single patient."""

    FILE: ClassVar[str] = SITE
    COMMAND: ClassVar[str] = "medsae stats"

    schema_version: Literal[2] = 2
    encoder: Encoder
    aggregate: Aggregate
    labels: list[str]
    select: Split
    report: Split
    units: list[Annotated[Units, AfterValidator(described)]]

    @property
    def splits(self) -> dict[str, Split]:
        return {"select": self.select, "report": self.report}


@dataclass
class SiteStatistics:
    """The sums of a site, or of several.

    about: `site.json`. statistics: of each units, by role. fidelity: of each, None for neurons.
    """

    about: Site
    statistics: list[dict[str, LatentStatistics]]
    fidelity: list[FidelitySums | None]

    def save(self, folder: str | Path) -> None:
        """Write the folder, whole or not at all.

        Raises:
            MedSAEError: the folder holds something other than a site's statistics.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        refuse_other_content(folder, "statistics", lambda there: (there / SITE).is_file())
        with replacing_folder(folder) as temporary:
            self.about.save(temporary)
            for k, (by_role, sums) in enumerate(zip(self.statistics, self.fidelity, strict=True)):
                for role, statistics in by_role.items():
                    statistics.save(temporary / _file(k, role))
                if sums is not None:
                    save_file(sums.state(), temporary / _file(k, "fidelity"))

    @classmethod
    def load(cls, folder: str | Path) -> SiteStatistics:
        """Read a folder that `save` wrote.

        Raises:
            MedSAEError: it holds no statistics, damaged ones, or those of another version.
        """
        folder = Path(folder)
        about = Site.open(folder)
        each = range(len(about.units))
        statistics = [{role: LatentStatistics.load(folder / _file(k, role)) for role in ROLES} for k in each]
        return cls(about, statistics, [_load_fidelity(folder / _file(k, "fidelity")) for k in each])

    def merge(self, other: SiteStatistics) -> None:
        """Add another site's sums, in place. A patient of both sites counts as two.

        Raises:
            MedSAEError: the other has another encoder, other SAEs, labels or splits.
        """
        here, there = self.about.to_json(), other.about.to_json()
        for what in ("encoder", "aggregate", "labels", "units"):
            if here[what] != there[what]:
                raise MedSAEError(f"the sites do not fit each other: {what} is {here[what]} and {there[what]}")
        together = {}
        for role, mine in self.about.splits.items():
            theirs = other.about.splits[role]
            if mine.split != theirs.split:
                raise MedSAEError(f"the sites do not fit each other: {role} is on {mine.split} and {theirs.split}")
            counts = {key: getattr(mine, key) + getattr(theirs, key) for key in ("images", "patients", "without_row")}
            together[role] = mine.model_copy(update=counts)
        self.about = self.about.model_copy(update=together)
        for by_role, others in zip(self.statistics, other.statistics, strict=True):
            for role, statistics in by_role.items():
                statistics.merge(others[role])
        for sums, more in zip(self.fidelity, other.fidelity, strict=True):
            if sums is not None and more is not None:
                sums.merge(more)

    def scored(self) -> list[Scored]:
        """All units with the scores that follow from sums."""
        parts = zip(self.about.units, self.statistics, self.fidelity, strict=True)
        return [Scored(units, by_role, fidelity=sums) for units, by_role, sums in parts]

    def evaluation(self) -> Evaluation:
        """As `evaluate` gives, but for what needs the images: rankings, intervals, p and claims."""
        return Evaluation.of(self.scored(), self.about.encoder, self.about.aggregate, self.about.splits)


def site_statistics(
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    *,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> SiteStatistics:
    """The sums of SAEs, untrained SAEs of their shape and raw neurons over a site's images, for `SiteStatistics.merge`.

    Raises:
        MedSAEError: as `evaluate`.
    """
    images = LabelledImages.of(store, table).held_out(select, report)
    units = open_units(store, saes, seed, device)
    check_held_out(units, store, images)
    splits = {role: split.model_copy(update={"in_thin_bands": None}) for role, split in counts(images).items()}
    about = Site(
        encoder=Encoder.of(store),
        aggregate=aggregate,
        labels=list(images.label_names),
        select=splits["select"],
        report=splits["report"],
        units=units,
    )
    with kept_or_scratch(None) as folder:
        matrices = unit_matrices(store, units, folder, aggregate, progress)
        statistics = [sum_up(matrix, images) for matrix in matrices]
    return SiteStatistics(about, statistics, [fidelity_of(store, one, images) for one in units])


def _file(k: int, what: str) -> str:
    return f"{k:02d}-{what}.safetensors"


def _load_fidelity(path: Path) -> FidelitySums | None:
    from medsae_plugin.encoders.checkpoints import read_checkpoint

    return FidelitySums.from_state(read_checkpoint(path)) if path.is_file() else None
