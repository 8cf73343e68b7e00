"""`medsae localize`: where latents fire, against masks and boxes of findings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_device,
    add_regions,
    add_seed,
    add_table,
    add_what_is_scored,
    checked_device,
    comma_list,
    read_regions,
    read_saes,
    read_table,
)
from medsae_plugin.cli.commands import GOES_ON, Commands


def add(commands: Commands) -> None:
    commands.add(
        "localize",
        run,
        _arguments,
        help="where latents fire, against masks and boxes of findings",
        description="The maps of each finding's top latents against its regions, on held-out patients; beside other "
        "patients' regions, an untrained SAE and raw neurons. The store must keep all positions of the hook.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_what_is_scored(parser)
    add_table(parser, required=True)
    add_regions(parser, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for the results; may be that of medsae evaluate"
    )
    parser.add_argument(
        "--latents", type=comma_list, default=[], metavar="A,B", help="more latents of every SAE, by number"
    )
    parser.add_argument(
        "--inside",
        metavar="FINDING",
        help="a region that every image may have, such as lungs: which latents fire outside of it",
    )
    parser.add_argument(
        "--maps",
        choices=("grid", "pixels"),
        default="grid",
        help="score the cells of the hook's grid, or the input's pixels, bilinear (default: grid)",
    )
    add_seed(parser, "of the untrained SAEs, and of other patients' regions")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.localisation.score import score_regions
    from medsae_plugin.store import ActivationStore

    table = read_table(args)
    regions = read_regions(args, table)
    assert regions is not None
    print(regions.describe(), file=sys.stderr)
    found = score_regions(
        ActivationStore(args.store),
        read_saes(args.saes),
        table,
        regions,
        args.out,
        latents=args.latents,
        inside=args.inside,
        maps=args.maps,
        aggregate=args.aggregate,
        select=args.select,
        report=args.report,
        seed=args.seed,
        device=checked_device(args.device),
        progress=not args.quiet,
    )
    print(found)
    print(f"\nwritten: {found.file_at(args.out)}")
