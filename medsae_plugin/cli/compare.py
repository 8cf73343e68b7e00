"""`medsae compare`: many SAEs on the same images."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    GOES_ON,
    Commands,
    add_quiet,
    add_table,
    add_what_is_scored,
    read_saes,
    read_table,
)


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare SAEs: layers, architectures, widths, seeds, encoders",
        description="Score SAEs on the same images, match their latents, and follow them from layer to layer.",
    )
    add_what_is_scored(parser)
    parser.add_argument(
        "--store",
        type=Path,
        dest="more_stores",
        action="append",
        default=[],
        metavar="STORE",
        help="a store of another encoder over the same images; may be repeated",
    )
    add_table(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for comparison.json and its tables")
    add_quiet(parser)
    parser.set_defaults(run=run, interrupted=GOES_ON)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.comparison import compare
    from medsae_plugin.store import ActivationStore

    stores = [ActivationStore(path) for path in (args.store, *args.more_stores)]
    comparison = compare(
        stores,
        read_saes(args.saes),
        read_table(args),
        args.out,
        progress=not args.quiet,
        aggregate=args.aggregate,
        select=args.select,
        report=args.report,
    )
    print(comparison)
    print(f"\nwritten: {args.out}")
