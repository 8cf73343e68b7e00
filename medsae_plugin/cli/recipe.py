"""`medsae recipe`: a recipe that fits a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.commands import Commands
from medsae_plugin.errors import MedSAEError


def add(commands: Commands) -> None:
    commands.add(
        "recipe",
        run,
        _arguments,
        help="write a recipe that fits a store",
        description="Print a recipe for medsae train that fits a store's rows at a hook, with a comment on each value.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, required=True, metavar="STORE", help="the store, of medsae extract")
    parser.add_argument("--hook", required=True, metavar="H", help="a hook of the store")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it to this file, which must not be there yet")


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.files import make_folder, write_text
    from medsae_plugin.store import ActivationStore
    from medsae_plugin.training.written import recipe_for

    text = recipe_for(ActivationStore(args.store), args.hook)
    if args.out is None:
        print(text, end="")
        return
    if args.out.exists():
        raise MedSAEError(f"{args.out} is there already; name another file")
    make_folder(args.out.parent)
    write_text(args.out, text)
    print(f"written: {args.out}")
