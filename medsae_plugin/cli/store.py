"""`medsae store verify`: is an activation store sound?"""

from __future__ import annotations

import argparse

from medsae_plugin.cli.arguments import add_store
from medsae_plugin.cli.commands import Commands
from medsae_plugin.errors import MedSAEError


def add(commands: Commands) -> None:
    commands.add("store verify", run_verify, add_store, help="check every file of a store against its checksum")


def run_verify(args: argparse.Namespace) -> None:
    from medsae_plugin.store import ActivationStore

    store = ActivationStore(args.store)
    problems = store.verify()
    if problems:
        raise MedSAEError("\n".join([f"{args.store} is damaged:", *problems]))
    print(f"{args.store} is sound. {store.summary()}")
