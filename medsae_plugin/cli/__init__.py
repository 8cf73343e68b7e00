# PYTHON_ARGCOMPLETE_OK
"""The command `medsae`: parse, call one function, print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from medsae_plugin.cli import (
    attribute,
    baselines,
    compare,
    completion,
    confounders,
    demo,
    encoders,
    evaluate,
    extract,
    fidelity,
    figures,
    head,
    hierarchy,
    import_,
    linearity,
    localize,
    name,
    phantoms,
    power,
    probe,
    publish,
    recipe,
    report,
    robustness,
    schema,
    selectivity,
    stats,
    store,
    sweep,
    table,
    train,
    vocabulary,
)
from medsae_plugin.cli.commands import AGAIN, Commands, parse
from medsae_plugin.cli.console import prepare_console, quieten, say
from medsae_plugin.cli.own_modules import import_own

# One module a command. Each imports what is heavy inside its `run`, so that `medsae --help` answers at once.
_COMMANDS = (
    demo,
    encoders,
    phantoms,
    table,
    extract,
    store,
    recipe,
    train,
    sweep,
    baselines,
    power,
    evaluate,
    probe,
    head,
    localize,
    stats,
    compare,
    confounders,
    selectivity,
    hierarchy,
    robustness,
    report,
    figures,
    schema,
    name,
    vocabulary,
    fidelity,
    attribute,
    publish,
    import_,
    linearity,
)


def declared() -> Commands:
    """All commands."""
    commands = Commands()
    for module in _COMMANDS:
        module.add(commands)
    return commands


def main(argv: Sequence[str] | None = None) -> int:
    """Run `medsae`; the exit status is 0, 1 for what the user can mend, 130 when interrupted."""
    if completion.asked():
        completion.complete(declared())
    prepare_console()
    args = argparse.Namespace(debug=False, interrupted=AGAIN)
    try:
        args = parse(declared(), sys.argv[1:] if argv is None else argv)
        if args.quiet:
            quieten()
        import_own(args.imports)
        args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(f"medsae: interrupted; {args.interrupted}\n")
        return 130
    except Exception as error:
        say(error, args.debug)
        return 1
    return 0
