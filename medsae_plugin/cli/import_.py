"""`medsae import`: an SAE of another library in SAE-Lens's format."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import with_cards
from medsae_plugin.cli.commands import Commands


def add(commands: Commands) -> None:
    commands.add(
        "import",
        run,
        _arguments,
        help="turn an SAE of another library into SAE-Lens's format",
        description="Turn a checkpoint of another library into SAE-Lens's format, with what encoder it belongs to.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="the file of weights, or its folder")
    parser.add_argument(
        "--format",
        required=True,
        metavar="NAME",
        help="dictionary_learning (and Discover-then-Name's), vit_prisma, "
        "saev, overcomplete, visaebench, sail, or one of your own (--import)",
    )
    with_cards(parser.add_argument("--encoder", required=True, metavar="ENCODER", help="a card's name or path"))
    parser.add_argument("--hook", required=True, metavar="NAME", help="the hook point that the SAE stands at")
    parser.add_argument(
        "--input",
        choices=("unit", "raw"),
        help="what it was trained on: embeddings of length 1, which puts it at hook_embedding_unit, or the hook's "
        "activations as they are; has to be said at the embedding of a MedCLIP encoder",
    )
    parser.add_argument(
        "--mean",
        type=Path,
        metavar="FILE",
        help="it was trained on scale (x - mean): the mean, a vector in .npy, .pt or .safetensors (default: 0)",
    )
    parser.add_argument("--scale", type=float, metavar="S", help="the scale (default: 1)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the SAE's folder")


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.release import import_checkpoint

    given = {"input": args.input, "mean": args.mean, "scale": args.scale}
    sae = import_checkpoint(args.checkpoint, args.format, args.encoder, args.hook, args.out, **given)
    metadata = sae.cfg.metadata
    print(
        f"{sae.cfg.architecture()}, {sae.cfg.d_in} dimensions, {sae.cfg.d_sae} latents, at {metadata.hook_name}: "
        f"{args.out}"
    )
    if folded := metadata.get("folded"):
        print(f"folded into the weights: {', '.join(f'{key} {value:g}' for key, value in folded.items())}")
