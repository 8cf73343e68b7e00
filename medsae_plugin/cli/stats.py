"""`medsae stats` and `medsae merge`: sites share sums, not images."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import (
    add_device,
    add_seed,
    add_table,
    add_what_is_scored,
    checked_device,
    read_saes,
    read_table,
)
from medsae_plugin.cli.commands import Commands
from medsae_plugin.errors import MedSAEError

_OF_IMAGES = ("--folds", "--test-table", "--select-from", "--judge-store")


def add(commands: Commands) -> None:
    commands.add(
        "stats",
        run_stats,
        _stats_arguments,
        help="a site's sums, to merge with other sites'",
        description="Sum a site's latents and labels into files that name no image, path or patient.",
    )
    commands.add(
        "merge",
        run_merge,
        _merge_arguments,
        help="the table of several sites' sums",
        description="Merge the sums of several sites, and print the table that all their images together give.",
    )


def _stats_arguments(parser: argparse.ArgumentParser) -> None:
    add_what_is_scored(parser)
    add_table(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="SITE", help="the folder for the sums")
    parser.add_argument(*_OF_IMAGES, dest="of_images", help=argparse.SUPPRESS)
    add_seed(parser, "of the untrained SAEs, the same at all sites")
    add_device(parser)


def _merge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sites", type=Path, nargs="+", metavar="SITE", help="folders of `medsae stats`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for metrics.json and latents.parquet")


def run_stats(args: argparse.Namespace) -> None:
    from medsae_plugin.scores.sites import site_statistics
    from medsae_plugin.scores.table import without_rows
    from medsae_plugin.store import ActivationStore

    if args.of_images is not None:
        raise MedSAEError(
            f"sites share sums over two splits of a store, which {', '.join(_OF_IMAGES[:-1])} and {_OF_IMAGES[-1]} "
            "have no part in; name the splits (--select-split, --report-split)"
        )
    site = site_statistics(
        ActivationStore(args.store),
        read_saes(args.saes),
        read_table(args),
        aggregate=args.aggregate,
        select=args.select,
        report=args.report,
        seed=args.seed,
        device=checked_device(args.device),
        progress=not args.quiet,
    )
    site.save(args.out)
    splits = site.about.splits.values()
    counts = (f"{split.images} images of {split.patients} patients" for split in splits)
    for line in without_rows(*splits):
        print(line)
    print(f"{args.out}: sums over {' and '.join(counts)}; no image, path or patient is in them")


def run_merge(args: argparse.Namespace) -> None:
    from medsae_plugin.scores.sites import SiteStatistics

    merged = SiteStatistics.load(args.sites[0])
    for site in args.sites[1:]:
        merged.merge(SiteStatistics.load(site))
    evaluation = merged.evaluation()
    evaluation.save(args.out)
    print(evaluation)
    print(f"\nwritten: {args.out / 'metrics.json'}, {args.out / 'latents.parquet'}")
