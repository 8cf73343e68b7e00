"""`medsae train`: SAEs over a store, by a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import add_device, add_store, checked_device
from medsae_plugin.cli.commands import Commands


def add(commands: Commands) -> None:
    commands.add(
        "train",
        run,
        _arguments,
        help="train SAEs with SAE-Lens over a store",
        description="Train the SAEs of a recipe, all in one pass over the store.",
        interrupted="the same command with --resume goes on from the last checkpoint; a recipe without n_checkpoints "
        "has none, and starts again",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="which SAEs, and how to train them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder for the SAEs, one folder each")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from medsae_plugin.store import ActivationStore
    from medsae_plugin.training import load_recipe, train_saes

    recipe = load_recipe(args.recipe)
    config = replace(recipe.config, device=checked_device(args.device))
    paths = train_saes(
        ActivationStore(args.store), recipe.specs, config, args.out, resume=args.resume, progress=not args.quiet
    )
    for name, path in paths.items():
        print(f"{name}: {path}")
