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
        "--format", required=True, metavar="NAME", help="dictionary_learning, vit_prisma, or one of your own (--import)"
    )
    with_cards(parser.add_argument("--encoder", required=True, metavar="ENCODER", help="a card's name or path"))
    parser.add_argument("--hook", required=True, metavar="NAME", help="the hook point that the SAE stands at")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the SAE's folder")


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.release import import_checkpoint

    sae = import_checkpoint(args.checkpoint, args.format, args.encoder, args.hook, args.out)
    print(f"{sae.cfg.architecture()}, {sae.cfg.d_in} dimensions, {sae.cfg.d_sae} latents, at {args.hook}: {args.out}")
