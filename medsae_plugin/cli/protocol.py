"""`--protocol`, for the commands that score SAEs by the held-out protocol or by the paper's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medsae_plugin.cli.arguments import checked_device
from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable

PAPER = "medsae-paper"
# Options that the paper's protocol has no use for, by what they are called.
_OF_HELD_OUT = {
    "select": "--select-split",
    "report": "--report-split",
    "permutations": "--permutations",
    "bootstrap": "--bootstrap",
    "uncertain": "--uncertain",
    "baselines": "--baselines",
    "folds": "--folds",
    "folds_of": "--folds-of",
    "test_table": "--test-table",
    "select_from": "--select-from",
    "select_table": "--select-table",
    "other_patients": "--other-patients",
    "leave_out_trained": "--leave-out-trained",
    "judge_store": "--judge-store",
}


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """`--protocol`; to be called when the options of the held-out protocol are there."""
    parser.add_argument(
        "--protocol",
        choices=("held-out", PAPER),
        default="held-out",
        help=f"{PAPER}: as arXiv 2510.26411, optimistic: on a subset of all images of the table, in its order, or with "
        "--seed shuffled (default: held-out)",
    )
    defaults = {dest: parser.get_default(dest) for dest in _OF_HELD_OUT}
    parser.set_defaults(seed=None, held_out_defaults=defaults)


def is_papers(args: argparse.Namespace) -> bool:
    """Whether the paper's protocol is asked for: then the table's -1 is kept. For the other, no seed is seed 0.

    Raises:
        MedSAEError: it is, with an option that it has no use for.
    """
    if args.protocol != PAPER:
        args.seed = 0 if args.seed is None else args.seed
        return False
    if given := [
        _OF_HELD_OUT[dest] for dest, value in args.held_out_defaults.items() if getattr(args, dest, value) != value
    ]:
        raise MedSAEError(
            f"{', '.join(given)} says nothing to --protocol {PAPER}: it takes images of every split, holds nothing "
            "out, and keeps uncertain labels as -1"
        )
    args.uncertain = "keep"
    return True


def print_as_paper(args: argparse.Namespace, table: ImageTable, saes: Sequence[Path], out: Path) -> None:
    """Score SAEs by the paper's protocol, print the table, and write `metrics.json` into `out`."""
    from medsae_plugin.scores.paper import evaluate_as_paper
    from medsae_plugin.store import ActivationStore

    scores = evaluate_as_paper(
        ActivationStore(args.store),
        saes,
        table,
        out,
        aggregate=args.aggregate,
        seed=args.seed,
        device=checked_device(args.device),
        progress=not args.quiet,
    )
    print(scores)
    print(f"\nwritten: {out / 'metrics.json'}")
