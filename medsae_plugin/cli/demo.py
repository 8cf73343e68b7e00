"""`medsae demo`: the whole path on phantoms."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import GOES_ON, Commands, add_quiet
from medsae_plugin.demo import N_PHANTOMS


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="the whole path on phantoms, in minutes on a CPU",
        description="Draw phantoms, extract two layers of the bundled encoder, train an SAE on each, compare "
        "them, and write a report.",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="(default: runs/demo)")
    parser.add_argument("--n", type=int, default=N_PHANTOMS, help=f"phantoms (default: {N_PHANTOMS})")
    parser.add_argument("--seed", type=int, default=0)
    add_quiet(parser)
    parser.set_defaults(run=run, interrupted=GOES_ON)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.comparison import format_comparison
    from medsae_plugin.demo import run_demo
    from medsae_plugin.scores import format_table

    demo = run_demo(args.out, n=args.n, seed=args.seed, progress=not args.quiet)
    print(format_table(demo.metrics))
    print()
    print(format_comparison(demo.comparison))
    print()
    for what, path in demo.files.items():
        print(f"{what:<16}{path}")
