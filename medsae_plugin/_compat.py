"""What differs between the versions of libraries that are taken: each difference once, here."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def hub_http() -> ModuleType:
    """The library that huggingface_hub speaks HTTP through, whose errors it lets by: httpx2 from 2.0, httpx before."""
    import huggingface_hub

    return import_module("httpx2" if int(huggingface_hub.__version__.partition(".")[0]) >= 2 else "httpx")
