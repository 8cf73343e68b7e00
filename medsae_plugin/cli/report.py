"""`medsae report`: a run as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_regions,
    add_run,
    add_table,
    read_regions,
    read_saes,
    read_table,
    renamed,
)
from medsae_plugin.cli.commands import Commands
from medsae_plugin.errors import MedSAEError


def add(commands: Commands) -> None:
    commands.add(
        "report",
        run,
        _arguments,
        help="a run as one HTML file",
        description="Write a run as one HTML file that opens from disk. Images are left out unless --images is given.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="HTML", help="the file to write")
    parser.add_argument(
        "--names",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of medsae name, with its scores if it has any, or a names.json; may be repeated",
    )
    parser.add_argument("--store", type=Path, metavar="STORE", help="where the activations are; for --images")
    images = parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="show the strongest images; DIR is the folder that the store's image paths start from",
    )
    parser.add_argument(
        "--view",
        type=Path,
        action="append",
        default=[],
        metavar="JS",
        help="a view of your own: a JavaScript file, or a folder of them; may be repeated",
    )
    renamed(parser, "--with-images", images)
    add_table(parser, required=False)
    add_regions(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.report import write_report
    from medsae_plugin.store import ActivationStore

    if args.images and not args.store:
        raise MedSAEError("--images needs --store")
    if args.regions and not (args.images and args.table):
        raise MedSAEError("--regions are outlined on images, and known by a table's paths: give --images and --table")
    table = read_table(args) if args.table else None
    path = write_report(
        args.run_folder,
        args.out,
        comparison=args.comparison,
        saes=read_saes(args.saes),
        names=args.names,
        table=table,
        store=ActivationStore(args.store) if args.store else None,
        images=args.images,
        regions=None if table is None else read_regions(args, table),
        views=args.view,
    )
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {'with' if args.images else 'without'} images")
