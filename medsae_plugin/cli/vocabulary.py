"""`medsae vocabulary`: terms from reports."""

from __future__ import annotations

import argparse
from pathlib import Path

from medsae_plugin.cli.arguments import renamed
from medsae_plugin.cli.commands import Commands


def add(commands: Commands) -> None:
    commands.add(
        "vocabulary",
        run,
        _arguments,
        help="a vocabulary from reports",
        description="Find the terms that reports affirm, with spaCy and NegEx, for `medsae name --vocabulary`.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    table = parser.add_argument(
        "--table", type=Path, required=True, metavar="CSV", help="a table with a column of radiologists' reports"
    )
    renamed(parser, "--reports", table)
    parser.add_argument("--report-column", default="report", metavar="NAME", help="(default: report)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="term, category and count a line")
    parser.add_argument(
        "--model",
        default="en_core_sci_sm",
        help="a spaCy pipeline that finds clinical entities, its name or folder (default: scispaCy's en_core_sci_sm)",
    )
    parser.add_argument("--fewest", type=int, default=5, metavar="N", help="reports with a term, at least (default: 5)")


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.data.tables import read_reports
    from medsae_plugin.naming.terms import extract_terms

    reports = read_reports(args.table, args.report_column)
    vocabulary, counts = extract_terms(reports, args.model, fewest=args.fewest, progress=not args.quiet)
    vocabulary.write(args.out, counts)
    print(f"{len(vocabulary)} terms of {len(reports)} reports: {args.out}")
