"""`--import MODULE`: what users register from outside the package."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from medsae_plugin.errors import MedSAEError


def import_own(modules: Iterable[str]) -> None:
    """Import modules by name, from the working directory or from what is installed.

    Raises:
        MedSAEError: there is none of the name, or it cannot be imported.
    """
    for module in modules:
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
                hint = "; give its name, without .py" if module.endswith(".py") else ""
                raise MedSAEError(
                    f"--import {module}: no module {error.name!r} in {here} or among what is installed{hint}"
                ) from error
            raise MedSAEError(f"--import {module}: it needs {error.name!r}, which is not installed") from error
        except MedSAEError as error:
            raise MedSAEError(f"--import {module}: {error}") from error
        except (Exception, SystemExit) as error:
            raise MedSAEError(f"--import {module}: it cannot be imported ({type(error).__name__}: {error})") from error
