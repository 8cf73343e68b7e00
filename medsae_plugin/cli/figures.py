"""`medsae figures`: a run as figures for a paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import add_run, comma_list, read_saes
from medsae_plugin.cli.commands import Commands


def add(commands: Commands) -> None:
    commands.add(
        "figures",
        run,
        _arguments,
        help="a run as figures for a paper",
        description="Draw a run's figures for a paper. Needs matplotlib: pip install 'medsae-plugin[figures]'.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--formats", type=comma_list, default=["png", "svg"], metavar="A,B", help="png, svg, pdf (default: png,svg)"
    )


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.report import open_run, write_figures

    opened = open_run(args.run_folder, comparison=args.comparison, saes=read_saes(args.saes))
    for path in write_figures(opened, args.out, formats=args.formats):
        print(path)
