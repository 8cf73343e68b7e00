"""What is here of other libraries: SAE libraries' modules, without what their packages import, and MedGemma's needs."""

import importlib
import importlib.util
import sys
import types

import pytest

from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.backends import medgemma


def original(module: str, distribution: str) -> types.ModuleType:
    """A module of a real library, by its full name; the test is skipped where it is not installed.

    The library's own package is entered without its `__init__`, which imports encoders, plots or language models that
    the SAEs do not need.

    Args:
        distribution: what pip calls the library.
    """
    name = module.split(".")[0]
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            pytest.skip(f"{name} is not installed (pip install --no-deps {distribution})")
        package = types.ModuleType(name)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = package
    return importlib.import_module(module)


def lacking_for_medgemma() -> str:
    """Why MedGemma is refused with the libraries that are here; empty where it is not."""
    try:
        medgemma._check_transformers()
    except MedSAEError as error:
        return str(error)
    return ""


needs_medgemma = pytest.mark.skipif(bool(lacking_for_medgemma()), reason=lacking_for_medgemma())
