"""Arguments that several commands share, and what they stand for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable

Commands = Any  # argparse's own type of `add_subparsers()` is private


def add_table(parser: argparse.ArgumentParser, required: bool) -> None:
    """`--table` and how to read it."""
    group = parser.add_argument_group("the label table")
    group.add_argument(
        "--table", type=Path, metavar="CSV", required=required, help="a CheXpert table, or any CSV with a path column"
    )
    group.add_argument(
        "--root", type=Path, metavar="DIR", help="the folder that the table's paths start from (default: the table's)"
    )
    group.add_argument("--path-column", metavar="NAME", help="the column of image paths (default: found by name)")
    group.add_argument(
        "--patient-column", metavar="NAME", help="the column of patients (default: found by name, else the path)"
    )
    group.add_argument(
        "--labels", type=comma_list, metavar="A,B", help="the label columns (default: CheXpert's, or all of 0/1/-1)"
    )
    group.add_argument(
        "--uncertain",
        choices=("ignore", "zeros", "ones"),
        default="ignore",
        help="what -1 counts as (default: ignore, unknown)",
    )


def read_table(args: argparse.Namespace) -> ImageTable:
    """The table that `add_table`'s arguments name."""
    from medsae_plugin.data import tables

    return tables.read_table(
        args.table,
        root=args.root,
        path_column=args.path_column,
        patient_column=args.patient_column,
        label_columns=args.labels,
        uncertain=args.uncertain,
    )


def add_what_is_scored(parser: argparse.ArgumentParser) -> None:
    """A store, SAEs, and which images of it to choose latents on and to report on."""
    parser.add_argument("store", type=Path)
    parser.add_argument("saes", type=Path, nargs="+", metavar="SAE_DIR")
    add_splits(parser)


def add_splits(parser: argparse.ArgumentParser) -> None:
    """Which images to choose latents on and to report on, and what an image's activation is."""
    parser.add_argument(
        "--aggregate", choices=("max", "mean"), default="max", help="over an image's positions (default: max)"
    )
    parser.add_argument(
        "--select", default="train", metavar="SPLIT", help="where top latents are chosen (default: train)"
    )
    parser.add_argument("--report", default="test", metavar="SPLIT", help="where they are scored (default: test)")


def add_run(parser: argparse.ArgumentParser) -> None:
    """The output of another command, and what belongs to it."""
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="what medsae evaluate, compare, sweep or demo wrote"
    )
    parser.add_argument("--comparison", type=Path, metavar="DIR", help="a comparison, beside an evaluation")
    parser.add_argument(
        "--saes", type=Path, nargs="+", default=[], metavar="SAE_DIR", help="the SAEs' folders, for training curves"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def comma_list(text: str) -> list[str]:
    """`a, b` as `["a", "b"]`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def fractions(text: str) -> dict[str, float]:
    """`train=0.7,val=0.1,test=0.2` as a dict."""
    try:
        return {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form train=0.7,val=0.1,test=0.2") from None


def checked_device(name: str) -> str:
    """The device, if this machine has it.

    Raises:
        MedSAEError: it has not.
    """
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise MedSAEError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return name
