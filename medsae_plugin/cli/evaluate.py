"""`medsae evaluate`: SAEs scored against a label table."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import Commands, add_quiet, add_table, read_table


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score latents against labels, on held-out patients",
        description="Score the latents of SAEs against labels on held-out patients, beside the raw neurons.",
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("saes", type=Path, nargs="+", metavar="SAE_DIR")
    add_table(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for metrics.json and latents.parquet")
    parser.add_argument(
        "--aggregate", choices=("max", "mean"), default="max", help="over an image's positions (default: max)"
    )
    parser.add_argument(
        "--select", default="train", metavar="SPLIT", help="where top latents are chosen (default: train)"
    )
    parser.add_argument("--report", default="test", metavar="SPLIT", help="where they are scored (default: test)")
    add_quiet(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.activations import ActivationStore
    from medsae_plugin.evaluation import evaluate_saes, format_table

    metrics = evaluate_saes(
        ActivationStore(args.store),
        args.saes,
        read_table(args),
        args.out,
        aggregate=args.aggregate,
        select=args.select,
        report=args.report,
        progress=not args.quiet,
    )
    print(format_table(metrics))
    print(f"\nwritten: {args.out / 'metrics.json'}, {args.out / 'latents.parquet'}")
