"""`medsae extract`: images to an activation store."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin.cli.arguments import (
    add_batches,
    add_device,
    add_encoder,
    add_precision,
    add_seed,
    add_table,
    fractions,
    read_encoder,
)
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.cli.held_out import read_other
from medsae_plugin.cli.table_arguments import add_folder, understood
from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable


def add(commands: Commands) -> None:
    commands.add(
        "extract",
        run,
        _arguments,
        help="store an encoder's activations at chosen hooks",
        description="One pass over the images, all hooks at once. Run again, it goes on after the last whole shard.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    add_folder(parser)
    add_table(parser, required=False)
    parser.add_argument(
        "--hooks",
        type=_hook_list,
        default=["hook_embedding"],
        metavar="A,B",
        help="hook points (default: hook_embedding), or patterns, in quotes: 'blocks.{0..5}.hook_resid_post', as "
        "medsae encoders prints them, 'blocks.*.hook_mlp_out', or all",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="STORE", help="the store's folder")
    parser.add_argument("--positions", default="all", help="all, cls, mean or sample:N (default: all)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="of the stored activations; the last two take half the room (default: float32)",
    )
    add_precision(
        parser, default="fp32", help="what the encoder computes in; a store is of one precision (default: fp32)"
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="say what it would take (disk, memory, and time, from a few batches that are tried), and write nothing",
    )
    parser.add_argument(
        "--splits",
        type=fractions,
        metavar="NAME=SHARE,...",
        help="shares of patients (default: the table's own split, where it has one, else train=0.7,val=0.1,test=0.2)",
    )
    parser.add_argument(
        "--test-table",
        type=Path,
        metavar="CSV",
        help="a second table, with the same image root: its images are the split test, and none of --table's are",
    )
    add_seed(parser, "of the splits and of sample:N")
    add_batches(parser)
    parser.add_argument("--strict", action="store_true", help="stop at an unreadable image instead of leaving it out")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    import torch

    from medsae_plugin.store import extract, plan_extraction

    table = understood(args)
    print(table.describe(), file=sys.stderr)
    table = _split(table, args)
    if args.test_table is not None:
        table = _with_test_table(table, args)
    _say_what_a_split_lacks(table)
    _check_images_there(table, args.table)
    options: dict[str, Any] = {
        "positions": args.positions,
        "batch_size": args.batch_size,
        "workers": args.workers,
        "dtype": getattr(torch, args.dtype),
        "precision": args.precision,
        "seed": args.seed,
    }
    encoder = read_encoder(args)
    if args.plan:
        plan = plan_extraction(encoder, table, args.hooks, args.out, **options)
        print(plan)
        plan.check_disk(args.out)
        return
    store = extract(encoder, table, args.hooks, args.out, **options, strict=args.strict, progress=not args.quiet)
    print(store.summary())


def _hook_list(text: str) -> list[str]:
    """The hooks between commas, but for commas in braces."""
    return [part.strip() for part in re.split(r",(?![^{}]*\})", text) if part.strip()]


def _split(table: ImageTable, args: argparse.Namespace) -> ImageTable:
    """The table with `--splits`, or else its own splits, or else the default shares.

    Raises:
        MedSAEError: both `--split-column` and `--splits`; a patient in two of the table's splits.
    """
    from medsae_plugin.data.splits import DEFAULT_FRACTIONS, patients_in_two_splits

    own = list(table.frame["split"])
    if args.split_column is not None and args.splits is not None:
        raise MedSAEError("give either --split-column or --splits")
    if args.split_column is not None and not any(own):
        raise MedSAEError(f"{args.table}: the column {args.split_column!r} names no split")
    if args.splits is None and any(own):
        if both := patients_in_two_splits(list(table.frame["patient"]), own):
            raise MedSAEError(
                f"{args.table}: {len(both)} patients are in more than one of its splits, such as {both[0]!r}, so "
                "nothing is held out; give --splits to split by patient instead"
            )
        print("the splits are the table's own; --splits makes others", file=sys.stderr)
        return table
    if any(own):
        print("the table's own splits are not used, since --splits is given", file=sys.stderr)
    shares = args.splits or DEFAULT_FRACTIONS
    if args.splits is None and args.test_table is not None:
        rest = {name: share for name, share in shares.items() if name != "test"}
        shares = {name: share / sum(rest.values()) for name, share in rest.items()}
    return table.split_by_patient(args.seed, shares)


def _with_test_table(table: ImageTable, args: argparse.Namespace) -> ImageTable:
    """The table's images, and as the split test those of `--test-table`.

    Raises:
        MedSAEError: a folder of images in place of a table; the table has a split test itself; a patient in both.
    """
    from medsae_plugin.data.joining import join_tables

    if args.table is None:
        raise MedSAEError("--test-table goes with --table")
    if not isinstance(table.root, Path):
        raise MedSAEError(f"--test-table is of tables in files; {args.table} is a data set")
    if "test" in set(table.frame["split"]):
        raise MedSAEError(
            f"{args.table} has a split test of its own, and --test-table is one; give --splits without test to draw "
            "train and val anew"
        )
    test = read_other(args, args.test_table, None, table.root)
    if both := set(table.frame["patient"]) & set(test.frame["patient"]):
        raise MedSAEError(
            f"{len(both)} patients of {args.test_table} are in {args.table} too, such as {min(both)!r}, so they are "
            "not held out"
        )
    return join_tables(table, test.with_splits(["test"] * len(test)))


def _say_what_a_split_lacks(table: ImageTable) -> None:
    """Name the labels of which a split has no positive image, and so cannot score."""
    split = table.frame["split"].to_numpy()
    for name in sorted(set(split) - {""}):
        present = (table.labels[split == name] == 1).any(0)
        lacking = [label for label, found in zip(table.label_names, present, strict=True) if not found]
        if lacking:
            print(f"no image of {name} has {', '.join(lacking)}", file=sys.stderr)


def _check_images_there(table: ImageTable, path: Path | None) -> None:
    from medsae_plugin.data.folders import any_file

    if not any_file(table.root, list(table.frame["path"])):
        raise MedSAEError(
            f"{path}: none of its {len(table):,} images is there; the first would be {table.image_path(0)}. Give the "
            "folder that its paths start from with --root"
        )
