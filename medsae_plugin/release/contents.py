"""What a published repository holds: per SAE a folder in SAE-Lens's format with its metrics and names."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, writing
from medsae_plugin.sae_folders import CONFIG, SPARSITY, WEIGHTS, load_sae, read_object, read_report
from medsae_plugin.scores.models import UnitScores
from medsae_plugin.scores.results import METRICS_FILE, Evaluation

if TYPE_CHECKING:
    from sae_lens.saes.sae import SAEConfig

NAMES = "names.json"
_SENT_AS_IS = (CONFIG, WEIGHTS, SPARSITY, NAMES)


@dataclass(frozen=True)
class Published:
    """An SAE to publish: its folder, the report of its training (if any), and the evaluation of it alone."""

    name: str
    folder: Path
    config: SAEConfig
    training: dict[str, Any] | None
    evaluation: Evaluation

    @property
    def scores(self) -> UnitScores:
        """The SAE's own, with links to what stands beside it."""
        return self.evaluation.saes[0]

    def write(self, folder: Path) -> None:
        """Write what is sent of it into `folder`."""
        make_folder(folder)
        for name in _SENT_AS_IS:
            if (self.folder / name).is_file():
                with writing(folder / name):
                    shutil.copyfile(self.folder / name, folder / name)
        self.evaluation.save(folder)


def collect(runs: Sequence[str | Path], metrics: str | Path | None = None) -> list[Published]:
    """The SAEs of runs, each a folder that `medsae train` wrote or the folder of one SAE.

    Args:
        metrics: what `medsae evaluate` wrote, or its folder; None looks for `metrics.json` beside the SAE's weights,
            then in the run's folder.

    Raises:
        MedSAEError: a run without SAEs, two SAEs of one name, an SAE that does not load, or one without metrics;
            metrics that hold nothing out, do not score this SAE, or with another encoder's weights.
    """
    evaluations = functools.cache(_held_out)
    found: dict[str, Published] = {}
    for run in map(Path, runs):
        folders = [run] if (run / CONFIG).is_file() else sorted(path.parent for path in run.glob(f"*/{CONFIG}"))
        if not folders:
            raise MedSAEError(f"{run} holds no SAE: there is no {CONFIG} in it, nor in a folder of it")
        for folder in folders:
            name = folder.resolve().name
            if name in found:
                raise MedSAEError(f"{found[name].folder} and {folder} have the same name; rename one of the folders")
            config, file = load_sae(folder).cfg, _metrics_file(name, folder, run, metrics)
            own = _own(evaluations(file), name, config, file)
            found[name] = Published(name, folder, config, read_report(folder), own)
    if len({sae.config.metadata.encoder_sha256 for sae in found.values()}) > 1:
        raise MedSAEError("these SAEs were trained on different encoders' weights; publish them in repositories apart")
    return list(found.values())


def _metrics_file(name: str, folder: Path, run: Path, metrics: str | Path | None) -> Path:
    if metrics is not None:
        file = Path(metrics) / METRICS_FILE if Path(metrics).is_dir() else Path(metrics)
    else:
        places = (folder / METRICS_FILE, run / METRICS_FILE)
        file = next((path for path in places if path.is_file()), places[0])
    if not file.is_file():
        raise MedSAEError(f"SAE {name} has no metrics at {file}; evaluate it (medsae evaluate), and name the result")
    return file


def _held_out(file: Path) -> Evaluation:
    """An evaluation whose latents were chosen on other images than they were scored on."""
    content = read_object(file)
    evaluation = None if content.get("optimistic") else Evaluation.read(content, file)
    same = evaluation is not None and evaluation.select.split == evaluation.report.split
    if evaluation is None or (same and not evaluation.report.folds):
        raise MedSAEError(f"{file} holds nothing out: its latents were chosen on the images that they are scored on")
    return evaluation


def _own(evaluation: Evaluation, name: str, config: SAEConfig, where: Path) -> Evaluation:
    """An evaluation's part that is this SAE's own."""
    metadata = config.metadata
    shape = (metadata.hook_name, config.d_in, config.d_sae)
    fits = [scores for scores in evaluation.saes if (scores.hook, scores.d_in, scores.d_sae) == shape]
    named = [scores for scores in fits if PurePosixPath(scores.name).name == name]
    if not named and len(fits) == 1 and where.parent.name == name:
        named = fits  # the SAE's own file, its folder renamed since
    if len(named) != 1:
        raise MedSAEError(f"{where} does not score the SAE {name}; evaluate it (medsae evaluate), and name the result")
    if metadata.encoder_sha256 not in (None, evaluation.encoder.weights_sha256):
        raise MedSAEError(f"{where} scores {name} on another encoder's weights than it was trained on")
    return evaluation.only(named[0].name)
