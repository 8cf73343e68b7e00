"""What a training will be, before it starts: rows, epochs, steps, memory, and its time from a few steps of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from medsae_plugin.errors import MedSAEError
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.text import aligned, byte_size
from medsae_plugin.training.defaults import fitted, what_was_filled
from medsae_plugin.training.normalization import CenterAndScale
from medsae_plugin.training.specs import CENTER_AND_SCALE, SAESpec, TrainingConfig, build_sae

TRIAL_STEPS = 20
_FIRST = 2  # steps that are not timed: memory is taken and kernels are chosen in them
MOST_EPOCHS, LEAST_EPOCHS = 500, 1


@dataclass(frozen=True)
class Plan:
    """A training: its specs and config with nothing left out, and what follows from them and the store.

    n_images: of the training split; rows: of each hook there; n_bytes: an estimate of the memory that it takes, see
    `training_bytes`; filled: a line for each thing that was left out and filled in.
    """

    specs: list[SAESpec]
    config: TrainingConfig
    n_images: int
    rows: dict[str, int]
    width: dict[str, int]
    n_bytes: int
    filled: list[str]

    @classmethod
    def of(cls, store: ActivationStore, specs: Sequence[SAESpec], config: TrainingConfig) -> Plan:
        """Raises MedSAEError as `train_saes` does for specs and a config that do not fit the store."""
        there = fitted(store, specs)
        hooks = list(dict.fromkeys(spec.hook for spec in there))
        counted = config.counted_in(store, hooks)
        width = {hook: store.hooks[hook].d for hook in hooks}
        filled = what_was_filled(specs, there)
        steps = [
            f"{name} {getattr(counted, name):,}"
            for name in ("lr_warm_up_steps", "lr_decay_steps", "dead_feature_window")
            if getattr(config, name) is None
        ]
        if steps:
            filled.append(f"training: {', '.join(steps)}")
        return cls(
            there,
            counted,
            int((store.readable_images["split"] == "train").sum()),
            {hook: store.n_rows(hook, "train") for hook in hooks},
            width,
            sum(training_bytes(width[spec.hook], spec, config) for spec in there),
            filled,
        )

    @property
    def epochs(self) -> dict[str, float]:
        """Passes over the training rows, of each hook; infinite where it has none."""
        samples = self.config.total_training_samples or 0
        return {hook: samples / n if n else float("inf") for hook, n in self.rows.items()}

    @property
    def warnings(self) -> list[str]:
        """What is odd about it, a line each."""
        lines = []
        for hook, epochs in self.epochs.items():
            if epochs > MOST_EPOCHS:
                lines.append(
                    f"{hook}: {epochs:,.0f} passes over the same {self.rows[hook]:,} rows, more than {MOST_EPOCHS}: "
                    "is the recipe of another data set? Give it epochs (--epochs 100) instead of samples"
                )
            elif epochs < LEAST_EPOCHS:
                lines.append(
                    f"{hook}: {epochs:.2g} passes over {self.rows[hook]:,} rows, less than one: most are never seen; "
                    "give the recipe epochs (--epochs 1) or more samples"
                )
        return lines

    def __str__(self) -> str:
        head = ["SAE", "hook", "d", "architecture", "latents", "k", "rows", "epochs"]
        table = [
            [
                spec.name,
                spec.hook,
                str(d := self.width[spec.hook]),
                spec.architecture,
                f"{spec.width(d):,}",
                str(spec.options.get("k", "-")),
                f"{self.rows[spec.hook]:,}",
                f"{self.epochs[spec.hook]:,.3g}" if self.epochs[spec.hook] < 1000 else f"{self.epochs[spec.hook]:,.0f}",
            ]
            for spec in self.specs
        ]
        lines = aligned([head, *table], rule_after=[1])
        config = self.config
        lines.append(
            f"{self.n_images:,} training images; {config.total_training_samples:,} samples in {config.steps:,} steps "
            f"of {config.batch_size:,} rows; about {byte_size(self.n_bytes)} for {len(self.specs)} SAE(s)"
        )
        lines += [f"filled in: {line}" for line in self.filled]
        return "\n".join(lines)


def training_bytes(d: int, spec: SAESpec, config: TrainingConfig) -> int:
    """An estimate of the bytes that an SAE takes while it trains, in float32.

    Each of its 2 d K + K + d parameters (a gated SAE's K more) is there four times: weight, gradient and Adam's two
    moments. A batch of B rows is held six times at width K (what the encoder makes before and after its nonlinearity,
    what is kept for the backward pass, and the gradients of each) and four times at width d.
    """
    width = spec.width(d)
    parameters = 2 * d * width + 2 * width + d
    return 4 * (4 * parameters + config.batch_size * (6 * width + 4 * d))


def seconds_a_step(store: ActivationStore, plan: Plan) -> float:
    """The mean time of `TRIAL_STEPS` steps of a training, made and thrown away; without validation and checkpoints.

    Raises:
        MedSAEError: the trainer fails in them.
    """
    from sae_lens.training.sae_trainer import SAETrainer

    config, hooks = plan.config, list(plan.rows)
    center = {h: CenterAndScale.of(store, h) for h in {s.hook for s in plan.specs if s.normalize == CENTER_AND_SCALE}}
    cfg = config.for_sae_lens("")
    with torch.random.fork_rng(devices=[]):
        trainers = [SAETrainer(cfg, build_sae(store, spec, config), iter(())) for spec in plan.specs]
        batches = store.batches(hooks, config.batch_size, split="train", seed=config.seed)
        for step in range(_FIRST + TRIAL_STEPS):
            if step == _FIRST:
                begun = time.perf_counter()
            batch = next(batches)
            for spec, trainer in zip(plan.specs, trainers, strict=True):
                rows = batch[spec.hook]
                loss = trainer.step(center[spec.hook](rows) if spec.normalize == CENTER_AND_SCALE else rows).loss
        if not torch.isfinite(loss):  # which also waits for what an accelerator still computes
            raise MedSAEError("the first steps make nan or infinity; lower the learning rate")
    return (time.perf_counter() - begun) / TRIAL_STEPS


def in_minutes(
    store: ActivationStore, specs: Sequence[SAESpec], config: TrainingConfig, minutes: int | float
) -> TrainingConfig:
    """The config with as many samples, whole batches, as take so long by a trial of a few steps; one batch at least."""
    if minutes <= 0:
        raise MedSAEError(f"--minutes {minutes:g} is no time to train in")
    one = replace(config, epochs=None, total_training_samples=config.batch_size)
    steps = max(round(60 * minutes / seconds_a_step(store, Plan.of(store, specs, one))), 1)
    return replace(one, total_training_samples=steps * config.batch_size)
