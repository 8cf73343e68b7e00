"""`medsae probe`: what few latents tell of each label, beside all neurons."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_device,
    add_seed,
    add_table,
    add_what_is_scored,
    read_saes,
)
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.cli.held_out import add_held_out, how_scored, read_scene


def add(commands: Commands) -> None:
    commands.add(
        "probe",
        run,
        _arguments,
        help="what few latents tell of each label, beside a probe of all neurons",
        description="Probes of the best 1 to 50 latents, of one alone, and of all with a sparse penalty, on held-out "
        "patients; beside a probe of all neurons, and what is left of that on the SAE's reconstruction.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_what_is_scored(parser)
    add_held_out(parser)
    add_table(parser, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for probes.json; may be that of medsae evaluate"
    )
    add_seed(parser, "of the untrained SAEs, of the folds, and of the halves that penalties are chosen between")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.scores.probes import probe_units

    scene = read_scene(args)
    probes = probe_units(
        scene.store,
        read_saes(args.saes),
        scene.table,
        args.out,
        seed=args.seed,
        **how_scored(args, scene),
    )
    print(probes)
    print(f"\nwritten: {probes.file_at(args.out)}")
