"""`medsae store`: look after an activation store."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import Commands
from medsae_plugin.errors import MedSAEError


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "store", help="look after an activation store", description="Look after an activation store."
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    verify = actions.add_parser("verify", help="check every file against its checksum")
    verify.add_argument("store", type=Path)
    verify.set_defaults(run=run_verify)


def run_verify(args: argparse.Namespace) -> None:
    from medsae_plugin.store import ActivationStore

    store = ActivationStore(args.store)
    problems = store.verify()
    if problems:
        raise MedSAEError("\n".join([f"{args.store} is damaged:", *problems]))
    print(f"{args.store} is sound. {store.summary()}")
