"""Lets SAE-Lens 6 be imported beside transformer-lens 4, for the tests of encoders that splice SAEs in.

SAE-Lens 6 asks for transformer-lens < 4, and imports from it, when it is imported, what 4 has moved or dropped. Its
SAEs need none of that but `HookedRootModule` and `HookPoint`, which 4 has. So under 4 the names are put where SAE-Lens
looks: those that were moved are the real ones, and for the language models that were dropped stand empty classes, of
which no test makes one.
"""

import sys
from importlib.metadata import version
from types import ModuleType
from typing import Any

import transformer_lens

MAJOR = int(version("transformer-lens").partition(".")[0])


def _put(module: str, **names: Any) -> None:
    sys.modules[module] = ModuleType(module)
    vars(sys.modules[module]).update(names)


if MAJOR >= 4:
    from transformer_lens import utilities
    from transformer_lens.HookedRootModule import HookedRootModule

    dropped = type("HookedTransformer", (HookedRootModule,), {})
    _put(
        "transformer_lens.HookedTransformer",
        HookedTransformer=dropped,
        HookedRootModule=HookedRootModule,
        Loss=Any,
        Output=Any,
    )
    _put("transformer_lens.utils", **vars(utilities))
    _put("transformer_lens.components")
    _put("transformer_lens.components.mlps")
    _put("transformer_lens.components.mlps.can_be_used_as_mlp", CanBeUsedAsMLP=type("CanBeUsedAsMLP", (), {}))
    transformer_lens.HookedTransformer = dropped
