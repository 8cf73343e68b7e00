"""`medsae phantoms`: chest phantoms and their CheXpert table."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import add_seed
from medsae_plugin.cli.commands import Commands


def add(commands: Commands) -> None:
    commands.add(
        "phantoms",
        run,
        _arguments,
        help="draw chest phantoms with known findings",
        description="Draw chest phantoms with known findings.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n", type=int, default=600, help="images (default: 600)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--shortcut",
        action="store_true",
        help="plant one: a marker that agrees with Support Devices in four of five studies, in column Marker",
    )
    add_seed(parser, "of the drawings")


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.phantoms import SHORTCUT, generate

    table = generate(args.n, args.out, seed=args.seed, shortcut=args.shortcut, progress=not args.quiet)
    print(f"{args.n} phantoms in {args.out}; labels in {table}")
    if args.shortcut:
        print(SHORTCUT)
