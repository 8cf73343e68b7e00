"""Latents named, and the names put to the test."""

from typing import Any

from medsae_plugin._lazy import look_up

_MODULES = {
    "Answers": "medsae_plugin.naming.answers",
    "Chat": "medsae_plugin.naming.chat",
    "LatentName": "medsae_plugin.naming.schema",
    "NAMERS": "medsae_plugin.naming.opening",
    "Namer": "medsae_plugin.naming.namers",
    "NameScores": "medsae_plugin.naming.results",
    "Names": "medsae_plugin.naming.names",
    "Proposal": "medsae_plugin.naming.namers",
    "Vocabulary": "medsae_plugin.naming.vocabulary",
    "name_latents": "medsae_plugin.naming.run",
    "open_chat": "medsae_plugin.naming.backends",
    "open_judge": "medsae_plugin.naming.opening",
    "open_judges": "medsae_plugin.naming.opening",
    "open_namer": "medsae_plugin.naming.opening",
    "refine_names": "medsae_plugin.naming.refinement",
    "score_names": "medsae_plugin.naming.scoring",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
