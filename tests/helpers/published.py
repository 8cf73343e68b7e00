"""Whole tables as data sets published them; none is in the repository."""

import os
from pathlib import Path

import pytest


def published(name: str) -> Path:
    """A table of the folder MEDSAE_TABLES, which holds them by the names they have in torchxrayvision's wheel."""
    path = Path(os.environ.get("MEDSAE_TABLES", "absent")) / name
    if not path.is_file():
        pytest.skip(f"no {name} in the folder MEDSAE_TABLES")
    return path
