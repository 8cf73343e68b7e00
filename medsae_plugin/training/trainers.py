"""SAE-Lens's trainers as they run here: with its own loops and steps, watched, and without its progress bars."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import wandb
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.sae import TrainingSAE, TrainStepOutput
from sae_lens.training import activation_scaler, multi_sae_trainer, sae_trainer
from sae_lens.training.multi_sae_trainer import MultiSAETrainer
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from medsae_plugin.errors import MedSAEError, reason_of
from medsae_plugin.training.sparse_topk import SparseTopKTrainingSAE
from medsae_plugin.training.specs import SAESpec, TrainingConfig
from medsae_plugin.training.watch import Watch

# SAE-Lens's steps between two entries of its log; a divisor of them where validation falls between.
_LOG_EVERY = 10
# Of our figures on the validation split in SAE-Lens's log, beside its own of the training batch.
_VALIDATED = {
    "explained_variance": "metrics/val_explained_variance",
    "l0": "metrics/val_l0",
    "dead": "sparsity/val_dead",
    "mean_top_r": "metrics/val_mean_top_r",
}


class WatchedTrainer(SAETrainer[Any, Any]):
    """SAE-Lens's trainer of one SAE; its public `step` also sums the loss, and gives figures of the batch if asked.

    Attributes:
        loss, steps: sum of the loss over the steps since it was last taken, and their number.
        figures: SAE-Lens's own of the last batch that was to be shown, and the share of latents that have not fired in
            the last `dead_feature_window` steps, or in as many as there were.
    """

    def __init__(self, watch: Watch, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.sae, SparseTopKTrainingSAE):  # whose steps are short enough for Adam's to count
            self.optimizer.param_groups[0].update(fused=True, foreach=False)
        self.watch = watch
        self.loss: Tensor = torch.zeros(())
        self.steps = 0
        self.figures: dict[str, float] = {}

    def step(self, batch: Tensor) -> TrainStepOutput:
        output = super().step(batch)
        self.loss = self.loss.to(output.loss.device) + output.loss.detach().float()
        self.steps += 1
        if self.watch.wanted:
            told = self.build_train_step_log_dict(output, self.n_training_samples)
            window = min(self.n_training_steps + 1, self.cfg.dead_feature_window)
            self.figures = {
                "explained_variance": told["metrics/explained_variance"],
                "l0": told["metrics/l0"],
                "dead": float((self.n_forward_passes_since_fired >= window).float().mean()),
                "loss": told["losses/overall_loss"],
            }
        return output

    def take_loss(self) -> float | None:
        """Its mean since the last call; None where no step was made."""
        mean = float(self.loss) / self.steps if self.steps else None
        self.loss, self.steps = torch.zeros(()), 0
        return mean


def make_trainer(
    cfg: SAETrainerConfig,
    specs: Sequence[SAESpec],
    saes: Mapping[str, TrainingSAE[Any]],
    stream: Iterator[dict[str, Tensor]],
    watch: Watch,
    validated: Callable[[int], Mapping[str, Mapping[str, float | None]]],
    checkpointed: Callable[[Path | None], None],
) -> tuple[Any, dict[str, WatchedTrainer]]:
    """SAE-Lens's `SAETrainer` for one SAE, its `MultiSAETrainer` for several; and the trainer of each SAE.

    Args:
        validated: the figures of each SAE on the validation split after so many steps; what SAE-Lens's evaluator tells.
    """

    def told(step: int) -> dict[str, dict[str, float]]:
        return {
            name: {_VALIDATED[key]: value for key, value in figures.items() if key in _VALIDATED and value is not None}
            for name, figures in validated(step).items()
        }

    # SAE-Lens evaluates before it counts the step that has just been made.
    if len(specs) == 1:
        (spec,) = specs
        alone: WatchedTrainer = WatchedTrainer(
            watch,
            _with_lr(cfg, spec),
            saes[spec.name],
            (batch[spec.name] for batch in stream),
            evaluator=lambda *_: told(alone.n_training_steps + 1).get(spec.name, {}),
            save_checkpoint_fn=checkpointed,
        )
        return alone, {spec.name: alone}
    together: MultiSAETrainer = MultiSAETrainer(
        cfg,
        dict(saes),
        {name: name for name in saes},
        stream,
        evaluator=lambda **_: {
            f"{name}/{key}": value
            for name, figures in told(together.n_training_steps + 1).items()
            for key, value in figures.items()
        },
        save_checkpoint_fn=checkpointed,
    )
    own = {
        spec.name: WatchedTrainer(watch, _with_lr(together.trainers[spec.name].cfg, spec), saes[spec.name], iter(()))
        for spec in specs
    }
    together.trainers = dict(own)
    return together, own


def with_wandb(cfg: SAETrainerConfig, config: TrainingConfig, project: str) -> SAETrainerConfig:
    """SAE-Lens's config with its log to Weights & Biases, whose evaluations fall where validation does.

    Weights stay here: those of a checkpoint in training take normalised activations and look like any SAE's.
    """
    every = math.gcd(_LOG_EVERY, config.validate_every)
    log = LoggingConfig(
        log_to_wandb=True,
        log_weights_to_wandb=False,
        wandb_project=project,
        wandb_log_frequency=every,
        eval_every_n_wandb_logs=config.validate_every // every,
    )
    return dataclasses.replace(cfg, logger=log)


@contextmanager
def logged(project: str | None, name: str, config: dict[str, Any], quiet: bool) -> Iterator[None]:
    """A run of Weights & Biases around a training; nothing without a project.

    Raises:
        MedSAEError: it does not start: no account, no network.
    """
    if project is None:
        yield
        return
    try:
        run = wandb.init(project=project, name=name, config=config, settings=wandb.Settings(silent=quiet))
    except (wandb.errors.Error, OSError) as error:
        raise MedSAEError(
            f"Weights & Biases does not start ({reason_of(error)}); wandb login, or WANDB_MODE=offline, or leave out "
            "--wandb"
        ) from error
    with run:
        yield


@contextmanager
def without_bars() -> Iterator[None]:
    """SAE-Lens offers no switch for its progress bars: they are made disabled."""
    modules: list[Any] = [sae_trainer, multi_sae_trainer, activation_scaler]
    theirs = [module.tqdm for module in modules]
    try:
        for module, bar in zip(modules, theirs, strict=True):
            module.tqdm = functools.partial(bar, disable=True)
        yield
    finally:
        for module, bar in zip(modules, theirs, strict=True):
            module.tqdm = bar


def _with_lr(cfg: SAETrainerConfig, spec: SAESpec) -> SAETrainerConfig:
    """SAE-Lens's config with the SAE's own learning rate, if it has one; it ends at the same share of it."""
    if spec.lr is None:
        return cfg
    return dataclasses.replace(cfg, lr=spec.lr, lr_end=spec.lr * (cfg.lr_end or 0) / cfg.lr)
