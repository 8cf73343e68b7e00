"""How commands are declared, of one word (`evaluate`) or two (`store verify`), and the parser that they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from medsae_plugin._version import __version__

# What is true after Ctrl-C: of most commands, and of those that keep what they have finished.
AGAIN = "the same command starts again from the beginning"
GOES_ON = "what is finished is kept, and the same command goes on from there"


@dataclass(frozen=True)
class Command:
    """One command: its words, what it runs, and what adds its arguments to a parser."""

    name: str
    run: Callable[[argparse.Namespace], None]
    arguments: Callable[[argparse.ArgumentParser], None]
    help: str
    description: str = ""
    interrupted: str = AGAIN

    @property
    def words(self) -> list[str]:
        return self.name.split()


class Commands:
    """Where each module of the command line declares its commands."""

    def __init__(self) -> None:
        self.declared: list[Command] = []

    def add(
        self,
        name: str,
        run: Callable[[argparse.Namespace], None],
        arguments: Callable[[argparse.ArgumentParser], None],
        *,
        help: str,
        description: str = "",
        interrupted: str = AGAIN,
    ) -> None:
        """Declare a command, of one word or two."""
        self.declared.append(Command(name, run, arguments, help, description, interrupted))

    def parser(self, words: Sequence[str] = ()) -> argparse.ArgumentParser:
        """The parser of `medsae` for a command line that begins with these words.

        A first word can be a command, and begin others (`name`, `name score`). It stands for those of two words where
        the second says so, and where it is no command itself.
        """
        parser = argparse.ArgumentParser(
            prog="medsae",
            description="See what a medical vision encoder has learnt, in clinical words.",
            parents=[everywhere()],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="commands:\n" + "\n".join(f"  {c.name:<16}{c.help}" for c in self.declared),
        )
        parser.add_argument("--version", action="version", version=f"medsae {__version__}")
        firsts = parser.add_subparsers(metavar="COMMAND", required=True, help="one of those below")  # listed there
        for first in dict.fromkeys(c.words[0] for c in self.declared):
            of_two = [c for c in self.declared if c.words[0] == first and c.words[1:]]
            alone = next((c for c in self.declared if c.name == first), None)
            if alone is not None and not (words[:1] == [first] and [first, *words[1:2]] in [c.words for c in of_two]):
                _fill(_add(firsts, first, alone, epilog=_also(of_two)), alone)
                continue
            group = firsts.add_parser(first, parents=[everywhere()])
            seconds = group.add_subparsers(metavar="ACTION", required=True)
            for command in of_two:
                _fill(_add(seconds, command.words[1], command, help=command.help), command)
        return parser


def everywhere() -> argparse.ArgumentParser:
    """A parent parser: the options of every command, which may stand before it and after it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    group = parser.add_argument_group("of every command")
    group.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="no progress bars")
    group.add_argument(
        "--import",
        dest="imports",
        metavar="MODULE",
        action="append",
        default=argparse.SUPPRESS,
        help="a Python module of your own, here or installed, whose metrics, dialects, namers, architectures and "
        "layouts are to be known; may be repeated",
    )
    group.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error comes from")
    return parser


def parse(commands: Commands, words: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command line. The options of every command are taken out first, wherever they stand."""
    given, rest = everywhere().parse_known_args(words)
    args = commands.parser(rest).parse_args(rest, argparse.Namespace(quiet=False, debug=False))
    args.imports = [*getattr(given, "imports", []), *getattr(args, "imports", [])]
    args.quiet |= hasattr(given, "quiet")
    args.debug |= hasattr(given, "debug")
    return args


def _also(others: Sequence[Command]) -> str | None:
    return "; ".join(f"medsae {c.name}: {c.help}" for c in others) or None


def _add(to: Any, word: str, command: Command, **more: Any) -> argparse.ArgumentParser:
    """argparse's own type of `to` is private."""
    description = command.description or f"{command.help[0].upper()}{command.help[1:]}."
    added: argparse.ArgumentParser = to.add_parser(word, parents=[everywhere()], description=description, **more)
    return added


def _fill(parser: argparse.ArgumentParser, command: Command) -> None:
    command.arguments(parser)
    parser.set_defaults(run=command.run, interrupted=command.interrupted)
