"""`medsae hierarchy`: latents along a tree of findings."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_device,
    add_seed,
    add_table,
    add_what_is_scored,
    checked_device,
    read_saes,
    read_table,
)
from medsae_plugin.cli.commands import GOES_ON, Commands


def add(commands: Commands) -> None:
    commands.add(
        "hierarchy",
        run,
        _arguments,
        help="whether a parent's latents go silent where a child is present, and how findings split",
        description="Along a tree of findings: the share of a child's images where all of the parent's latents are "
        "silent though a probe finds the parent, the latent that stands there instead, and how many latents carry each "
        "finding, by seed and width.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_what_is_scored(parser)
    add_table(parser, required=True)
    parser.add_argument(
        "--tree",
        type=Path,
        metavar="YAML",
        help="of each parent its children, `parent: [child, ...]` (default: CheXpert's)",
    )
    parser.add_argument(
        "--leave-out-trained",
        action="store_true",
        help="leave out patients that an SAE was trained on, where the store is split otherwise than the SAE's own",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for the results; may be that of medsae evaluate"
    )
    add_seed(parser, "of the untrained SAEs, and of the halves of the patients")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.hierarchy import read_tree, score_hierarchy
    from medsae_plugin.observations import HIERARCHY
    from medsae_plugin.store import ActivationStore

    tree = HIERARCHY if args.tree is None else read_tree(args.tree)
    found = score_hierarchy(
        ActivationStore(args.store),
        read_saes(args.saes),
        read_table(args),
        tree,
        args.out,
        aggregate=args.aggregate,
        select=args.select,
        report=args.report,
        leave_out_trained=args.leave_out_trained,
        seed=args.seed,
        device=checked_device(args.device),
        progress=not args.quiet,
    )
    print(found)
    print(f"\nwritten: {found.file_at(args.out)}")
