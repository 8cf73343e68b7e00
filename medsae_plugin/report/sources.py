"""What a report is made of: the files of an evaluation or a comparison, and what lies beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from medsae_plugin.comparison.results import JSON as COMPARISON
from medsae_plugin.comparison.results import Comparison, Flow
from medsae_plugin.confounding.results import Confounders
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import read_json
from medsae_plugin.naming.names import NamedUnit, Names
from medsae_plugin.naming.results import NameScores, TriedName
from medsae_plugin.report.localised import Localised
from medsae_plugin.sae_folders import CONFIG, load_sae, sae_sha256
from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.models import Split, UnitScores
from medsae_plugin.scores.probe_results import PROBES_FILE, Probes
from medsae_plugin.scores.results import METRICS_FILE, Evaluation
from medsae_plugin.training.records import TrainingRecord, read_training


@dataclass(frozen=True)
class Named:
    """A latent's name, and how the first judge of a test of names found it; None where it was not tried."""

    unit: NamedUnit
    score: TriedName | None = None


@dataclass(frozen=True)
class ScoredSAE:
    """One trained SAE of a run.

    name: as in the comparison where there is one. scores: with the neurons and baselines beside it.
    latents: its rows of `latents.parquet`. training: `training.json`, None where its folder was not given.
    names: by latent. localised: None where `medsae localize` wrote nothing into the evaluation's folder.
    """

    name: str
    encoder: str
    scores: UnitScores
    latents: pd.DataFrame
    matrix: LatentMatrix
    path: Path | None
    training: TrainingRecord | None
    names: dict[int, Named] = field(default_factory=dict)
    localised: Localised | None = None


@dataclass(frozen=True)
class Run:
    """The scored SAEs of a run, its evaluation (of several encoders the last one's, for what they share), its
    comparison, and its probes and what its latents lean on (of one encoder), where they are beside its scores."""

    evaluation: Evaluation
    saes: list[ScoredSAE]
    comparison: Comparison | None = None
    probes: Probes | None = None
    confounders: Confounders | None = None

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.evaluation.label_names


def open_run(
    run: str | Path,
    *,
    comparison: str | Path | None = None,
    saes: Sequence[str | Path] = (),
    names: Sequence[str | Path] = (),
) -> Run:
    """Open the output folder of `medsae evaluate`, `medsae compare`, `medsae sweep` or `medsae demo`.

    Args:
        comparison: of an evaluation, the folder of a comparison that holds it.
        saes: folders of SAEs, for training curves and, in a report with images, heatmaps; sweeps and demos have theirs.
        names: folders of `medsae name` and `medsae name score`, or `names.json` files.

    Raises:
        MedSAEError: the folder is none of these, or damaged; names of no SAE of the run, or two names of one latent.
    """
    folder, own = _located(Path(run))
    compared = Path(comparison) if comparison is not None else folder if (folder / COMPARISON).is_file() else None
    content = Comparison.open(compared) if compared else None
    scores = folder / "scores" if (folder / COMPARISON).is_file() else folder
    paths = _by_sha([*map(Path, saes), *own])
    several = content is not None and len(content.encoders) > 1
    parts = {e.label: scores / e.label for e in content.encoders} if content and several else {"": scores}
    opened: list[ScoredSAE] = []
    for label, part in parts.items():
        evaluation = _held_out(part)
        opened += _scored_saes(evaluation, part, f"{label}/" if label else "", paths)
    named = _names([Path(n) for n in names])
    for sae in opened:
        sae.names.update(named.pop(sae.matrix.manifest.sae_sha256 or "", {}))
    if named:
        raise MedSAEError("the names given are of an SAE that this run does not have")
    probes = None if several or not (scores / PROBES_FILE).is_file() else Probes.open(scores)
    leaning = None if several or not (scores / Confounders.FILE).is_file() else Confounders.open(scores)
    return Run(evaluation, opened, content, probes, leaning)


