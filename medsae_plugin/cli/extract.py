"""`medsae extract`: images to an activation store."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    GOES_ON,
    Commands,
    add_batches,
    add_device,
    add_encoder,
    add_quiet,
    add_table,
    comma_list,
    fractions,
    read_encoder,
    read_table,
)
from medsae_plugin.errors import MedSAEError


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "extract",
        help="store an encoder's activations at chosen hooks",
        description="One pass over the images, all hooks at once. Run again, it goes on after the last whole shard.",
    )
    add_encoder(parser)
    parser.add_argument("--images", type=Path, metavar="DIR", help="a folder of images, where there is no table")
    add_table(parser, required=False)
    parser.add_argument(
        "--hooks",
        type=comma_list,
        default=["hook_embedding"],
        metavar="A,B",
        help="hook points (default: hook_embedding)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="STORE", help="the store's folder")
    parser.add_argument("--positions", default="all", help="all, cls, mean or sample:N (default: all)")
    parser.add_argument(
        "--splits",
        type=fractions,
        default={"train": 0.7, "val": 0.1, "test": 0.2},
        metavar="NAME=SHARE,...",
        help="shares of patients (default: train=0.7,val=0.1,test=0.2)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the splits and of sample:N (default: 0)")
    add_batches(parser)
    parser.add_argument("--strict", action="store_true", help="stop at an unreadable image instead of leaving it out")
    add_device(parser)
    add_quiet(parser)
    parser.set_defaults(run=run, interrupted=GOES_ON)


def run(args: argparse.Namespace) -> None:
    if (args.table is None) == (args.images is None):
        raise MedSAEError("give either --table CSV or --images DIR")
    from medsae_plugin.activations import extract
    from medsae_plugin.data.splits import split_by_patient
    from medsae_plugin.data.tables import scan_folder

    table = read_table(args) if args.table else scan_folder(args.images)
    table = table.with_splits(split_by_patient(list(table.frame["patient"]), args.splits, args.seed))
    store = extract(
        read_encoder(args),
        table,
        args.hooks,
        args.out,
        positions=args.positions,
        batch_size=args.batch_size,
        **({} if args.workers is None else {"workers": args.workers}),
        seed=args.seed,
        strict=args.strict,
        progress=not args.quiet,
    )
    print(store.summary())
