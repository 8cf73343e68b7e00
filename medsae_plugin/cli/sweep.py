"""`medsae sweep`: a grid of SAEs, trained and compared."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    GOES_ON,
    Commands,
    add_device,
    add_quiet,
    add_splits,
    add_table,
    checked_device,
    read_table,
)


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "sweep",
        help="train a grid of SAEs over a store, and compare them",
        description="Train every combination of a recipe's lists, as many SAEs in one pass over the store as fit in "
        "memory, and compare them. Run again, it goes on where it was stopped.",
    )
    parser.add_argument("recipe", type=Path, help="a recipe (YAML) in which an SAE's fields may be lists")
    parser.add_argument("--store", type=Path, required=True, metavar="STORE")
    add_table(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for passes/ and comparison/")
    parser.add_argument(
        "--memory", type=float, default=4.0, metavar="GIB", help="that the SAEs of one pass may take (default: 4)"
    )
    add_splits(parser)
    add_device(parser)
    add_quiet(parser)
    parser.set_defaults(run=run, interrupted=GOES_ON)


def run(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from medsae_plugin.comparison import load_grid, sweep
    from medsae_plugin.store import ActivationStore

    recipe = load_grid(args.recipe)
    recipe = recipe._replace(config=replace(recipe.config, device=checked_device(args.device)))
    comparison = sweep(
        ActivationStore(args.store),
        recipe,
        read_table(args),
        args.out,
        memory=round(args.memory * 2**30),
        progress=not args.quiet,
        aggregate=args.aggregate,
        select=args.select,
        report=args.report,
    )
    print(comparison)
    print(f"\nwritten: {args.out}")
