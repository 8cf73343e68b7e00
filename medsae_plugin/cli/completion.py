"""Completion by the shell, with argcomplete (the extra `completion`)."""

from __future__ import annotations

import os

from medsae_plugin.cli.commands import Commands


def asked() -> bool:
    """Whether a shell asks what a line can go on with, rather than to run it."""
    return "_ARGCOMPLETE" in os.environ


def complete(commands: Commands) -> None:
    """Tell the shell, and end."""
    import argcomplete

    words = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0"))].split()
    argcomplete.autocomplete(commands.parser([word for word in words[1:] if not word.startswith("-")]))
