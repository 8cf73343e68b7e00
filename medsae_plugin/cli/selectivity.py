"""`medsae selectivity`: what is left of every finding when the latents of one are silent."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_batches,
    add_device,
    add_prompts,
    add_seed,
    add_table,
    add_tokenizer,
    add_what_is_scored,
    checked_device,
    comma_list,
    read_encoder,
    read_prompts,
    read_saes,
    with_cards,
)
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.cli.held_out import add_held_out, read_folds, read_scene


def add(commands: Commands) -> None:
    commands.add(
        "selectivity",
        run,
        _arguments,
        help="whether the latents of a finding are its own: silence them, and see which probes fall",
        description="Silence the k latents that carry each observation, or a covariate, and read every observation's "
        "probe again, on held-out patients; beside as many latents drawn at random, an untrained SAE and raw neurons.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_what_is_scored(parser)
    add_held_out(parser)
    add_table(parser, required=True)
    parser.add_argument(
        "--covariate",
        action="append",
        default=[],
        metavar="NAME",
        help="take a covariate out too (sex, age, view, projection, laterality, site, device, or a label), and see the "
        "observations stay; may be repeated",
    )
    parser.add_argument(
        "--k",
        type=_counts,
        default=[1, 2, 5, 10, 20],
        metavar="K,...",
        help="latents to silence (default: 1,2,5,10,20)",
    )
    again = parser.add_argument_group("zero-shot scores, by running the encoder again")
    with_cards(
        again.add_argument(
            "--encoder",
            metavar="ENCODER",
            help="the store's encoder, by its card's name or path; it needs a text tower",
        )
    )
    again.add_argument("--weights", type=Path, help="its checkpoint (default: the card's source, fetched once)")
    add_tokenizer(again)
    add_prompts(again)
    add_batches(again)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for the results; may be that of medsae evaluate"
    )
    parser.add_argument("--figures", action="store_true", help="draw the matrix and the curves as well, as PNG and SVG")
    add_seed(
        parser, "of the untrained SAEs, folds, draws, resamples, and of the halves that penalties are chosen between"
    )
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.encoders import ZeroShot
    from medsae_plugin.selectivity import score_selectivity

    scene, zero_shot = read_scene(args), None
    if args.encoder is not None:
        encoder = read_encoder(args)
        zero_shot = encoder, ZeroShot(encoder, read_prompts(args))
    found = score_selectivity(
        scene.store,
        read_saes(args.saes),
        scene.table,
        args.covariate,
        args.out,
        ks=args.k,
        zero_shot=zero_shot,
        batch_size=args.batch_size,
        workers=args.workers,
        aggregate=args.aggregate,
        select=scene.select,
        report=scene.report,
        folds=read_folds(args),
        leave_out_trained=args.leave_out_trained,
        seed=args.seed,
        device=checked_device(args.device),
        progress=not args.quiet,
    )
    print(found)
    print(f"\nwritten: {found.file_at(args.out)}")
    if args.figures:
        from medsae_plugin.report.figures_selectivity import write_selectivity_figures

        for path in write_selectivity_figures(found, args.out / "figures"):
            print(path)


def _counts(text: str) -> list[int]:
    try:
        return [int(part) for part in comma_list(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 1,2,5") from None
