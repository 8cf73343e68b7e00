"""`medsae power`: which r a table could detect, before anything is trained."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medsae_plugin.cli.arguments import add_seed, add_table, read_table
from medsae_plugin.cli.commands import Commands
from medsae_plugin.errors import MedSAEError


def add(commands: Commands) -> None:
    commands.add(
        "power",
        run,
        _arguments,
        help="the least r that a table could detect",
        description="Print, label by label, the least r of a held-out latent that a table could detect: before "
        "anything is extracted, or on the images of a store.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "store", type=Path, nargs="?", metavar="STORE", help="use this store's images and splits (default: the table's)"
    )
    add_table(parser, required=True)
    parser.add_argument(
        "--report-split",
        dest="report",
        default="test",
        metavar="SPLIT",
        help="where latents would be scored (default: test; a table without splits is split as by medsae extract)",
    )
    parser.add_argument("--alpha", type=float, default=0.05, help="the chance of any false claim (default: 0.05)")
    parser.add_argument("--power", type=float, default=0.8, help="the chance to find it (default: 0.8)")
    add_seed(parser, "of the splits, where the table has none")


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.scores.images import LabelledImages
    from medsae_plugin.scores.power import power_of
    from medsae_plugin.store import ActivationStore

    for name in ("alpha", "power"):
        if not 0 < getattr(args, name) < 1:
            raise MedSAEError(f"--{name} should be above 0 and below 1, not {getattr(args, name)}")
    table = read_table(args)
    if args.store is not None:
        images = LabelledImages.of(ActivationStore(args.store), table)
    else:
        if not any(table.frame["split"]):
            table = table.split_by_patient(args.seed)
            print("the splits are those that medsae extract makes by default", file=sys.stderr)
        images = LabelledImages.of(table.frame, table)
    images.check_labels()
    rows = images.rows_in([args.report])
    print(
        power_of(
            images.labels[rows],
            images.label_names,
            images.patients[rows],
            args.report,
            alpha=args.alpha,
            power=args.power,
        )
    )
