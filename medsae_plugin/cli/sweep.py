"""`medsae sweep`: a grid of SAEs, trained and compared."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_chance,
    add_device,
    add_judge,
    add_precision,
    add_splits,
    add_store,
    add_table,
    checked_device,
    read_chance,
    read_judge,
    read_table,
    say_old,
)
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.cli.protocol import add_protocol, is_papers, print_as_paper
from medsae_plugin.errors import MedSAEError


def add(commands: Commands) -> None:
    commands.add(
        "sweep",
        run,
        _arguments,
        help="train a grid of SAEs over a store, compare them, and recommend one",
        description="Train every combination of a recipe's lists, as many SAEs in one pass over the store as fit in "
        "memory, compare them, and recommend one for each hook by its figures on the split val; with --rungs those "
        "that do worst there are not trained to the end; with --protocol medsae-paper in the paper's table. Run "
        "again, it goes on where it was stopped.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "--recipe", type=Path, metavar="YAML", help="which SAEs, where a field may be a list, and how to train them"
    )
    parser.add_argument("--store", dest="old_store", type=Path, help=argparse.SUPPRESS)
    add_table(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for passes/ and comparison/")
    parser.add_argument(
        "--memory", type=float, default=4.0, metavar="GIB", help="that the SAEs of one pass may take (default: 4)"
    )
    parser.add_argument(
        "--rungs",
        type=int,
        default=1,
        metavar="N",
        help="successive halving: train in N parts, after each of which the best share of each hook's SAEs goes on "
        "(default: 1, all are trained to the end)",
    )
    parser.add_argument(
        "--keep",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="that goes on, and by which each part of the training is shorter than the next (default: 0.5)",
    )
    add_splits(parser)
    add_judge(parser)
    add_chance(parser)
    add_precision(
        parser, default=None, help="what steps compute in, weights being fp32 (default: by the recipe's autocast)"
    )
    add_device(parser)
    add_protocol(parser)


def run(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from medsae_plugin.comparison.grid import load_grid
    from medsae_plugin.comparison.halving import Halving, Sweep
    from medsae_plugin.comparison.sweeps import COMPARISON, PASSES, sweep, train_grid
    from medsae_plugin.store import ActivationStore
    from medsae_plugin.training.precision import in_precision

    _read_old_order(args)
    judge = read_judge(args)
    as_paper, halving = is_papers(args), Halving(args.rungs, args.keep)
    if as_paper and halving.rungs > 1:
        raise MedSAEError("the paper's table is of a whole grid; leave out --rungs, or --protocol medsae-paper")
    table = read_table(args)
    recipe = load_grid(args.recipe)
    store, memory = ActivationStore(args.store), round(args.memory * 2**30)
    config = replace(recipe.config, device=checked_device(args.device))
    begun = next(iter(sorted((args.out / PASSES).glob("*"))), None)
    config, precision = in_precision(args.precision, store, recipe.specs, config, begun)
    recipe = recipe._replace(config=config)
    if not args.quiet:
        print(precision, file=sys.stderr)
    if as_paper:
        paths = train_grid(store, recipe, args.out, memory=memory, progress=not args.quiet)
        print_as_paper(args, table, paths, args.out / COMPARISON)
        return
    comparison = sweep(
        store,
        recipe,
        table,
        args.out,
        halving=halving,
        memory=memory,
        progress=not args.quiet,
        aggregate=args.aggregate,
        select=args.select,
        report=args.report,
        resampling=read_chance(args),
        judge=judge,
        device=args.device,
    )
    print(comparison)
    print(f"\n{Sweep.open(args.out)}".rstrip())
    print(f"\nwritten: {args.out}")


def _read_old_order(args: argparse.Namespace) -> None:
    """`sweep RECIPE --store STORE`, as it was."""
    if args.old_store is not None:
        if args.recipe is not None:
            raise MedSAEError("give the store once: medsae sweep STORE --recipe YAML")
        say_old("medsae sweep RECIPE --store STORE", "medsae sweep STORE --recipe RECIPE")
        args.store, args.recipe = args.old_store, args.store
    if args.recipe is None:
        raise MedSAEError("say which SAEs to train: --recipe YAML")
