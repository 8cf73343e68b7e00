"""`medsae attribute`: which latents carry each zero-shot finding."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_batches,
    add_device,
    add_encoder,
    add_seed,
    add_table,
    add_zero_shot,
    read_encoder,
    read_zero_shot,
)
from medsae_plugin.cli.commands import Commands


def add(commands: Commands) -> None:
    commands.add(
        "attribute",
        run,
        _arguments,
        help="which latents carry each zero-shot finding",
        description="What each latent adds to each zero-shot score, by gradient times activation and by ablating it "
        "alone (a forward pass for each latent that fires on each image), and how well the two agree.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    parser.add_argument("sae", type=Path, metavar="SAE_DIR")
    add_table(parser, required=True)
    add_zero_shot(parser)
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="choose top latents on all but one of K folds of the patients, and ablate them on that one, in turn "
        "(default: choose on one half, ablate on the other)",
    )
    add_seed(parser, "of the halves or folds of patients and the resamples")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the numbers to this file")
    add_batches(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.causal import AttributionReport, attribute
    from medsae_plugin.causal.passes import PixelBatches
    from medsae_plugin.encoders import ZeroShot

    table, prompts = read_zero_shot(args)
    encoder = read_encoder(args)
    batches = PixelBatches(encoder, table, batch_size=args.batch_size, workers=args.workers, progress=not args.quiet)
    attribution = attribute(encoder, args.sae, ZeroShot(encoder, prompts), batches)
    report = AttributionReport.of(attribution, table, args.seed, args.folds)
    if args.out is not None:
        report.save(args.out)
    print(report)
    if report.unreadable_images:
        print(f"\n{report.unreadable_images} images could not be read and are left out")
    if args.out is not None:
        print(f"\nwritten: {report.file_at(args.out)}")
