"""`medsae table`: what is understood of a table, before anything is made of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.commands import Commands
from medsae_plugin.cli.table_arguments import (
    add_folder,
    add_reading,
    add_regions,
    file_workers,
    read_regions,
    understood,
)


def add(commands: Commands) -> None:
    commands.add(
        "table",
        run,
        _arguments,
        help="print what is understood of a label table, without opening an image",
        description="Print what is understood of a table or a folder: its dialect, how often each label is 1, 0 and "
        "unknown, patients, covariates, columns left aside and why, official split, files that are not there.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, nargs="?", metavar="FILE", help="the table, as --table of other commands")
    add_folder(parser)
    add_reading(parser.add_argument_group("how to read it"))
    add_regions(parser.add_argument_group("where findings are on the images"))
    parser.add_argument("--check", action="store_true", help="open all images, and list those that cannot be read")
    parser.add_argument(
        "--workers", type=int, help="processes that open them, and draw regions (default: by the machine's cores)"
    )
    parser.add_argument("--out", type=Path, metavar="CSV", help="write the table as it was understood")


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.data.regions import region_summary
    from medsae_plugin.data.summary import summary, unreadable

    table = understood(args, "FILE")
    print(summary(table), flush=True)
    if (regions := read_regions(args, table)) is not None:
        print(region_summary(regions, file_workers(args), progress=not args.quiet), flush=True)
    if args.out is not None:
        table.write(args.out)
        print(f"written: {args.out}")
    if args.check:
        wrong = unreadable(table, file_workers(args), progress=not args.quiet)
        print(f"  opened: {len(table) - len(wrong):,} of {len(table):,} images can be read")
        for path, reason in wrong:
            print(f"    {path}: {reason}")
