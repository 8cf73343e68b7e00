"""`medsae publish`: SAEs to a Hub repository."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.commands import GOES_ON, Commands


def add(commands: Commands) -> None:
    commands.add(
        "publish",
        run,
        _arguments,
        help="send SAEs with their metrics and a model card to the Hugging Face Hub",
        description=(
            "Send SAEs in SAE-Lens's format with metrics, names and a model card to a Hub repository. Images, absolute "
            "paths, patients and small label counts are not sent. Cut short, the same command goes on."
        ),
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="a folder that train wrote, or the folder of one SAE"
    )
    parser.add_argument("--repo", required=True, metavar="ORG/NAME")
    parser.add_argument(
        "--metrics", type=Path, metavar="DIR", help="what evaluate wrote (default: metrics.json in the SAE or the RUN)"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch to commit to (default: main)")
    parser.add_argument("--dry-run", action="store_true", help="write what would be sent to --out, and send nothing")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for --dry-run (default: runs/publish/ORG/NAME)")
    parser.add_argument("--licence", metavar="ID", help="of the SAEs, such as mit (default: the encoder's)")
    parser.add_argument("--data", metavar="TEXT", help="what the images were, for the model card")
    parser.add_argument(
        "--min-count", type=int, default=10, metavar="N", help="refuse label counts from 1 to below this (default: 10)"
    )


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.release import publish

    publication = publish(
        args.runs,
        args.repo,
        metrics=args.metrics,
        private=args.private,
        revision=args.revision,
        dry_run=(args.out or Path("runs/publish") / args.repo) if args.dry_run else None,
        licence=args.licence,
        data=args.data,
        small=args.min_count,
    )
    for name, size in publication.files.items():
        print(f"{size:>12,}  {name}")
    for path in publication.left_out:
        print(f"{'not sent':>12}  {path}")
    if publication.folder is not None:
        print(f"would be sent to {args.repo}; written to {publication.folder}")
    elif publication.changed:
        print(f"sent to {args.repo}, commit {publication.commit}")
    else:
        print(f"nothing new: {args.repo} holds all of it at commit {publication.commit}")
