"""`medsae robustness`: do latents hold when images are masked, noised, turned, mirrored, cropped?"""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_batches,
    add_device,
    add_seed,
    add_table,
    add_what_is_scored,
    comma_list,
    read_encoder,
    read_saes,
    read_table,
    with_cards,
)
from medsae_plugin.cli.commands import GOES_ON, Commands


def add(commands: Commands) -> None:
    commands.add(
        "robustness",
        run,
        _arguments,
        help="do latents hold when images are masked, noised, turned, mirrored, cropped?",
        description="Run the images of --report-split through the encoder again, unchanged and perturbed: of every "
        "latent the Jaccard index of what it fires on, and r with itself; of each label's top latent r with the "
        "label; beside an untrained SAE and raw neurons. What changes with a mirror or a crop may hang on a marker or "
        "an edge.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_what_is_scored(parser)
    add_table(parser, required=True)
    with_cards(
        parser.add_argument(
            "--encoder", metavar="ENCODER", help="the store's, by its card's name or path (default: the name there)"
        )
    )
    parser.add_argument("--weights", type=Path, help="its checkpoint (default: the card's source, fetched once)")
    parser.add_argument(
        "--perturbations",
        type=comma_list,
        metavar="NAME,...",
        help="of masked, noise, rotated, mirrored, cropped, window (default: all)",
    )
    parser.add_argument(
        "--leave-out-trained",
        action="store_true",
        help="leave out patients that an SAE was trained on, where the store is split otherwise than the SAE's own",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="for robustness.json and .parquet; may be that of medsae evaluate",
    )
    add_batches(parser)
    add_seed(parser, "of noise, hidden cells and groups of patients, and of the untrained SAEs")
    add_device(parser)
    parser.set_defaults(batch_size=8)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.robustness import PERTURBATIONS, score_robustness
    from medsae_plugin.store import ActivationStore

    table, store = read_table(args), ActivationStore(args.store)
    args.encoder = args.encoder or store.encoder_name
    found = score_robustness(
        read_encoder(args),
        store,
        read_saes(args.saes),
        table,
        args.out,
        perturbations=tuple(PERTURBATIONS) if args.perturbations is None else args.perturbations,
        aggregate=args.aggregate,
        select=args.select,
        report=args.report,
        leave_out_trained=args.leave_out_trained,
        batch_size=args.batch_size,
        workers=args.workers,
        seed=args.seed,
        progress=not args.quiet,
    )
    print(found)
    print(f"\nwritten: {found.file_at(args.out)}")
