"""`medsae attribute`: which latents carry each zero-shot finding."""

from __future__ import annotations

import argparse
import json
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
    add_seed(parser, "of the halves of patients and the resamples")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the numbers to this file")
    add_batches(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.causal import attribute, format_attribution, load_saes, summarise_attribution
    from medsae_plugin.causal.passes import PixelBatches
    from medsae_plugin.encoders import ZeroShot
    from medsae_plugin.files import make_folder, write_text

    table, prompts = read_zero_shot(args)
    encoder = read_encoder(args)
    ((name, sae),) = load_saes(encoder, [args.sae]).items()
    batches = PixelBatches(encoder, table, batch_size=args.batch_size, workers=args.workers, progress=not args.quiet)
    attribution = attribute(encoder, sae, ZeroShot(encoder, prompts), batches)
    report = {
        "encoder": {"name": encoder.name, "weights_sha256": encoder.weights_sha256},
        "sae": name,
        "prompts": {"name": prompts.name, "source": prompts.source},
        "unreadable_images": len(batches.failures),
        **summarise_attribution(attribution, table, args.seed),
    }
    if args.out is not None:
        make_folder(args.out.parent)
        write_text(args.out, json.dumps(report, indent=2, allow_nan=False) + "\n")
    print(format_attribution(report))
    if batches.failures:
        print(f"\n{len(batches.failures)} images could not be read and are left out")
    if args.out is not None:
        print(f"\nwritten: {args.out}")
