"""Training SAEs over a store with SAE-Lens's own trainers, and going on after an interruption."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, refuse_other_content, replacing_folder, writing
from medsae_plugin.machine import to_device
from medsae_plugin.sae_folders import CONFIG, HISTORY, REPORT, RUN, load_sae, read_object
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.text import differences
from medsae_plugin.training.checkpoints import Checkpoints, Progress, load
from medsae_plugin.training.decoders import hold_decoder
from medsae_plugin.training.memory import TrainingPatients
from medsae_plugin.training.normalization import CenterAndScale, save_of_raw
from medsae_plugin.training.plan import Plan
from medsae_plugin.training.records import Figure, TrainingRecord, TrainingRun
from medsae_plugin.training.specs import CENTER_AND_SCALE, SAESpec, TrainingConfig, build_sae
from medsae_plugin.training.validation import TopR, Validation, fidelity_sums
from medsae_plugin.training.watch import Watch

if TYPE_CHECKING:
    from sae_lens.saes.sae import TrainingSAE

CHECKPOINT_MINUTES = 5.0


def train_saes(
    store: ActivationStore,
    specs: Sequence[SAESpec],
    config: TrainingConfig,
    out: str | Path,
    *,
    top_r: TopR | None = None,
    wandb_project: str | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    progress: bool = True,
) -> dict[str, Path]:
    """Train SAEs on the store's training split: SAE-Lens's `SAETrainer` for one, `MultiSAETrainer` for several.

    All SAEs see the same order of rows, from one pass over the data. Into `out` go a folder an SAE (`cfg.json` and
    `sae_weights.safetensors`, which plain `SAE.load_from_disk` loads and which take raw activations; `training.json`,
    the figures on the validation split; `history.parquet`, those on the way; `patients.safetensors`, see `memory`), and
    in `checkpoints/` as many as the config asks for: SAEs of raw activations as well, each beside a folder `trainer` of
    what its training goes on from. An `abstopk` SAE is saved as the equal top-k SAE of twice its latents, see
    `split_by_sign`.

    Called again with the same arguments after an interruption, it goes on from the last whole checkpoint in `out`, to
    the same weights as an unbroken run; where all is finished it returns at once.

    Args:
        top_r: measured beside fidelity on the validation split, such as `medsae_plugin.scores.MeanTopR(store, table)`.
        wandb_project: log to Weights & Biases, in a project of this name, what SAE-Lens logs, under its names.
        checkpoint_minutes: between checkpoints to go on from, beside the config's own; a first one comes after a tenth
            of it. The last is kept until all is finished.
        progress: figures on stderr, on a line that moves on a terminal, else on a line every so often.

    Returns:
        The folder of each SAE, by name.

    Raises:
        MedSAEError: specs that do not fit the store; `out` holds another run; a damaged checkpoint; a training that
            diverged, once the other SAEs of the run are saved; Weights & Biases does not start.
    """
    trained = train_part(
        store,
        specs,
        config,
        out,
        top_r=top_r,
        wandb_project=wandb_project,
        checkpoint_minutes=checkpoint_minutes,
        progress=progress,
    )
    if trained.diverged:
        raise MedSAEError(
            f"the training of {', '.join(trained.diverged)} diverged: nan or infinity among its weights; lower the "
            "learning rate. It is not saved, and the other SAEs of the run are"
        )
    return trained.folders


class Trained(NamedTuple):
    """What a part of a training came to.

    folders: of the SAEs that are finished. figures: of each SAE the last on the validation sample, where there is one.
    diverged: those that have nan or infinity among their weights.
    """

    folders: dict[str, Path]
    figures: dict[str, dict[str, float | None]]
    diverged: list[str]


def train_part(
    store: ActivationStore,
    specs: Sequence[SAESpec],
    config: TrainingConfig,
    out: str | Path,
    *,
    names: Collection[str] | None = None,
    steps: int | None = None,
    top_r: TopR | None = None,
    wandb_project: str | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    progress: bool = True,
) -> Trained:
    """`train_saes` for some of its SAEs, or up to a step, where it ends with a checkpoint that the next part goes on
    from, with the same SAEs or fewer; those that reach the end are the same as without parts.

    Args:
        names: of the SAEs to go on with, by default all.
        steps: at which to stop, by default all.

    Raises:
        MedSAEError: as `train_saes`, but for what diverged, which is told.
    """
    plan = Plan.of(store, specs, config)
    for line in plan.warnings:
        warnings.warn(line, stacklevel=3)
    config, out = plan.config, Path(out)
    mine = [spec for spec in plan.specs if names is None or spec.name in names]
    folders = {spec.name: out / spec.name for spec in mine}
    is_begun = _claim(what := TrainingRun.of(store, plan.specs, config), out)
    steps = config.steps if steps is None else steps
    watch = Watch(steps, config.batch_size, progress)
    if all((folder / REPORT).is_file() for folder in folders.values()):
        watch.say(f"{out} holds this training, finished; nothing is trained")
        return Trained(folders, {}, [])
    from medsae_plugin.training.trainers import logged, without_bars

    until = None if steps == config.steps else steps * config.batch_size
    with (
        writing(out, "Whole checkpoints are kept, and the same command goes on from the last"),
        logged(wandb_project, out.name, what.to_json(), quiet=not progress),
        without_bars(),
    ):
        checkpoints = Checkpoints(out, checkpoint_minutes, until)
        run = _Run(store, mine, config, out, checkpoints, watch, top_r, wandb_project)
        if is_begun:
            watch.say(run.where_it_goes_on())
        run.fit(until)
    return _ended(run, folders, is_whole=until is None)


def _ended(run: _Run, folders: dict[str, Path], is_whole: bool) -> Trained:
    """What a part came to; at the end of a training its SAEs are saved."""
    diverged = run.diverged()
    figures = dict(run.history[-1]["saes"]) if run.history else {}
    if not is_whole:
        return Trained({}, figures, diverged)
    for spec in run.specs:
        if spec.name not in diverged:
            run.save(spec, folders[spec.name])
    if not diverged:
        run.checkpoints.finish()
    return Trained({name: folder for name, folder in folders.items() if name not in diverged}, figures, diverged)


def _claim(what: TrainingRun, out: Path) -> bool:
    """Note what this run is in `run.json`, or check that the run in `out` is this one; whether it was there."""
    if (out / RUN).is_file():
        if lines := differences(TrainingRun.open(out / RUN).to_json(), what.to_json(), "the folder"):
            raise MedSAEError("\n".join([f"{out} holds another training run; choose another folder, or mend:", *lines]))
        return True
    refuse_other_content(out, "training run")
    what.save(make_folder(out))
    return False


class _Run:
    """One call of a trainer: the SAEs, the stream of batches that feeds them, and what is noted on the way."""

    def __init__(
        self,
        store: ActivationStore,
        specs: Sequence[SAESpec],
        config: TrainingConfig,
        out: Path,
        checkpoints: Checkpoints,
        watch: Watch,
        top_r: TopR | None,
        wandb_project: str | None,
    ) -> None:
        from medsae_plugin.training.trainers import make_trainer, with_wandb

        self.store, self.specs, self.config = store, specs, config
        self.checkpoints, self.watch, self.device = checkpoints, watch, torch.device(config.device)
        self.saes: dict[str, TrainingSAE[Any]] = {spec.name: build_sae(store, spec, config) for spec in specs}
        centred = {spec.hook for spec in specs if spec.normalize == CENTER_AND_SCALE}
        self.center = {hook: CenterAndScale.of(store, hook) for hook in sorted(centred)}
        self.validation = Validation(store, [spec.hook for spec in specs], config.seed, top_r)
        self.n_batches = 0  # taken from the store's stream
        self.history: list[dict[str, Any]] = []
        cfg = config.for_sae_lens(str(checkpoints.writing))
        if wandb_project is not None:
            cfg = with_wandb(cfg, config, wandb_project)
        self.trainer, self.own = make_trainer(
            cfg, specs, self.saes, self._stream(), watch, self._validated, self._checkpointed
        )
        for spec in specs:
            hold_decoder(self.saes[spec.name], spec.decoder, self.own[spec.name].optimizer)
        self._go_on()

    def where_it_goes_on(self) -> str:
        """In words, of a run that was begun before."""
        if step := self.trainer.n_training_steps:
            return f"going on from the checkpoint at step {step:,} of {self.watch.steps:,}"
        return "this training was begun before and has no checkpoint yet; it begins anew"

    def fit(self, until: int | None = None) -> None:
        """Train to the end, or until so many samples have been trained on."""
        torch.manual_seed(self.config.seed)
        if until is not None:  # the learning rate's schedule, which is made by now, is of the whole
            self.trainer.cfg.total_training_samples = until
        try:
            self.trainer.fit()
            self._look()
        finally:
            self.watch.close()
        self._note(self.trainer.n_training_steps)

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
                (temporary / CONFIG).write_text(json.dumps(config, sort_keys=True), encoding="utf-8")
            validation: dict[str, Figure] | None = {**sums.figures()} if sums.n else None
            TrainingRecord(sae=spec, training=self.config, validation=validation).save(temporary)
            if self.history:
                told = [{"step": n["step"], "rows": n["rows"], **n["saes"][spec.name]} for n in self.history]
                pd.DataFrame(told).astype({"mean_top_r": float}).to_parquet(temporary / HISTORY, index=False)

    def _save_of_raw(self, spec: SAESpec, folder: Path) -> None:
        center = self.center[spec.hook] if spec.normalize == CENTER_AND_SCALE else None
        save_of_raw(self.saes[spec.name], center, self.own[spec.name].activation_scaler, folder)
        images = self.store.readable_images
        patients = images.loc[images["split"] == "train", "patient"]
        TrainingPatients.of(patients, self.store.split_sha256, spec.name, spec.hook, spec.seed).save(folder)

    def _normalizer(self, spec: SAESpec) -> Callable[[Tensor], Tensor]:
        """MedSAE's normalisation, which SAE-Lens does not know; its own it applies itself."""
        return self.center[spec.hook] if spec.normalize == CENTER_AND_SCALE else lambda x: x

    def _stream(self) -> Iterator[dict[str, Tensor]]:
        """Batches by SAE name, normalised. Between two of them, when the weights stand still, is what is not a step."""
        hooks = list(dict.fromkeys(spec.hook for spec in self.specs))
        batches = self.store.batches(
            hooks, self.config.batch_size, split="train", seed=self.config.seed, start_step=self.n_batches
        )
        for batch in batches:
            if (step := self.trainer.n_training_steps) and step % self.config.validate_every == 0:
                self._note(step)
            self.checkpoints.ask_if_due(self.trainer, self.config.batch_size)
            self._look()
            self.n_batches += 1
            done: dict[tuple[str, bool], Tensor] = {}
            for spec in self.specs:
                key = (spec.hook, spec.normalize == CENTER_AND_SCALE)
                if key not in done:
                    done[key] = self._normalizer(spec)(to_device(batch[spec.hook], self.device))
            yield {spec.name: done[spec.hook, spec.normalize == CENTER_AND_SCALE] for spec in self.specs}

    def _look(self) -> None:
        figures = {name: trainer.figures for name, trainer in self.own.items() if trainer.figures}
        self.watch.look(self.trainer.n_training_steps, figures)

    def _note(self, step: int) -> None:
        """Measure every SAE on the validation sample, once a step."""
        if not self.validation.rows or (self.history and self.history[-1]["step"] == step):
            return
        figures = {}
        for spec in self.specs:
            measured = self.validation.measure(self.saes[spec.name], spec.hook, self._scaled(spec))
            figures[spec.name] = {**measured, "loss": self.own[spec.name].take_loss()}
        self.history.append({"step": step, "rows": step * self.config.batch_size, "saes": figures})

    def _scaled(self, spec: SAESpec) -> Callable[[Tensor], Tensor]:
        """Into the space that the SAE trains in: MedSAE's normalisation, and SAE-Lens's while it is not folded."""
        return lambda x: self.own[spec.name].activation_scaler(self._normalizer(spec)(x))

    def _validated(self, step: int) -> dict[str, dict[str, float | None]]:
        """For SAE-Lens's evaluator: the figures after so many steps."""
        self._note(step)
        return dict(self.history[-1]["saes"]) if self.history else {}

    def _checkpointed(self, checkpoint_path: Path | None) -> None:
        assert checkpoint_path is not None
        specs = {spec.name: spec for spec in self.specs}
        losses = {name: (float(trainer.loss), trainer.steps) for name, trainer in self.own.items()}
        progress = Progress(self.n_batches, self.history, losses)
        self.checkpoints.take(
            checkpoint_path, list(specs), lambda name, folder: self._save_of_raw(specs[name], folder), progress
        )

    def _go_on(self) -> None:
        """From the last whole checkpoint, if any."""
        if (last := self.checkpoints.last()) is None:
            return
        progress = load(last, self.trainer, self.own, self.config.batch_size)
        self.n_batches, self.history = progress.batches, progress.history
        for name, trainer in self.own.items():
            loss, trainer.steps = progress.losses[name]
            trainer.loss = torch.tensor(loss, dtype=torch.float32)
