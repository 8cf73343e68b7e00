"""Fixtures for every test."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference values and real radiographs, beside the checkout or at MEDSAE_SHARED."""
    path = Path(os.environ.get("MEDSAE_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no reference data at {path} (set MEDSAE_SHARED)")
    return path
