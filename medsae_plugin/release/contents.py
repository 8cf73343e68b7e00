"""What a published repository holds: per SAE a folder in SAE-Lens's format with its metrics and names."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors.torch import save_file

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, write_text, writing
from medsae_plugin.naming.names import Names
from medsae_plugin.sae_folders import CONFIG, SPARSITY, WEIGHTS, load_sae, read_object
from medsae_plugin.scores.models import UnitScores
from medsae_plugin.scores.results import LATENTS_FILE, METRICS_FILE, Evaluation
from medsae_plugin.training.records import TrainingRecord, read_training

if TYPE_CHECKING:
    from sae_lens.saes.sae import SAEConfig

RUNNER = "runner_cfg.json"
_SENT_AS_IS = (WEIGHTS, SPARSITY, RUNNER, Names.FILE)
_LEAST = 1e-10


@dataclass(frozen=True)
class Published:
    """An SAE to publish: its folder, the record of its training (if any), and the evaluation of it alone.

    row_density: the share of rows on which each latent fires, as the evaluation counted; None where it has no
        `latents.parquet` beside it, or one from before this was counted.
    """

    name: str
    folder: Path
    config: SAEConfig
    training: TrainingRecord | None
    evaluation: Evaluation
    row_density: Float[np.ndarray, " latents"] | None = None

    @property
    def scores(self) -> UnitScores:
        """The SAE's own, with links to what stands beside it."""
        return self.evaluation.saes[0]

    def write(self, folder: Path) -> None:
        """Write what is sent of it into `folder`, with what SAE-Lens's own uploads have beside the weights.

        `sparsity.safetensors`: log10 of each latent's share of rows, as SAE-Lens's trainer and loader have it.
        `runner_cfg.json`: what it was trained with.
        """
        make_folder(folder)
        for name in _SENT_AS_IS:
            if (self.folder / name).is_file():
                with writing(folder / name):
                    shutil.copyfile(self.folder / name, folder / name)
        write_text(folder / CONFIG, json.dumps(self._config()))
        if self.training is not None and not (folder / RUNNER).is_file():
            write_text(folder / RUNNER, json.dumps(self.training.trained_by, indent=2) + "\n")
        if self.row_density is not None and not (folder / SPARSITY).is_file():
            log_sparsity = np.log10(self.row_density.astype(np.float32) + np.float32(_LEAST))
            with writing(folder / SPARSITY):
                save_file({"sparsity": torch.from_numpy(log_sparsity)}, folder / SPARSITY)
        self.evaluation.save(folder)

    def _config(self) -> dict[str, Any]:
        """`cfg.json` with the metadata that SAE-Lens knows and medical images have no other value for.

        model_class_name: what loads the model. dataset_path: of a data set on the Hub; none. exclude_special_tokens:
        whether prefix tokens were left out of the rows that it was trained on. neuronpedia_id: none. num_dead_features:
        as the evaluation counts them, so that it agrees with the metrics beside it.
        """
        config = read_object(self.folder / CONFIG)
        metadata = config.get("metadata") or {}
        known: dict[str, Any] = dict.fromkeys(("dataset_path", "neuronpedia_id"))
        known["model_class_name"] = "HookedVisionEncoder"
        if (positions := metadata.get("positions")) is not None:
            known["exclude_special_tokens"] = positions == "mean"
        counted = {"num_dead_features": round(self.scores.value("dead") * self.config.d_sae)}
        return config | {"metadata": known | metadata | counted}


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
            density = _row_density(file, own.saes[0].name, config.d_sae)
            found[name] = Published(name, folder, config, read_training(folder), own, density)
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


def _row_density(metrics: Path, name: str, d_sae: int) -> Float[np.ndarray, " latents"] | None:
    file = metrics.with_name(LATENTS_FILE)
    if not file.is_file():
        return None
    frame = pd.read_parquet(file)
    own = frame[frame["name"] == name]
    if "row_density" not in own or len(own) != d_sae or own["row_density"].isna().any():
        return None
    order = own["latent"].astype(int).to_numpy().argsort()
    return own["row_density"].to_numpy(np.float64)[order]


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
