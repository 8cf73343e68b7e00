"""Encoders: images to hooked activations."""

from importlib import import_module
from typing import Any

_MODULES = {
    "HookedVisionEncoder": "hooked",
    "HookSpec": "hooked",
    "Preprocessor": "preprocessing",
    "EncoderCard": "cards",
    "list_cards": "cards",
    "load_card": "cards",
    "build_encoder": "loading",
    "save_encoder": "loading",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
