"""SAE-Lens knows our releases and architecture once `medsae_plugin` is imported, in whichever order, at no cost before.

Imported for its one function by `medsae_plugin` itself, so nothing here may be heavy: what SAE-Lens is told stands in
`medsae_plugin.release` and `training.sparse_topk`, which are looked up by name, as in `_lazy`, when it is needed.
"""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_LOOK_UP = "get_pretrained_saes_directory"


def register_with_sae_lens() -> None:
    """Add our releases, converters and architecture to SAE-Lens's: now if it is imported, else as soon as it is."""
    if any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        return
    if "sae_lens.loading.pretrained_saes_directory" in sys.modules:
        _install()
    else:
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport:
    """Finds `sae_lens` through the other finders, and installs our part when it has been executed."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "sae_lens":
            return None
        finders = (finder.find_spec for finder in sys.meta_path if finder is not self)
        spec = next((spec for find in finders if (spec := find(name, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            sys.meta_path.remove(self)
            _install()

        # On this loader alone: a loader of our own would hide the resources that SAE-Lens reads through its own.
        setattr(spec.loader, "exec_module", exec_module)  # noqa: B010
        return spec


def _install() -> None:
    from sae_lens.loading import pretrained_sae_loaders, pretrained_saes_directory

    import_module("medsae_plugin.release.formats").tell_sae_lens(pretrained_sae_loaders)
    import_module("medsae_plugin.training.sparse_topk").register()
    original = getattr(pretrained_saes_directory, _LOOK_UP)
    if hasattr(original, "medsae_plugin"):
        return

    @functools.wraps(original)
    def look_up() -> dict[str, Any]:
        directory: dict[str, Any] = original()
        import_module("medsae_plugin.release.registry").add_to(directory)
        return directory

    look_up.medsae_plugin = True  # type: ignore[attr-defined]
    # Modules that have imported the function by name hold it too.
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(_LOOK_UP) is original:
            setattr(module, _LOOK_UP, look_up)
