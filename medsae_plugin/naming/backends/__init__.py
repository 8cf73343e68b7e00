"""Vision-language models that name and judge: MedGemma here, or any model behind an OpenAI-compatible server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.naming.chat import Chat

MEDGEMMA = "google/medgemma-4b-it"

_SPEC = re.compile(r"(medgemma)(?::(.+))?|(server):(.+)@(https?://.+)")


def is_model(spec: str) -> bool:
    """Whether `open_chat` knows the form of a spec."""
    return _SPEC.fullmatch(spec) is not None


def open_chat(
    spec: str,
    *,
    device: str = "cpu",
    batch_size: int = 1,
    load_in_4bit: bool = False,
    revision: str | None = None,
    concurrency: int = 8,
    timeout: int | float = 120.0,
) -> Chat:
    """The model that a spec names.

    Args:
        spec: `medgemma` (google/medgemma-4b-it), `medgemma:ID` (another id of the Hub, or a folder), or
            `server:MODEL@URL`, such as `server:google/medgemma-27b-it@http://localhost:8000/v1`.
        device, batch_size, load_in_4bit, revision: of MedGemma here; see `MedGemma`.
        concurrency, timeout: of a server; see `Server`.

    Raises:
        MedSAEError: a spec of another form, or what the backend refuses.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise MedSAEError(
            f"{spec!r} names no model; write medgemma, medgemma:ID-OR-FOLDER, or server:MODEL@URL "
            "(server:google/medgemma-4b-it@http://localhost:8000/v1)"
        )
    if match[1]:
        from medsae_plugin.naming.backends.medgemma import MedGemma

        return MedGemma(
            match[2] or MEDGEMMA,
            device=device,
            batch_size=batch_size,
            load_in_4bit=load_in_4bit,
            revision=revision,
        )
    from medsae_plugin.naming.backends.server import Server

    return Server(match[5], match[4], concurrency=concurrency, timeout=timeout)
