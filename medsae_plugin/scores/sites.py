"""Sums of one site in a folder, and the table that the folders of several sites give together.

    site.json                        encoder, splits with counts, labels, and which latents of which SAEs
    00-select.safetensors            `LatentStatistics` of units 0 on the split for choosing, and on the other
    00-report.safetensors
    00-fidelity.safetensors          `FidelitySums` of it, where it is an SAE

No image, path or patient is in them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import refuse_other_content, replacing_folder
from medsae_plugin.scores.images import ROLES, LabelledImages
from medsae_plugin.scores.matrix import Aggregate
from medsae_plugin.scores.models import Split
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.protocols import fidelity_of, kept_or_scratch, unit_matrices
from medsae_plugin.scores.results import Evaluation
from medsae_plugin.scores.scoring import Scored, sum_up
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.scores.units import DESCRIPTION, described
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.fidelity import FidelitySums

SCHEMA_VERSION = 2
SITE = "site.json"


@dataclass
class SiteStatistics:
    """The sums of a site, or of several.

    about: `site.json`. statistics: of each units, by role. fidelity: of each, None for neurons.
    """

    about: dict[str, Any]
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
            (temporary / SITE).write_text(json.dumps(self.about, indent=2, ensure_ascii=False) + "\n", "utf-8")
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
        try:
            about = json.loads((folder / SITE).read_text("utf-8"))
            version, units = about["schema_version"], about["units"]
        except FileNotFoundError:
            raise MedSAEError(f"{folder} holds no statistics of a site: it has no {SITE}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise MedSAEError(f"{folder / SITE} is damaged ({error})") from None
        if version != SCHEMA_VERSION:
            raise MedSAEError(f"{folder} has schema version {version}; this version reads {SCHEMA_VERSION}")
        statistics = [
            {role: LatentStatistics.load(folder / _file(k, role)) for role in ROLES} for k in range(len(units))
        ]
        return cls(about, statistics, [_load_fidelity(folder / _file(k, "fidelity")) for k in range(len(units))])

    def merge(self, other: SiteStatistics) -> None:
        """Add another site's sums, in place. A patient of both sites counts as two.

        Raises:
            MedSAEError: the other has another encoder, other SAEs, labels or splits.
        """
        for what in ("encoder", "aggregate", "labels", "units"):
            if self.about[what] != other.about[what]:
                raise MedSAEError(
                    f"the sites do not fit each other: {what} is {self.about[what]} and {other.about[what]}"
                )
        for role in ROLES:
            mine, theirs = self.about[role], other.about[role]
            if mine["split"] != theirs["split"]:
                raise MedSAEError(
                    f"the sites do not fit each other: {role} is on {mine['split']} and {theirs['split']}"
                )
            counts = {key: mine.get(key, 0) + theirs.get(key, 0) for key in ("images", "patients", "without_row")}
            self.about[role] = {**mine, **counts}
        for by_role, others in zip(self.statistics, other.statistics, strict=True):
            for role, statistics in by_role.items():
                statistics.merge(others[role])
        for sums, more in zip(self.fidelity, other.fidelity, strict=True):
            if sums is not None and more is not None:
                sums.merge(more)

    def scored(self) -> list[Scored]:
        """All units with the scores that follow from sums."""
        parts = zip(self.about["units"], self.statistics, self.fidelity, strict=True)
        return [Scored(described(entry), by_role, fidelity=sums) for entry, by_role, sums in parts]

    def evaluation(self) -> Evaluation:
        """As `evaluate` gives, but for what needs the images: rankings, intervals, p and claims."""
        splits = {role: Split(**self.about[role]) for role in ROLES}
        return Evaluation.of(self.scored(), self.about["encoder"], self.about["aggregate"], splits)


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
    about = {
        "schema_version": SCHEMA_VERSION,
        "encoder": store.manifest.encoder.model_dump(),
        "aggregate": aggregate,
        "labels": list(images.label_names),
        **{role: split.model_dump(exclude={"in_thin_bands"}) for role, split in counts(images).items()},
        "units": [{name: getattr(one, name) for name in DESCRIPTION} for one in units],
    }
    with kept_or_scratch(None) as folder:
        matrices = unit_matrices(store, units, folder, aggregate, progress)
        statistics = [sum_up(matrix, images) for matrix in matrices]
    return SiteStatistics(about, statistics, [fidelity_of(store, one, images) for one in units])


def _file(k: int, what: str) -> str:
    return f"{k:02d}-{what}.safetensors"


def _load_fidelity(path: Path) -> FidelitySums | None:
    from medsae_plugin.encoders.checkpoints import read_checkpoint

    return FidelitySums.from_state(read_checkpoint(path)) if path.is_file() else None
