"""`medsae demo`: the whole path on phantoms."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import add_device, add_seed, checked_device
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.demo import N_PHANTOMS


def add(commands: Commands) -> None:
    commands.add(
        "demo",
        run,
        _arguments,
        help="the whole path on phantoms, in minutes on a CPU",
        description="Draw phantoms, extract two layers of the bundled encoder, train an SAE on each, compare "
        "them, and write a report.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="(default: runs/demo)")
    parser.add_argument("--n", type=int, default=N_PHANTOMS, help=f"phantoms (default: {N_PHANTOMS})")
    add_seed(parser, "of the phantoms and of the splits")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.demo import run_demo

    demo = run_demo(args.out, n=args.n, seed=args.seed, device=checked_device(args.device), progress=not args.quiet)
    print(demo.evaluation)
    print()
    print(demo.comparison)
    print()
    for what, path in demo.files.items():
        print(f"{what:<16}{path}")
