"""Names that are looked up in their modules when first used, so that importing a package stays cheap."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def look_up(package: str, modules: Mapping[str, str], name: str) -> Any:
    """The attribute `name` of `package`, from the module that `modules` names for it; for a package's `__getattr__`."""
    if name not in modules:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(modules[name]), name)