def _located(run: Path) -> tuple[Path, list[Path]]:
    """The folder of the comparison or evaluation in a run, and the SAEs that the run holds itself."""
    if (run / METRICS_FILE).is_file() or (run / COMPARISON).is_file():
        return run, []
    if (run / "comparison" / COMPARISON).is_file():
        configs = [*run.glob(f"passes/*/*/{CONFIG}"), *run.glob(f"saes/*/{CONFIG}")]
        return run / "comparison", sorted(p.parent for p in configs)
    raise MedSAEError(
        f"{run} is no output of medsae evaluate, compare, sweep or demo: there is no {METRICS_FILE} in it"
    )


def _held_out(folder: Path) -> Evaluation:
    if not (folder / METRICS_FILE).is_file():
        raise MedSAEError(f"there is no {METRICS_FILE} in {folder}")
    content = read_json(folder / METRICS_FILE)
    if not isinstance(content, dict) or content.get("optimistic") or "select" not in content:
        raise MedSAEError(f"{folder / METRICS_FILE} is not of the held-out protocol, which reports need")
    return Evaluation.open(folder)


def _scored_saes(evaluation: Evaluation, folder: Path, prefix: str, paths: dict[str, Path]) -> list[ScoredSAE]:
    opened = []
    for scores in evaluation.saes:
        matrix = LatentMatrix(folder / "latents" / scores.folder_name)
        path = paths.get(matrix.manifest.sae_sha256 or "")
        opened.append(
            ScoredSAE(
                name=prefix + scores.name,
                encoder=evaluation.encoder.name,
                scores=scores,
                latents=evaluation.frame(scores.name),
                matrix=matrix,
                path=path,
                training=read_training(path) if path else None,
                localised=Localised.beside(folder, matrix.manifest.sae_sha256),
            )
        )
    return opened


def _by_sha(paths: Sequence[Path]) -> dict[str, Path]:
    """SAE folders by the hash of their weights, which a latent matrix holds as well."""
    return {sae_sha256(load_sae(path)): path for path in paths}


def _names(paths: Sequence[Path]) -> dict[str, dict[int, Named]]:
    """The names in these folders or files, by SAE and latent, with what `scores.json` beside them says."""
    named: dict[str, dict[int, Named]] = {}
    for path in paths:
        names, file = Names.open(path), Names.file_at(path)
        of_sae = named.setdefault(names.made["sae_sha256"], {})
        for unit in names.of("latent"):
            other = of_sae.setdefault(int(unit.latent), Named(unit)).unit
            if other.concept != unit.concept:
                raise MedSAEError(
                    f"latent {unit.latent} has a name in {file} and another in names given before it; give one"
                )
        if (scores := file.with_name(NameScores.FILE)).is_file():
            for line in reversed(NameScores.open(scores).by_name):
                there = of_sae.get(int(line.latent)) if line.condition == "latents" else None
                # A score is of the name that was tried, which may have been replaced since.
                if there is not None and line.concept == there.unit.concept:
                    of_sae[int(line.latent)] = replace(there, score=line)
    return named


Ribbon = tuple[str, str, int]
"""A fate, an origin, and how many links join latents of the one to latents of the other."""


def ribbons(comparison: Comparison, flow: Flow) -> list[Ribbon]:
    """The links of a flow by the fate of their source and the origin of their target, in the order of the table."""
    links = comparison.frame("links")
    mine = links[(links["a"] == flow.a) & (links["b"] == flow.b)] if len(links) else links
    if not len(mine):
        return []
    latents = comparison.frame("latents").set_index(["name", "latent"])
    fates = [str(latents.at[(flow.a, j), "fate"]) for j in mine["source"]]
    origins = [str(latents.at[(flow.b, j), "origin"]) for j in mine["target"]]
    return [(*pair, n) for pair, n in Counter(zip(fates, origins, strict=True)).items()]


def report_rows(sae: ScoredSAE, report: Split) -> np.ndarray:
    """The rows of an SAE's latent matrix that figures are of."""
    return report.rows(sae.matrix.images["split"].tolist())
