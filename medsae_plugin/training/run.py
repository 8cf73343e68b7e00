"""Training SAEs over a store with SAE-Lens's own trainers, and going on after an interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, refuse_other_content, replacing_folder, write_text, writing
from medsae_plugin.sae_folders import CHECKPOINTS, CONFIG, REPORT, RUN, load_sae, read_object
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.decoders import hold_decoder
from medsae_plugin.training.memory import TrainingPatients
from medsae_plugin.training.normalization import CenterAndScale, save_of_raw
from medsae_plugin.training.plan import Plan
from medsae_plugin.training.specs import CENTER_AND_SCALE, SAESpec, TrainingConfig, build_sae
from medsae_plugin.training.validation import Validation, fidelity_sums

if TYPE_CHECKING:
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import TrainingSAE
    from sae_lens.training.multi_sae_trainer import MultiSAETrainer
    from sae_lens.training.sae_trainer import SAETrainer

# In `out` while SAE-Lens writes a checkpoint; in a checkpoint, beside an SAE, what its training goes on from.
WRITING, TRAINER = ".checkpoint", "trainer"
PROGRESS = "progress.json"
_DAMAGED = (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError, pickle.UnpicklingError)


def train_saes(
    store: ActivationStore,
    specs: Sequence[SAESpec],
    config: TrainingConfig,
    out: str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
) -> dict[str, Path]:
    """Train SAEs on the store's training split: SAE-Lens's `SAETrainer` for one, `MultiSAETrainer` for several.

    All SAEs see the same order of rows, from one pass over the data. Into `out` go a folder an SAE (`cfg.json` and
    `sae_weights.safetensors`, which plain `SAE.load_from_disk` loads and which take raw activations; `training.json`,
    the figures on the validation split; `patients.safetensors`, see `memory`), and in `checkpoints/` as many as the
    config asks for: SAEs of raw activations as well, each beside a folder `trainer` of what its training goes on from.
    An `abstopk` SAE is saved as the equal top-k SAE of twice its latents, see `split_by_sign`.

    Args:
        resume: go on from the last whole checkpoint in `out`, to the same weights as an unbroken run; start where
            there is none, and return at once where all is finished.

    Returns:
        The folder of each SAE, by name.

    Raises:
        MedSAEError: specs that do not fit the store; `out` holds another run, or this one and `resume` is not given; a
            damaged checkpoint; a training that diverged, once the other SAEs of the run are saved.
    """
    plan = Plan.of(store, specs, config)
    for line in plan.warnings:
        warnings.warn(line, stacklevel=2)
    specs, config = plan.specs, plan.config
    out = Path(out)
    folders = {spec.name: out / spec.name for spec in specs}
    _claim(store, specs, config, out, resume)
    if all((folder / REPORT).is_file() for folder in folders.values()):
        return folders
    run = _Run(store, specs, config, out)
    # SAE-Lens offers no switch for its progress bar, which goes to stderr.
    quiet = contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO())
    with writing(out, "Whole checkpoints are kept, and resuming goes on from the last"), quiet:
        run.fit()
    diverged = run.diverged()
    for spec in specs:
        if spec.name not in diverged:
            run.save(spec, folders[spec.name])
    if diverged:
        raise MedSAEError(
            f"the training of {', '.join(diverged)} diverged: nan or infinity among its weights; lower the "
            "learning rate. It is not saved, and the other SAEs of the run are"
        )
    return folders


def _claim(store: ActivationStore, specs: Sequence[SAESpec], config: TrainingConfig, out: Path, resume: bool) -> None:
    """Note what this run is in `run.json`, or check that the run in `out` is this one."""
    what = {
        "saes": [spec.fields() for spec in specs],
        "training": {k: v for k, v in dataclasses.asdict(config).items() if k != "device"},
        "encoder_sha256": store.manifest["encoder"]["weights_sha256"],
        "positions": store.manifest["positions"],
        "images_sha256": store.manifest["images"]["sha256"],
    }
    what = json.loads(json.dumps(what))
    note = out / RUN
    if note.is_file():
        there = read_object(note)
        if there != what:
            fields = ", ".join(key for key in what if there.get(key) != what[key])
            raise MedSAEError(f"{out} holds another training run (it differs in: {fields}); choose another folder")
        if not resume:
            raise MedSAEError(f"{out} holds this training run already; resume it, or choose another folder")
    else:
        refuse_other_content(out, "training run")
        make_folder(out)
        write_text(note, json.dumps(what, indent=2) + "\n")


class _Run:
    """One call of a trainer: the SAEs, the stream of batches that feeds them, and what is noted on the way."""

    def __init__(self, store: ActivationStore, specs: Sequence[SAESpec], config: TrainingConfig, out: Path) -> None:
        self.store, self.specs, self.config = store, specs, config
        self.checkpoints, self.writing = out / CHECKPOINTS, out / WRITING
        self.saes: dict[str, TrainingSAE[Any]] = {spec.name: build_sae(store, spec, config) for spec in specs}
        centred = {spec.hook for spec in specs if spec.normalize == CENTER_AND_SCALE}
        self.center = {hook: CenterAndScale.of(store, hook) for hook in sorted(centred)}
        self.validation = Validation(store, [spec.hook for spec in specs], config.seed)
        self.n_batches = 0  # taken from the store's stream
        self.history: list[dict[str, Any]] = []
        self.trainer = self._trainer()
        for spec in specs:
            hold_decoder(self.saes[spec.name], spec.decoder, self._trainers()[spec.name].optimizer)
        self._resume()

    def fit(self) -> None:
        torch.manual_seed(self.config.seed)
        self.trainer.fit()
        self._note()

    def diverged(self) -> list[str]:
        """The SAEs that have nan or infinity among their weights."""
        weights = {name: sae.state_dict().values() for name, sae in self.saes.items()}
        return [name for name, tensors in weights.items() if not all(torch.isfinite(w).all() for w in tensors)]

    def save(self, spec: SAESpec, folder: Path) -> None:
        """Write the SAE's folder whole or not at all."""
        with replacing_folder(folder) as temporary:
            self._save_of_raw(spec, temporary)
            sums = fidelity_sums(self.store, load_sae(temporary), spec.hook, "val")
            if sums.n:  # what SAE-Lens counts is what has not fired for a while in training
                config = read_object(temporary / CONFIG)
                config["metadata"]["num_dead_features"] = int((sums.fired == 0).sum())
                (temporary / CONFIG).write_text(json.dumps(config), encoding="utf-8")
            report = {
                "sae": spec.fields(),
                "training": {k: v for k, v in dataclasses.asdict(self.config).items() if k != "device"},
                "validation": sums.figures() if sums.n else None,
                "history": [{"step": note["step"], **note["saes"][spec.name]} for note in self.history],
            }
            (temporary / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    def _save_of_raw(self, spec: SAESpec, folder: Path) -> None:
        center = self.center[spec.hook] if spec.normalize == CENTER_AND_SCALE else None
        save_of_raw(self.saes[spec.name], center, self._trainers()[spec.name].activation_scaler, folder)
        images = self.store.readable_images
        patients = images.loc[images["split"] == "train", "patient"]
        TrainingPatients.of(patients, self.store.split_sha256, spec.name, spec.hook, spec.seed).save(folder)

    def _trainers(self) -> dict[str, Any]:
        """SAE-Lens's trainer of each SAE."""
        trainer: Any = self.trainer
        return {self.specs[0].name: trainer} if len(self.specs) == 1 else trainer.trainers

    def _trainer(self) -> SAETrainer[Any, Any] | MultiSAETrainer:
        from sae_lens.training.multi_sae_trainer import MultiSAETrainer
        from sae_lens.training.sae_trainer import SAETrainer

        cfg = self.config.for_sae_lens(str(self.writing))
        if len(self.specs) == 1:
            (spec,) = self.specs
            stream = (batch[spec.name] for batch in self._stream())
            own = _with_lr(cfg, spec)
            return SAETrainer(own, self.saes[spec.name], stream, save_checkpoint_fn=self._checkpointed)
        names = {name: name for name in self.saes}
        trainer = MultiSAETrainer(cfg, self.saes, names, self._stream(), save_checkpoint_fn=self._checkpointed)
        for spec in self.specs:
            if spec.lr is not None:
                theirs = trainer.trainers[spec.name].cfg
                trainer.trainers[spec.name] = SAETrainer(_with_lr(theirs, spec), self.saes[spec.name], iter(()))
        return trainer

    def _normalizer(self, spec: SAESpec) -> Callable[[Tensor], Tensor]:
        return self.center[spec.hook] if spec.normalize == CENTER_AND_SCALE else lambda x: x

    def _stream(self) -> Iterator[dict[str, Tensor]]:
        """Batches by SAE name, normalised. Validation runs between two of them, when the weights stand still."""
        hooks = list(dict.fromkeys(spec.hook for spec in self.specs))
        batches = self.store.batches(
            hooks, self.config.batch_size, split="train", seed=self.config.seed, start_step=self.n_batches
        )
        for batch in batches:
            if self.trainer.n_training_steps and self.trainer.n_training_steps % self.config.validate_every == 0:
                self._note()
            self.n_batches += 1
            done: dict[tuple[str, str], Tensor] = {}
            for spec in self.specs:
                key = (spec.hook, "" if spec.normalize != CENTER_AND_SCALE else CENTER_AND_SCALE)
                if key not in done:
                    done[key] = self._normalizer(spec)(batch[spec.hook])
            yield {
                spec.name: done[spec.hook, CENTER_AND_SCALE if spec.normalize == CENTER_AND_SCALE else ""]
                for spec in self.specs
            }

    def _note(self) -> None:
        """Measure every SAE on the validation sample, once a step."""
        step = self.trainer.n_training_steps
        if not self.validation.rows or (self.history and self.history[-1]["step"] == step):
            return
        figures = {
            spec.name: self.validation.measure(self.saes[spec.name], spec.hook, self._normalizer(spec))
            for spec in self.specs
        }
        self.history.append({"step": step, "saes": figures})

    def _place(self, checkpoint: Path, spec: SAESpec) -> Path:
        """The folder of an SAE in a checkpoint, as SAE-Lens lays it out."""
        return checkpoint if len(self.specs) == 1 else checkpoint / spec.name

    def _checkpointed(self, checkpoint_path: Path | None) -> None:
        """SAE-Lens has written a checkpoint, of weights that take normalised activations and look like any SAE's: put
        SAEs of raw activations in their place, and the whole where checkpoints are, at once."""
        from sae_lens.constants import ACTIVATION_SCALER_CFG_FILENAME
        from sae_lens.training.activation_scaler import ActivationScaler

        assert checkpoint_path is not None
        for spec in self.specs:
            folder = self._place(checkpoint_path, spec)
            theirs = [file for file in folder.iterdir() if file.name != CONFIG]
            (folder / TRAINER).mkdir()
            for file in theirs:
                file.rename(folder / TRAINER / file.name)
            self._save_of_raw(spec, folder)
            ActivationScaler().save(str(folder / ACTIVATION_SCALER_CFG_FILENAME))  # SAE-Lens's word for: all is folded
        progress = {"batches": self.n_batches, "history": self.history}
        write_text(checkpoint_path / PROGRESS, json.dumps(progress) + "\n")
        self.checkpoints.mkdir(exist_ok=True)
        checkpoint_path.rename(self.checkpoints / checkpoint_path.name)
        self.writing.rmdir()

    def _resume(self) -> None:
        """Load the last whole checkpoint, if any; what was being written when a run ended is removed."""
        shutil.rmtree(self.writing, ignore_errors=True)
        whole = []
        for folder in self.checkpoints.iterdir() if self.checkpoints.is_dir() else ():
            if (folder / PROGRESS).is_file():
                whole.append(folder)
            else:
                shutil.rmtree(folder)
        if not whole:
            return
        last = max(whole, key=lambda folder: int(folder.name))
        try:
            self._load(last)
        except _DAMAGED as error:
            raise MedSAEError(
                f"the checkpoint {last} is damaged ({' '.join(str(error).split())}); delete it, and training goes on "
                "from the one before"
            ) from error

    def _load(self, checkpoint: Path) -> None:
        trainer: Any = self.trainer
        for spec in self.specs:
            inner, folder = self._trainers()[spec.name], self._place(checkpoint, spec) / TRAINER
            inner.load_trainer_state(folder)
            inner.sae.load_weights_from_checkpoint(folder)
            # SAE-Lens checkpoints before it counts the step that has just been made.
            inner.n_training_steps = inner.n_training_samples // self.config.batch_size
        trainer.n_training_steps, trainer.n_training_samples = inner.n_training_steps, inner.n_training_samples
        trainer.checkpoint_thresholds = [t for t in trainer.checkpoint_thresholds if t >= trainer.n_training_samples]
        progress = read_object(checkpoint / PROGRESS)
        self.n_batches, self.history = progress["batches"], progress["history"]


def _with_lr(cfg: SAETrainerConfig, spec: SAESpec) -> SAETrainerConfig:
    """SAE-Lens's config with the SAE's own learning rate, if it has one; it ends at the same share of it."""
    if spec.lr is None:
        return cfg
    return dataclasses.replace(cfg, lr=spec.lr, lr_end=spec.lr * (cfg.lr_end or 0) / cfg.lr)
