"""Sums of one site in a folder, and the table that the folders of several sites give together.

    site.json                        encoder, splits with counts, labels, and which latents of which SAEs
    00-select.safetensors            `LatentStatistics` of candidate 0 on the split for choosing, and on the other
    00-report.safetensors
    00-fidelity.safetensors          `FidelitySums` of it, where it is an SAE

No image, path or patient is in them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin.errors import MedSAEError
from medsae_plugin.evaluation.candidates import Candidate, load_candidates
from medsae_plugin.evaluation.latents import Aggregate
from medsae_plugin.evaluation.output import Scored, header, latent_frame, split_counts, summaries, write
from medsae_plugin.evaluation.scores import candidate_matrices
from medsae_plugin.evaluation.scoring import score_sums, sum_up
from medsae_plugin.evaluation.statistics import LatentStatistics
from medsae_plugin.evaluation.targets import ROLES, targets_of
from medsae_plugin.files import replacing_folder
from medsae_plugin.training.fidelity import FidelitySums
from medsae_plugin.training.validation import fidelity_sums

if TYPE_CHECKING:
    from medsae_plugin.activations import ActivationStore
    from medsae_plugin.data.tables import ImageTable

SCHEMA_VERSION = 1
SITE = "site.json"
_CANDIDATE = ("name", "kind", "hook", "d_in", "n_latents", "architecture", "sae_sha256")


@dataclass
class SiteStatistics:
    """The sums of a site, or of several.

    about: `site.json`. statistics: of each candidate, by role. fidelity: of each candidate, None for neurons.
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
        if folder.exists() and not (folder / SITE).is_file() and any(folder.iterdir()):
            raise MedSAEError(f"{folder} is not empty and holds no statistics; choose another folder")
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
            version, candidates = about["schema_version"], about["candidates"]
        except FileNotFoundError:
            raise MedSAEError(f"{folder} holds no statistics of a site: it has no {SITE}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise MedSAEError(f"{folder / SITE} is damaged ({error})") from None
        if version != SCHEMA_VERSION:
            raise MedSAEError(f"{folder} has schema version {version}; this version reads {SCHEMA_VERSION}")
        statistics = [
            {role: LatentStatistics.load(folder / _file(k, role)) for role in ROLES} for k in range(len(candidates))
        ]
        return cls(about, statistics, [_load_fidelity(folder / _file(k, "fidelity")) for k in range(len(candidates))])

    def merge(self, other: SiteStatistics) -> None:
        """Add another site's sums, in place. A patient of both sites counts as two.

        Raises:
            MedSAEError: the other has another encoder, other SAEs, labels or splits.
        """
        for what in ("encoder", "aggregate", "labels", "candidates"):
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
        """Every candidate with the scores that follow from sums."""
        scored = []
        for entry, by_role, sums in zip(self.about["candidates"], self.statistics, self.fidelity, strict=True):
            scored.append(Scored(Candidate(**entry), score_sums(by_role["select"], by_role["report"]), None, sums))
        return scored

    def metrics(self) -> dict[str, Any]:
        """As `evaluate_saes` gives, but for what needs the images: rankings, the null and intervals."""
        counts = {role: self.about[role] for role in ROLES}
        return {
            **header(self.about["encoder"], self.about["aggregate"], counts),
            "candidates": summaries(self.scored()),
        }

    def write(self, out: str | Path) -> dict[str, Any]:
        """Write `metrics.json` and `latents.parquet` into a folder; returns the former."""
        metrics = self.metrics()
        write(metrics, latent_frame(self.scored()), Path(out))
        return metrics


def site_statistics(
    store: ActivationStore,
    sae_paths: Sequence[str | Path],
    table: ImageTable,
    *,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    seed: int = 0,
    progress: bool = True,
) -> SiteStatistics:
    """The sums of SAEs, untrained SAEs of their shape and raw neurons over a site's images, for `SiteStatistics.merge`.

    Raises:
        MedSAEError: as `evaluate_saes`.
    """
    targets = targets_of(store, table, select, report)
    candidates = load_candidates(store, sae_paths, seed)
    about = {
        "schema_version": SCHEMA_VERSION,
        "encoder": store.manifest["encoder"],
        "aggregate": aggregate,
        "labels": list(targets.label_names),
        **split_counts(targets, {"select": select, "report": report}),
        "candidates": [{name: getattr(c, name) for name in _CANDIDATE} for c in candidates],
    }
    with tempfile.TemporaryDirectory() as folder:
        matrices = candidate_matrices(store, candidates, Path(folder), aggregate, progress)
        statistics = [sum_up(matrices[c.name], targets) for c in candidates]
    fidelity = [fidelity_sums(store, c.sae, c.hook, report) if c.sae else None for c in candidates]
    return SiteStatistics(about, statistics, fidelity)


def _file(candidate: int, what: str) -> str:
    return f"{candidate:02d}-{what}.safetensors"


def _load_fidelity(path: Path) -> FidelitySums | None:
    from medsae_plugin.encoders.checkpoints import read_checkpoint

    return FidelitySums.from_state(read_checkpoint(path)) if path.is_file() else None
