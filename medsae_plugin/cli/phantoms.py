"""`medsae phantoms`: chest phantoms and their CheXpert table."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "phantoms",
        help="draw chest phantoms with known findings",
        description="Draw chest phantoms with known findings.",
    )
    parser.add_argument("--n", type=int, default=600, help="images (default: 600)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.phantoms import generate

    table = generate(args.n, args.out, seed=args.seed)
    print(f"{args.n} phantoms in {args.out}; labels in {table}")
