"""`medsae fidelity`: what zero-shot findings and retrieval keep with SAEs spliced in."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_batches,
    add_device,
    add_encoder,
    add_table,
    add_zero_shot,
    read_encoder,
    read_saes,
    read_zero_shot,
)
from medsae_plugin.cli.commands import Commands


def add(commands: Commands) -> None:
    commands.add(
        "fidelity",
        run,
        _arguments,
        help="what zero-shot findings keep with SAEs spliced into the encoder",
        description="Zero-shot AUROC and image-to-text recall of the encoder as it is, with each SAE spliced in, and "
        "with the SAE's hook set to its mean; and the share of the difference that the SAE recovers.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    parser.add_argument("saes", type=Path, nargs="+", metavar="SAE_DIR")
    add_table(parser, required=True)
    add_zero_shot(parser)
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the numbers to this file")
    add_batches(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.causal import fidelity

    table, prompts = read_zero_shot(args)
    found = fidelity(
        read_encoder(args),
        read_saes(args.saes),
        table,
        prompts,
        batch_size=args.batch_size,
        workers=args.workers,
        progress=not args.quiet,
    )
    if args.out is not None:
        found.save(args.out)
    print(found)
    if args.out is not None:
        print(f"\nwritten: {found.file_at(args.out)}")
