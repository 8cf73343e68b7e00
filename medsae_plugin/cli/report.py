"""stub"""

from __future__ import annotations
from medsae_plugin.cli.arguments import Commands


def add(commands: Commands) -> None:
    del commands
