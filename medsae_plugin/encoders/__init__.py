"""Encoders: images to hooked activations."""

from typing import Any

from medsae_plugin._lazy import look_up

_MODULES = {
    "HookedVisionEncoder": "medsae_plugin.encoders.hooked",
    "HookSpec": "medsae_plugin.encoders.measuring",
    "LatentEdit": "medsae_plugin.encoders.edits",
    "ablate": "medsae_plugin.encoders.edits",
    "clamp": "medsae_plugin.encoders.edits",
    "scale": "medsae_plugin.encoders.edits",
    "steer": "medsae_plugin.encoders.edits",
    "ZeroShot": "medsae_plugin.encoders.zero_shot",
    "Preprocessor": "medsae_plugin.encoders.preprocessing",
    "EncoderCard": "medsae_plugin.encoders.card",
    "LAYOUTS": "medsae_plugin.encoders.layouts",
    "Layout": "medsae_plugin.encoders.layouts",
    "Parts": "medsae_plugin.encoders.layouts",
    "TextTower": "medsae_plugin.encoders.text",
    "list_cards": "medsae_plugin.encoders.cards",
    "load_card": "medsae_plugin.encoders.cards",
    "build_encoder": "medsae_plugin.encoders.loading",
    "save_encoder": "medsae_plugin.encoders.loading",
    "describe_encoder": "medsae_plugin.encoders.describing",
    "check_card": "medsae_plugin.encoders.describing",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    return look_up(__name__, _MODULES, name)
