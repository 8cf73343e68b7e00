"""`medsae evaluate`: SAEs scored against a label table."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    GOES_ON,
    Commands,
    add_quiet,
    add_table,
    add_what_is_scored,
    read_saes,
    read_table,
)


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score latents against labels, on held-out patients",
        description="Score the latents of SAEs against labels on held-out patients, beside the raw neurons.",
    )
    add_what_is_scored(parser)
    add_table(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for metrics.json and latents.parquet")
    parser.add_argument(
        "--protocol",
        choices=("held-out", "medsae-paper"),
        default="held-out",
        help="medsae-paper: as arXiv 2510.26411, optimistic, on --report alone (default: held-out)",
    )
    parser.add_argument("--permutations", type=int, default=200, metavar="N", help="of the null (default: 200)")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of both, and of the untrained SAE")
    add_quiet(parser)
    parser.set_defaults(run=run, interrupted=GOES_ON)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.scores import Resampling, evaluate
    from medsae_plugin.scores.paper import PROTOCOL, evaluate_as_paper
    from medsae_plugin.store import ActivationStore

    store, progress = ActivationStore(args.store), not args.quiet
    if args.protocol == PROTOCOL:
        args.uncertain = "keep"
        table = read_table(args)
        scores = evaluate_as_paper(
            store,
            read_saes(args.saes),
            table,
            args.out,
            aggregate=args.aggregate,
            report=args.report,
            progress=progress,
        )
        print(scores)
        print(f"\nwritten: {args.out / 'metrics.json'}")
        return
    evaluation = evaluate(
        store,
        read_saes(args.saes),
        read_table(args),
        args.out,
        aggregate=args.aggregate,
        select=args.select,
        report=args.report,
        resampling=Resampling(args.permutations, args.bootstrap, args.seed),
        progress=progress,
    )
    print(evaluation)
    print(f"\nwritten: {args.out / 'metrics.json'}, {args.out / 'latents.parquet'}")
