"""What a published repository holds: per SAE a folder in SAE-Lens's format with its metrics and names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, write_text, writing
from medsae_plugin.sae_folders import CONFIG, SPARSITY, WEIGHTS, load_sae, read_config, read_object, read_report

METRICS, NAMES = "metrics.json", "names.json"
_OBSERVATION = {"label", "positives", "known", "latent", "r", "entropy"}
_SENT_AS_IS = (CONFIG, WEIGHTS, SPARSITY, NAMES)


@dataclass(frozen=True)
class Published:
    """An SAE to publish: its folder, SAE-Lens's config, the report of its training (if any), and its own metrics."""

    name: str
    folder: Path
    config: dict[str, Any]
    training: dict[str, Any] | None
    metrics: dict[str, Any]

    @property
    def metadata(self) -> dict[str, Any]:
        return self.config.get("metadata") or {}

    @property
    def scores(self) -> dict[str, Any]:
        """The SAE's entry in the metrics."""
        return _of_kind(self.metrics, "sae")[0]

    def baseline(self, kind: str) -> dict[str, Any]:
        """The entry of the `neurons` at its hook, or of an `untrained` SAE of its shape; empty where there is none."""
        return next(iter(_of_kind(self.metrics, kind)), {})

    def write(self, folder: Path) -> None:
        """Write what is sent of it into `folder`."""
        make_folder(folder)
        for name in _SENT_AS_IS:
            if (self.folder / name).is_file():
                with writing(folder / name):
                    shutil.copyfile(self.folder / name, folder / name)
        write_text(folder / METRICS, json.dumps(self.metrics, indent=2, allow_nan=False) + "\n")


def collect(runs: Sequence[str | Path], metrics: str | Path | None = None) -> list[Published]:
    """The SAEs of runs, each a folder that `medsae train` wrote or the folder of one SAE.

    Args:
        metrics: what `medsae evaluate` wrote, or its folder; None looks for `metrics.json` beside the SAE's weights,
            then in the run's folder.

    Raises:
        MedSAEError: a run without SAEs, two SAEs of one name, an SAE that does not load, or one without metrics.
    """
    found: dict[str, Published] = {}
    for run in map(Path, runs):
        folders = [run] if (run / CONFIG).is_file() else sorted(path.parent for path in run.glob(f"*/{CONFIG}"))
        if not folders:
            raise MedSAEError(f"{run} holds no SAE: there is no {CONFIG} in it, nor in a folder of it")
        for folder in folders:
            name = folder.resolve().name
            if name in found:
                raise MedSAEError(f"{found[name].folder} and {folder} have the same name; rename one of the folders")
            found[name] = _published(name, folder, run, metrics)
    if len({sae.metadata.get("encoder_sha256") for sae in found.values()}) > 1:
        raise MedSAEError("these SAEs were trained on different encoders' weights; publish them in repositories apart")
    return list(found.values())


def own_metrics(metrics: dict[str, Any], name: str, config: dict[str, Any], where: Path) -> dict[str, Any]:
    """An evaluation's part that is one SAE's own: its entry, its untrained twin's, and that of its hook's neurons.

    Raises:
        MedSAEError: it is none, holds nothing out, does not score this SAE, or with another encoder's weights.
    """
    _check_held_out(metrics, where)
    metadata = config.get("metadata") or {}
    shape = {"hook": metadata.get("hook_name"), "d_in": config["d_in"], "d_sae": config["d_sae"]}
    fits = [c for c in _of_kind(metrics, "sae") if all(c.get(k) == v for k, v in shape.items())]
    named = [c for c in fits if PurePosixPath(c["name"]).name == name]
    if not named and len(fits) == 1 and where.parent.name == name:
        named = fits  # the SAE's own file, its folder renamed since
    if len(named) != 1:
        raise MedSAEError(f"{where} does not score the SAE {name}; evaluate it (medsae evaluate), and name the result")
    encoder = metrics.get("encoder") or {}
    if encoder.get("weights_sha256") != metadata.get("encoder_sha256", encoder.get("weights_sha256")):
        raise MedSAEError(f"{where} scores {name} on another encoder's weights than it was trained on")
    untrained = [c for c in _of_kind(metrics, "untrained") if c["name"] == f"untrained {named[0]['name']}"]
    neurons = [c for c in _of_kind(metrics, "neurons") if c.get("hook") == shape["hook"]]
    return {**metrics, "candidates": [named[0], *untrained, *neurons]}


def _check_held_out(metrics: dict[str, Any], where: Path) -> None:
    """Raise unless these are metrics whose latents were chosen on other images than they were scored on."""
    try:
        select, report = metrics["select"]["split"], metrics["report"]["split"]
        complete = all(o.keys() >= _OBSERVATION for c in metrics["candidates"] for o in c["observations"])
    except (KeyError, TypeError, AttributeError):
        select = report = None
        complete = False
    if metrics.get("optimistic") or (complete and select == report):
        raise MedSAEError(f"{where} holds nothing out: its latents were chosen on the images that they are scored on")
    if not complete:
        raise MedSAEError(f"{where} is not what medsae evaluate writes")


def _of_kind(metrics: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [c for c in metrics.get("candidates", []) if c.get("kind") == kind]


def _published(name: str, folder: Path, run: Path, metrics: str | Path | None) -> Published:
    load_sae(folder)
    config = read_config(folder)
    if metrics is not None:
        file = Path(metrics) / METRICS if Path(metrics).is_dir() else Path(metrics)
    else:
        file = next((path for path in (folder / METRICS, run / METRICS) if path.is_file()), folder / METRICS)
    if not file.is_file():
        raise MedSAEError(f"SAE {name} has no metrics at {file}; evaluate it (medsae evaluate), and name the result")
    return Published(name, folder, config, read_report(folder), own_metrics(read_object(file), name, config, file))
