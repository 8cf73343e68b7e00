"""`medsae baselines`: other units at an SAE's hook, to set beside it."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import add_device, add_seed, add_store, checked_device, comma_list
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.errors import MedSAEError


def add(commands: Commands) -> None:
    commands.add(
        "baselines",
        run,
        _arguments,
        help="other units at an SAE's hook: random, k-means, frozen decoders...",
        description="Make baselines of an SAE of the same rows and, where they can be, as many units. medsae evaluate "
        "and compare set them beside it with --baselines.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--like", type=Path, required=True, metavar="SAE_DIR", help="the SAE that they stand beside")
    parser.add_argument("--hook", metavar="H", help="the SAE's hook (default: the one that it says it stands at)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the baselines, a folder each")
    parser.add_argument(
        "--kinds",
        type=comma_list,
        metavar="A,B",
        help="random, rows, frozen-decoder, soft-frozen-decoder, pca, ica, nmf, k-means, random-encoder (default: all "
        "that can be made: nmf where no activation is below 0, random-encoder with --images)",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="the store's images, for random-encoder")
    parser.add_argument(
        "--encoder",
        metavar="ENCODER",
        help="its card's name or path, for random-encoder (default: the store's)",
    )
    add_seed(parser, "of what is drawn, and of training")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    import sys

    from medsae_plugin.scores.opening import open_latents
    from medsae_plugin.store import ActivationStore
    from medsae_plugin.training.baselines import Images, Like, make_baselines

    if args.encoder and not args.images:
        raise MedSAEError("--encoder is of random-encoder, which needs --images too")
    store = ActivationStore(args.store)
    ((name, (latents, folder)),) = open_latents(args.like, store).items()
    if args.hook not in (None, latents.hook):
        raise MedSAEError(f"{args.like} stands at {latents.hook}, not at {args.hook}")
    made = make_baselines(
        Like(name, latents.sae, folder, store, latents.hook, args.seed),
        args.out,
        args.kinds,
        images=Images(args.images, args.encoder) if args.images else None,
        device=checked_device(args.device),
        progress=not args.quiet,
        say=lambda line: print(line, file=sys.stderr),
    )
    for line in made.values():
        print(line)
