"""`medsae train`: SAEs over a store, by a recipe."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medsae_plugin.cli.arguments import add_device, add_store, add_table, checked_device, read_table
from medsae_plugin.cli.commands import Commands
from medsae_plugin.errors import MedSAEError


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
    parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="which SAEs, and how to train them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder for the SAEs, one folder each")
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
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    add_device(parser)
    add_table(parser, required=False)


def run(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from medsae_plugin.scores import MeanTopR
    from medsae_plugin.store import ActivationStore
    from medsae_plugin.training import load_recipe, train_saes

    if args.resume:
        print("medsae: --resume does nothing: the same command goes on; it goes with 0.3", file=sys.stderr)
    if args.checkpoint_minutes < 0:
        raise MedSAEError("--checkpoint-minutes should be at least 0")
    recipe = load_recipe(args.recipe)
    config = replace(recipe.config, device=checked_device(args.device))
    store = ActivationStore(args.store)
    paths = train_saes(
        store,
        recipe.specs,
        config,
        args.out,
        top_r=None if args.table is None else MeanTopR(store, read_table(args)),
        wandb_project=args.wandb,
        checkpoint_minutes=args.checkpoint_minutes,
        progress=not args.quiet,
    )
    for name, path in paths.items():
        print(f"{name}: {path}")
