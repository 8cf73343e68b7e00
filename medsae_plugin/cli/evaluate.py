"""`medsae evaluate`: SAEs scored against a label table."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_chance,
    add_device,
    add_table,
    add_what_is_scored,
    checked_device,
    read_chance,
    read_saes,
    read_table,
)
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.cli.held_out import add_held_out, read_folds, read_scene
from medsae_plugin.errors import MedSAEError


def add(commands: Commands) -> None:
    commands.add(
        "evaluate",
        run,
        _arguments,
        help="score latents against labels, on held-out patients",
        description="Score the latents of SAEs against labels on held-out patients, beside the raw neurons.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_what_is_scored(parser)
    add_held_out(parser)
    add_table(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for metrics.json and latents.parquet")
    parser.add_argument(
        "--protocol",
        choices=("held-out", "medsae-paper"),
        default="held-out",
        help="medsae-paper: as arXiv 2510.26411, optimistic, on --report-split alone (default: held-out)",
    )
    add_chance(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.scores import evaluate
    from medsae_plugin.scores.paper import PROTOCOL, evaluate_as_paper
    from medsae_plugin.store import ActivationStore

    progress = not args.quiet
    if args.protocol == PROTOCOL:
        if args.folds or args.test_table or args.select_from:
            raise MedSAEError(f"the protocol {PROTOCOL} holds nothing out; leave --folds, --test-table, --select-from")
        args.uncertain = "keep"
        table = read_table(args)
        scores = evaluate_as_paper(
            ActivationStore(args.store),
            read_saes(args.saes),
            table,
            args.out,
            aggregate=args.aggregate,
            report=args.report,
            seed=args.seed,
            device=checked_device(args.device),
            progress=progress,
        )
        print(scores)
        print(f"\nwritten: {args.out / 'metrics.json'}")
        return
    scene = read_scene(args)
    evaluation = evaluate(
        scene.store,
        read_saes(args.saes),
        scene.table,
        args.out,
        aggregate=args.aggregate,
        select=scene.select,
        report=scene.report,
        folds=read_folds(args),
        leave_out_trained=args.leave_out_trained,
        resampling=read_chance(args),
        device=checked_device(args.device),
        progress=progress,
    )
    print(evaluation)
    print(f"\nwritten: {args.out / 'metrics.json'}, {args.out / 'latents.parquet'}")
