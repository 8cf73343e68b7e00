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
from medsae_plugin.cli.arguments import AGAIN
from medsae_plugin.cli.console import prepare_console, quieten, say

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
    parser.set_defaults(debug=False, interrupted=AGAIN)
    _add_debug(parser)
    return parser


def _add_debug(parser: argparse.ArgumentParser) -> None:
    """`--debug`, before the command and after it."""
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error comes from"
    )
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _add_debug(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `medsae`; the exit status is 0, 1 for what the user can mend, 130 when interrupted."""
    prepare_console()
    args = argparse.Namespace(debug=False, interrupted=AGAIN)
    try:
        args = build_parser().parse_args(_joined(list(sys.argv[1:] if argv is None else argv)))
        if getattr(args, "quiet", False):
            quieten()
        args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(f"medsae: interrupted; {args.interrupted}\n")
        return 130
    except Exception as error:
        say(error, args.debug)
        return 1
    return 0


def _joined(words: list[str]) -> list[str]:
    """The command line with commands of two words as one."""
    first = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    if tuple(words[first : first + 2]) in _PAIRS:
        words[first : first + 2] = [" ".join(words[first : first + 2])]
    return words
