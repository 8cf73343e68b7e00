"""Checkpoints of a training: when one is due, where whole ones lie, and going on from the last."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import write_text
from medsae_plugin.sae_folders import CHECKPOINTS, CONFIG, read_object

# In `out` while SAE-Lens writes a checkpoint; in a checkpoint, beside an SAE, what its training goes on from.
WRITING, TRAINER = ".checkpoint", "trainer"
PROGRESS = "progress.json"
_DAMAGED = (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError, pickle.UnpicklingError)
_FIRST = 0.1  # of the usual time between two: the first one comes early
_MOST_TIME = 0.05  # of a training's time that writing them may take


@dataclass(frozen=True)
class Progress:
    """What a training goes on from beside SAE-Lens's own: the batches that it took, its figures so far, and of each SAE
    the sum of its losses since the last figures and over how many steps. by_time: whether it goes when all is trained.
    """

    batches: int
    history: list[dict[str, Any]]
    losses: dict[str, tuple[float, int]]
    by_time: bool = False


class Checkpoints:
    """The folder of a run's checkpoints. Those that the recipe asks for stay; of those by time the last, until the end.

    SAE-Lens writes them, at the samples of its `checkpoint_thresholds`; one by time is such a threshold, put in when it
    is due. So is the one after `until` samples, where a part of a training ends.
    """

    def __init__(self, out: Path, minutes: float, until: int | None = None) -> None:
        self.folder, self.writing = out / CHECKPOINTS, out / WRITING
        self._until = until
        self._every = 60 * minutes
        self._due = time.monotonic() + _FIRST * self._every
        self._by_time = False
        self._began = 0.0

    def ask_if_due(self, trainer: Any, batch_size: int) -> None:
        """Before a step: let SAE-Lens checkpoint after it, if it is time and it would not anyway."""
        self._began = time.monotonic()
        is_last = self._until is not None and trainer.n_training_samples + batch_size >= self._until
        if not is_last and (self._began < self._due or not trainer.n_training_samples):
            return
        thresholds = trainer.checkpoint_thresholds
        if not (thresholds and thresholds[0] < trainer.n_training_samples + batch_size):
            thresholds.insert(0, trainer.n_training_samples)
            self._by_time = True

    def take(
        self, written: Path, names: Sequence[str], save_raw: Callable[[str, Path], None], progress: Progress
    ) -> None:
        """SAE-Lens has written a checkpoint, of weights that take normalised activations and look like any SAE's: put
        SAEs of raw activations in their place, and the whole where checkpoints are, at once.

        Args:
            save_raw: writes the SAE of raw activations of a name to a folder.
            progress: what else the training goes on from.
        """
        from sae_lens.constants import ACTIVATION_SCALER_CFG_FILENAME
        from sae_lens.training.activation_scaler import ActivationScaler

        for name in names:
            folder = written if len(names) == 1 else written / name  # as SAE-Lens lays them out
            theirs = [file for file in folder.iterdir() if file.name != CONFIG]
            (folder / TRAINER).mkdir()
            for file in theirs:
                file.rename(folder / TRAINER / file.name)
            save_raw(name, folder)
            ActivationScaler().save(str(folder / ACTIVATION_SCALER_CFG_FILENAME))  # SAE-Lens's word for: all is folded
        write_text(written / PROGRESS, json.dumps(asdict(replace(progress, by_time=self._by_time))) + "\n")
        earlier = [folder for folder in self._whole() if _is_by_time(folder)]
        self.folder.mkdir(exist_ok=True)
        written.rename(self.folder / written.name)
        self.writing.rmdir()
        for folder in earlier:
            _remove(folder)
        self._by_time = False
        took = time.monotonic() - self._began  # with the step before, which is little beside it
        self._due = time.monotonic() + max(self._every, took / _MOST_TIME if self._every else 0)

    def last(self) -> Path | None:
        """The last whole one, if any; what was being written when a run ended is removed."""
        shutil.rmtree(self.writing, ignore_errors=True)
        whole = self._whole()
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            if folder not in whole:
                shutil.rmtree(folder)
        return max(whole, key=lambda folder: int(folder.name), default=None)

    def finish(self) -> None:
        """All is trained and saved: remove what was for going on alone."""
        for folder in self._whole():
            if _is_by_time(folder):
                _remove(folder)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _whole(self) -> list[Path]:
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        return [folder for folder in there if (folder / PROGRESS).is_file()]


def load(checkpoint: Path, trainer: Any, own: dict[str, Any], batch_size: int) -> Progress:
    """Put SAE-Lens's trainers where a checkpoint left them; returns what `Checkpoints.take` was given as progress.

    Raises:
        MedSAEError: it is damaged.
    """
    try:
        for name, inner in own.items():
            several = (checkpoint / name / TRAINER).is_dir()  # of more SAEs than go on, perhaps
            folder = (checkpoint / name if several else checkpoint) / TRAINER
            inner.load_trainer_state(folder)
            inner.sae.load_weights_from_checkpoint(folder)
            # SAE-Lens checkpoints before it counts the step that has just been made.
            inner.n_training_steps = inner.n_training_samples // batch_size
        trainer.n_training_steps, trainer.n_training_samples = inner.n_training_steps, inner.n_training_samples
        trainer.checkpoint_thresholds = [t for t in trainer.checkpoint_thresholds if t >= trainer.n_training_samples]
        return _progress(checkpoint)
    except _DAMAGED as error:
        raise _damaged(checkpoint, error) from error


def _is_by_time(folder: Path) -> bool:
    return _progress(folder).by_time


def _progress(checkpoint: Path) -> Progress:
    try:
        return TypeAdapter(Progress).validate_python(read_object(checkpoint / PROGRESS))
    except ValidationError as error:
        raise _damaged(checkpoint, error) from error


def _damaged(checkpoint: Path, error: Exception) -> MedSAEError:
    return MedSAEError(
        f"the checkpoint {checkpoint} is damaged ({' '.join(str(error).split())}); delete it, and training goes on "
        "from the one before"
    )


def _remove(folder: Path) -> None:
    (folder / PROGRESS).unlink()  # what is left of it is whole for no one
    shutil.rmtree(folder)
