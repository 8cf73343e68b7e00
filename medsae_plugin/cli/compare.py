"""`medsae compare`: many SAEs on the same images."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_baselines,
    add_chance,
    add_device,
    add_judge,
    add_regions,
    add_table,
    add_what_is_scored,
    read_chance,
    read_judge,
    read_regions,
    read_saes,
    renamed,
)
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.cli.held_out import add_held_out, how_scored, read_scene
from medsae_plugin.errors import MedSAEError


def add(commands: Commands) -> None:
    commands.add(
        "compare",
        run,
        _arguments,
        help="compare SAEs: layers, architectures, widths, seeds, encoders",
        description="Score SAEs on the same images, match their latents, and follow them from layer to layer.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_what_is_scored(parser)
    add_baselines(parser)
    add_held_out(parser)
    also = parser.add_argument(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="STORE",
        help="a store of another encoder over the same images; may be repeated",
    )
    renamed(parser, "--store", also)
    add_table(parser, required=True)
    add_regions(parser)
    add_judge(parser)
    add_chance(parser)
    add_device(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for comparison.json and its tables")


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.comparison import compare
    from medsae_plugin.store import ActivationStore

    if args.also and args.select_from:
        raise MedSAEError("--select-from is for SAEs of one store; leave --also out")
    if args.regions and args.select_from:
        raise MedSAEError("--regions are of one store's images here; medsae localize takes --select-from with regions")
    judge = read_judge(args)
    scene = read_scene(args)
    also = [ActivationStore(path) for path in args.also]
    if args.also and args.test_table:
        also = [store.with_splits(scene.store.images["split"].tolist()) for store in also]
    comparison = compare(
        [scene.store, *also],
        read_saes(args.saes),
        scene.table,
        args.out,
        home=scene.home,
        resampling=read_chance(args),
        baselines=args.baselines,
        judge=judge,
        regions=read_regions(args, scene.table),
        **how_scored(args, scene),
    )
    print(comparison)
    print(f"\nwritten: {args.out}")
