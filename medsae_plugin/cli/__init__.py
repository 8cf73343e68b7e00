"""The command `medsae`: parse, call one function, print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from medsae_plugin._version import __version__
from medsae_plugin.cli import (
    attribute,
    compare,
    demo,
    encoders,
    evaluate,
    extract,
    fidelity,
    figures,
    import_,
    name,
    phantoms,
    publish,
    report,
    stats,
    store,
    sweep,
    train,
    vocabulary,
)
from medsae_plugin.errors import MedSAEError

# One module a command. Each imports what is heavy inside its `run`, so that `medsae --help` answers at once.
_COMMANDS = (
    demo,
    encoders,
    phantoms,
    extract,
    store,
    train,
    sweep,
    evaluate,
    stats,
    compare,
    report,
    figures,
    name,
    vocabulary,
    fidelity,
    attribute,
    publish,
    import_,
)
# Commands of two words.
_PAIRS = {("name", "score")}


def build_parser() -> argparse.ArgumentParser:
    """The parser of `medsae`, with a sub-parser a command."""
    parser = argparse.ArgumentParser(
        prog="medsae", description="See what a medical vision encoder has learnt, in clinical words."
    )
    parser.add_argument("--version", action="version", version=f"medsae {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `medsae`; the exit status is 0, 1 for what the user can mend, 130 when interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if tuple(words[:2]) in _PAIRS:
        words[:2] = [" ".join(words[:2])]
    args = build_parser().parse_args(words)
    try:
        args.run(args)
    except (MedSAEError, OSError) as error:
        print(f"medsae: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("medsae: interrupted; what is finished is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    return 0
