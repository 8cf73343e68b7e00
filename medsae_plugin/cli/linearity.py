"""`medsae linearity`: is the embedding of two radiographs side by side a sum of their own?"""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import add_device, add_encoder, add_seed, add_table, read_encoder, read_table
from medsae_plugin.cli.commands import Commands


def add(commands: Commands) -> None:
    commands.add(
        "linearity",
        run,
        _arguments,
        help="is the embedding of two radiographs side by side a sum of their own?",
        description="Fit the encoder's embedding of two radiographs side by side by the embeddings of each alone: the "
        "weights of the fit and its cosine, beside those of a fit by two other images.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    add_table(parser, required=True)
    parser.add_argument("--pairs", type=int, default=500, metavar="N", help="of images of two patients (default: 500)")
    add_seed(parser, "of the pairs")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the numbers to this file")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.causal import linearity

    table = read_table(args)
    found = linearity(
        read_encoder(args),
        table,
        pairs=args.pairs,
        seed=args.seed,
        batch_size=args.batch_size,
        progress=not args.quiet,
    )
    print(found)
    if args.out is not None:
        found.save(args.out)
        print(f"\nwritten: {found.file_at(args.out)}")
