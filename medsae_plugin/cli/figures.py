"""`medsae figures`: a run as figures for a paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import Commands, add_run, comma_list, read_saes


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "figures",
        help="a run as figures for a paper",
        description="Draw a run's figures for a paper. Needs matplotlib: pip install 'medsae-plugin[figures]'.",
    )
    add_run(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--formats", type=comma_list, default=["png", "svg"], metavar="A,B", help="png, svg, pdf (default: png,svg)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.report import open_run, write_figures

    opened = open_run(args.run_folder, comparison=args.comparison, saes=read_saes(args.saes))
    for path in write_figures(opened, args.out, formats=args.formats):
        print(path)
