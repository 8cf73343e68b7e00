"""Which images latents are chosen on, and which they are reported on, where two splits of a store do not say it all."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from medsae_plugin.cli.arguments import checked_device, comma_list, read_table
from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.scores.elsewhere import Scene
    from medsae_plugin.scores.images import Folds
    from medsae_plugin.scores.matrix import Aggregate

_SPLITS = {"select": "train", "report": "test"}


def add_folds(group: argparse._ActionsContainer) -> None:
    """`--folds` and what they are of."""
    group.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="cross-fit: choose on all but one of K folds of patients, report on that one, in turn, and pool",
    )
    group.add_argument(
        "--folds-of",
        type=comma_list,
        default=["val", "test"],
        metavar="SPLIT,...",
        help="the splits whose patients are put into folds, or all (default: val,test, which no SAE was trained on)",
    )


def add_held_out(parser: argparse.ArgumentParser, folds: bool = True) -> None:
    """Another table and another store to hold out, and folds unless the command has none."""
    group = parser.add_argument_group("held out otherwise than by two splits of the store")
    if folds:
        add_folds(group)
    group.add_argument(
        "--test-table",
        type=Path,
        metavar="CSV",
        help="report on the images of this table, which the store has, in place of a split",
    )
    group.add_argument(
        "--select-from",
        type=Path,
        metavar="STORE",
        help="choose latents on --select-split of this store, such as another hospital's",
    )
    group.add_argument("--select-table", type=Path, metavar="CSV", help="its label table (default: --table)")
    group.add_argument(
        "--other-patients",
        action="store_true",
        help="a patient's number in one of the two stores is another person's in the other",
    )
    group.add_argument(
        "--leave-out-trained",
        action="store_true",
        help="leave out patients that an SAE was trained on, where the store is split otherwise than the SAE's own",
    )


def read_folds(args: argparse.Namespace) -> Folds | None:
    """The folds that `add_folds`'s arguments name, drawn with `--seed`."""
    from medsae_plugin.scores.images import Folds

    return None if args.folds is None else Folds(args.folds, tuple(args.folds_of), args.seed)


def read_scene(args: argparse.Namespace) -> Scene:
    """The store, table and splits that the arguments of `add_what_is_scored`, `add_held_out` and `add_table` name.

    Raises:
        MedSAEError: options that exclude each other; what `elsewhere` refuses.
    """
    from medsae_plugin.scores.elsewhere import Scene, chosen_at, with_test_table
    from medsae_plugin.store import ActivationStore

    _check(args)
    store = ActivationStore(args.store)
    if args.test_table is not None:
        table = read_table(args)
        return with_test_table(store, table, read_other(args, args.test_table, args.store, args.root), args.select)
    if args.select_from is None:
        return Scene(store, read_table(args), args.select, args.report)
    select_table = args.select_table or args.table
    return chosen_at(
        ActivationStore(args.select_from),
        read_other(args, select_table, args.select_from, args.root if args.select_table is None else None),
        store,
        read_table(args),
        select=args.select,
        report=args.report,
        other_patients=args.other_patients,
    )


class HowScored(TypedDict):
    """What `evaluate`, `compare` and `probe_units` are told alike."""

    aggregate: Aggregate
    select: str
    report: str
    folds: Folds | None
    leave_out_trained: bool
    device: str
    progress: bool


def how_scored(args: argparse.Namespace, scene: Scene) -> HowScored:
    """From the arguments of `add_what_is_scored`, `add_held_out` and `add_device`, and what `read_scene` made of them.

    Raises:
        MedSAEError: this machine has not the device.
    """
    return HowScored(
        aggregate=args.aggregate,
        select=scene.select,
        report=scene.report,
        folds=read_folds(args),
        leave_out_trained=args.leave_out_trained,
        device=checked_device(args.device),
        progress=not args.quiet,
    )


def read_other(args: argparse.Namespace, table: Path, store: Path | None, root: Path | None) -> ImageTable:
    """Another table, read as `--table` is, its paths like those of a store."""
    return read_table(argparse.Namespace(**{**vars(args), "table": table, "store": store, "root": root}))


def _check(args: argparse.Namespace) -> None:
    ways = [name for name in ("folds", "test_table", "select_from") if getattr(args, name, None) is not None]
    if len(ways) > 1:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in ways)
        raise MedSAEError(f"{given} each say what is held out; give one of them")
    if args.select_from is None and (args.select_table is not None or args.other_patients):
        raise MedSAEError("--select-table and --other-patients are of --select-from; give that too")
    overruled = [name for name in _SPLITS if getattr(args, name) != _SPLITS[name]]
    if "folds" in ways and overruled:
        raise MedSAEError(
            f"with --folds nothing is of --{overruled[0]}-split; --folds-of names the splits of the folds"
        )
    if args.test_table is not None and "report" in overruled:
        raise MedSAEError("with --test-table the images of that table are reported on; leave --report-split out")
