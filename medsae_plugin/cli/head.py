"""`medsae head`: findings as sums of latents' parts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from medsae_plugin.cli.arguments import (
    add_device,
    add_splits,
    add_store,
    add_table,
    add_tokenizer,
    checked_device,
    read_table,
)
from medsae_plugin.cli.commands import AGAIN, Commands

if TYPE_CHECKING:
    from medsae_plugin.encoders import ZeroShot
    from medsae_plugin.store import ActivationStore


def add(commands: Commands) -> None:
    commands.add(
        "head",
        run,
        _arguments,
        help="predict findings as sums of latents' parts, calibrated and held out",
        description="A sparse head on an SAE's latents for each label: each prediction is a sum of what single latents "
        "add. Fitted on one split, its strength chosen on another, reported on a third, beside a probe of all neurons "
        "and the encoder's own words; with a short list of rules for each finding.",
        interrupted=AGAIN,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("sae", type=Path, metavar="SAE_DIR")
    add_splits(parser)
    parser.add_argument(
        "--tune-split",
        dest="tune",
        default="val",
        metavar="SPLIT",
        help="where strength and k are chosen (default: val)",
    )
    add_table(parser, required=True)
    parser.add_argument(
        "--kind",
        choices=("l1", "top-k", "additive"),
        default="l1",
        help="l1: few latents by a penalty; top-k: those that correlate most; additive: a curve a latent (default: l1)",
    )
    parser.add_argument("--names", type=Path, metavar="DIR", help="names.json of medsae name, for tables and rules")
    parser.add_argument(
        "--prompts",
        metavar="NAME|YAML",
        help="set the encoder's zero-shot scores beside, of these findings prompts: chexpert, phantoms, or a file",
    )
    parser.add_argument("--weights", type=Path, help="the encoder's, for --prompts")
    add_tokenizer(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for head.safetensors and head.json")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.naming.names import Names
    from medsae_plugin.patients import fit_head
    from medsae_plugin.store import ActivationStore

    store, device = ActivationStore(args.store), checked_device(args.device)
    head = fit_head(
        store,
        args.sae,
        read_table(args),
        args.out,
        kind=args.kind,
        aggregate=args.aggregate,
        select=args.select,
        tune=args.tune,
        report=args.report,
        zero_shot=_words(args, store, device) if args.prompts else None,
        names=None if args.names is None else Names.open(args.names),
        device=device,
        progress=not args.quiet,
    )
    print(head.report)
    print(f"\nwritten: {args.out / 'head.safetensors'}, {args.out / 'head.json'}")


def _words(args: argparse.Namespace, store: ActivationStore, device: str) -> ZeroShot:
    from medsae_plugin.data.prompts import load_prompts
    from medsae_plugin.encoders import HookedVisionEncoder, ZeroShot

    encoder = HookedVisionEncoder.from_pretrained(
        store.encoder_name, args.weights, device=device, tokenizer=args.tokenizer
    )
    return ZeroShot(encoder, load_prompts(args.prompts))
