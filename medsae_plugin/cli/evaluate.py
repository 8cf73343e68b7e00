"""`medsae evaluate`: SAEs scored against a label table."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_baselines,
    add_chance,
    add_device,
    add_judge,
    add_table,
    add_what_is_scored,
    read_chance,
    read_judge,
    read_saes,
    read_table,
)
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.cli.held_out import add_held_out, how_scored, read_scene
from medsae_plugin.cli.protocol import add_protocol, is_papers, print_as_paper


def add(commands: Commands) -> None:
    commands.add(
        "evaluate",
        run,
        _arguments,
        help="score latents against labels, on held-out patients",
        description="Score the latents of SAEs against labels on held-out patients, beside the raw neurons.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_what_is_scored(parser)
    add_baselines(parser)
    add_held_out(parser)
    add_table(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for metrics.json and latents.parquet")
    add_judge(parser)
    add_chance(parser)
    add_device(parser)
    add_protocol(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.scores import evaluate

    judge = read_judge(args)
    if is_papers(args):
        print_as_paper(args, read_table(args), read_saes(args.saes), args.out)
        return
    scene = read_scene(args)
    evaluation = evaluate(
        scene.store,
        read_saes(args.saes),
        scene.table,
        args.out,
        home=scene.home,
        resampling=read_chance(args),
        baselines=args.baselines,
        judge=judge,
        **how_scored(args, scene),
    )
    print(evaluation)
    print(f"\nwritten: {args.out / 'metrics.json'}, {args.out / 'latents.parquet'}")
