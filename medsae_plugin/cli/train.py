"""`medsae train`: SAEs over a store, by a recipe."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medsae_plugin.cli.arguments import (
    add_device,
    add_precision,
    add_store,
    add_table,
    checked_device,
    read_table,
)
from medsae_plugin.cli.commands import Commands
from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.store import ActivationStore
    from medsae_plugin.training import SAESpec, TrainingConfig


def add(commands: Commands) -> None:
    commands.add(
        "train",
        run,
        _arguments,
        help="train SAEs with SAE-Lens over a store",
        description="Train the SAEs of a recipe, all in one pass over the store. Run again after an interruption, it "
        "goes on from the last checkpoint, to the same weights.",
        interrupted="the same command goes on from the last checkpoint, if there is one, else from the beginning",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "--recipe",
        type=Path,
        required=True,
        metavar="RECIPE",
        help="which SAEs, and how to train them: a YAML file, or the name of one that ships, such as medsae-paper",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="a folder for the SAEs, one folder each")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs", type=float, metavar="N", help="passes over the training rows, whatever the recipe says"
    )
    length.add_argument(
        "--minutes", type=float, metavar="M", help="as many samples as take so long, by the time of a few steps"
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print rows, passes, steps, memory and an estimate of the time; train nothing",
    )
    parser.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=5.0,
        metavar="M",
        help="between checkpoints to go on from, the first after a tenth of it (default: 5)",
    )
    parser.add_argument(
        "--wandb",
        nargs="?",
        const="sae_lens_training",
        metavar="PROJECT",
        help="log to Weights & Biases what SAE-Lens logs, under its names (PROJECT: sae_lens_training)",
    )
    add_precision(
        parser, default=None, help="what steps compute in, weights being fp32 (default: by the recipe's autocast)"
    )
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    add_device(parser)
    add_table(parser, required=False)


def run(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from medsae_plugin.scores import MeanTopR
    from medsae_plugin.store import ActivationStore
    from medsae_plugin.text import clock
    from medsae_plugin.training import load_recipe, train_saes
    from medsae_plugin.training.plan import TRIAL_STEPS, Plan, seconds_a_step
    from medsae_plugin.training.precision import in_precision

    if args.resume:
        print("medsae: --resume does nothing: the same command goes on; it goes with 0.3", file=sys.stderr)
    if args.checkpoint_minutes < 0:
        raise MedSAEError("--checkpoint-minutes should be at least 0")
    if args.out is None and not args.plan:
        raise MedSAEError("say where the SAEs go: --out DIR (or --plan, to train nothing)")
    recipe, store = load_recipe(args.recipe), ActivationStore(args.store)
    config = replace(recipe.config, device=checked_device(args.device))
    config, precision = in_precision(args.precision, store, recipe.specs, config, args.out)
    config = _as_long_as_said(args, store, recipe.specs, config)
    plan = Plan.of(store, recipe.specs, config)
    if args.plan:
        seconds = seconds_a_step(store, plan)
        print("\n".join([str(plan), str(precision), *(f"warning: {line}" for line in plan.warnings)]))
        print(f"time: about {clock(seconds * plan.config.steps)}, by {TRIAL_STEPS} steps of {seconds:.3g} s each")
        return
    if not args.quiet:
        print(plan, precision, sep="\n", file=sys.stderr)
    paths = train_saes(
        store,
        plan.specs,
        plan.config,
        args.out,
        top_r=None if args.table is None else MeanTopR(store, read_table(args)),
        wandb_project=args.wandb,
        checkpoint_minutes=args.checkpoint_minutes,
        progress=not args.quiet,
    )
    for name, path in paths.items():
        print(f"{name}: {path}")


def _as_long_as_said(
    args: argparse.Namespace, store: ActivationStore, specs: list[SAESpec], config: TrainingConfig
) -> TrainingConfig:
    """The config with `--epochs` or `--minutes`; a run that `--minutes` began goes on to the samples it began with."""
    from dataclasses import replace

    from medsae_plugin.training.plan import in_minutes
    from medsae_plugin.training.records import TrainingRun

    if args.epochs is not None:
        return replace(config, epochs=args.epochs, total_training_samples=None)
    if args.minutes is None:
        return config
    if args.out is not None and TrainingRun.file_at(args.out).is_file():
        samples = TrainingRun.open(args.out).training.total_training_samples
        return replace(config, epochs=None, total_training_samples=samples)
    return in_minutes(store, specs, config, args.minutes)
