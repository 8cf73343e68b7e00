"""`medsae confounders`: what latents lean on beside their labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_device,
    add_seed,
    add_table,
    add_what_is_scored,
    comma_list,
    read_saes,
)
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.cli.held_out import add_held_out, how_scored, read_scene


def add(commands: Commands) -> None:
    commands.add(
        "confounders",
        run,
        _arguments,
        help="what latents lean on: sex, age, projection and other covariates",
        description="Of each label's top latent, and of those above the null: r with each covariate, r with the label "
        "within strata and with the covariate partialled out, AUROC in each stratum, and a verdict; beside raw "
        "neurons and a probe of them all.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_what_is_scored(parser)
    add_held_out(parser)
    add_table(parser, required=True)
    parser.add_argument(
        "--covariates",
        type=comma_list,
        default=[],
        metavar="NAME,...",
        help="of sex, age, view, projection, laterality, site, device (default: all that the table has)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="for confounders.json and .parquet; may be that of medsae evaluate",
    )
    parser.add_argument("--permutations", type=int, default=200, metavar="N", help="of the null (default: 200)")
    add_seed(parser, "of the null, of the folds, and of the halves that a probe's penalty is chosen between")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.confounding import score_confounders

    scene = read_scene(args)
    found = score_confounders(
        scene.store,
        read_saes(args.saes),
        scene.table,
        args.covariates,
        args.out,
        permutations=args.permutations,
        seed=args.seed,
        **how_scored(args, scene),
    )
    print(found)
    print(f"\nwritten: {found.file_at(args.out)}")
