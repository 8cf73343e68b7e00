"""Names of version 0.1, which work for one release more with a DeprecationWarning that says the new one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# The longest first, so that a module that has left its package is found before it.
MODULES = {
    "medsae_plugin.evaluation.attribution": "medsae_plugin.causal.attribution",
    "medsae_plugin.evaluation.attribution_report": "medsae_plugin.causal.attribution_report",
    "medsae_plugin.evaluation.downstream": "medsae_plugin.causal.downstream",
    "medsae_plugin.evaluation.interventions": "medsae_plugin.causal.interventions",
    "medsae_plugin.evaluation.passes": "medsae_plugin.causal.passes",
    "medsae_plugin.evaluation.latents": "medsae_plugin.scores.matrix",
    "medsae_plugin.evaluation.statistics": "medsae_plugin.scores.sums",
    "medsae_plugin.evaluation": "medsae_plugin.scores",
    "medsae_plugin.activations.store": "medsae_plugin.store.reader",
    "medsae_plugin.activations": "medsae_plugin.store",
    "medsae_plugin.data.phantoms": "medsae_plugin.phantoms",
    "medsae_plugin.reports": "medsae_plugin.report",
    "medsae_plugin.hub": "medsae_plugin.release",
}


# What has left `medsae_plugin.evaluation` under its own name.
MOVED = dict.fromkeys(
    ("Attribution", "attribute", "contrast_with_random", "effect_of_edits", "load_saes"), "medsae_plugin.causal"
)


def find_old_modules() -> None:
    """Let `import medsae_plugin.evaluation` and its like find what they are called now."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        # First, for a folder that an older checkout left behind (its __pycache__) would be found as a namespace.
        sys.meta_path.insert(0, _OldModules())


def old_functions() -> dict[str, tuple[str, Callable[..., Any]]]:
    """Functions of `medsae_plugin` by their old name: what to call instead, and what does as they did."""
    return {
        "evaluate_saes": ("evaluate", lambda *a, **k: _new("evaluate")(*a, **k).to_json()),
        "format_table": ("print(evaluation)", lambda metrics: str(_new("Evaluation").read(metrics))),
        "compare_saes": ("compare", lambda *a, **k: _new("compare")(*a, **k).to_json()),
        "prompts_for": ("EncoderCard.own_prompts", _prompts_for),
        "format_comparison": ("print(comparison)", lambda c: str(_new("Comparison").read(c))),
        "downstream_fidelity": ("fidelity", lambda *a, **k: _new("fidelity")(*a, **k).to_json()),
        "format_fidelity": ("print(fidelity)", lambda f: str(_new("Fidelity").read(f))),
        "summarise_attribution": (
            "AttributionReport.of",
            lambda *a, **k: _new("AttributionReport").of(*a, **k).to_json(),
        ),
        "format_attribution": ("print(report)", lambda r: str(_new("AttributionReport").read(r))),
    }


def old_function(package: str, name: str) -> Callable[..., Any]:
    """What `name` was in `package`, with a warning that says what it is now.

    Raises:
        AttributeError: there was no such name.
    """
    if name in MOVED:
        new, function = f"{MOVED[name]}.{name}", getattr(import_module(MOVED[name]), name)
    elif name in (known := old_functions()):
        new, function = known[name]
    else:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    warnings.warn(f"{package}.{name} is now {new}; the old name goes with 0.3", DeprecationWarning, stacklevel=3)
    return function


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take an argument by its old name, with a warning."""

    def with_old_name(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                name = function.__name__
                warnings.warn(
                    f"{name}({old}=) is now {new}; the old name goes with 0.3", DeprecationWarning, stacklevel=2
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return called

    return with_old_name


def _prompts_for(encoder_name: str) -> Any:
    cards, prompts = import_module("medsae_plugin.encoders.cards"), import_module("medsae_plugin.data.prompts")
    if encoder_name in cards.list_cards():
        return cards.load_card(encoder_name).own_prompts()
    return prompts.load_prompts(prompts.CHEXPERT)


def _new(name: str) -> Any:
    return getattr(import_module("medsae_plugin"), name)


class _OldModules(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        for old, new in MODULES.items():
            if fullname == old or fullname.startswith(f"{old}."):
                name = new + fullname.removeprefix(old)
                warnings.warn(f"{fullname} is now {name}; the old name goes with 0.3", DeprecationWarning, stacklevel=2)
                return spec_from_loader(fullname, _Alias(import_module(name)))
        return None


class _Alias(Loader):
    """Gives a module that is there already, as it is."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec
