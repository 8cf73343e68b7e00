"""An encoder's parts to a folder, which the layout `medsae` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from medsae_plugin.encoders.cards import SAVED_CARD
from medsae_plugin.encoders.layouts import WEIGHTS, Parts
from medsae_plugin.encoders.sources import CONFIG
from medsae_plugin.encoders.tokenizing import TOKENIZER, CardTokenizer, FileTokenizer
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, replacing, sha256_of, write_text

_OWN_TEXT = ("medclip", "medsae")  # layouts of the text tower that `medsae` has where nothing else is said

_NOT_OF_SHAPES = ("dtype", "architectures", "transformers_version")


def save_parts(parts: Parts, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write weights (`model.safetensors`), shapes (`config.json`) and a card (`card.yaml`), and return the folder.

    A tokenizer that is on this machine goes beside them.

    Raises:
        MedSAEError: a module of the user's own, whose class no card can name, or a projection that is not linear.
    """
    config = _shapes(parts)
    folder = make_folder(Path(folder))
    state = _prefixed("vision_model.model.", parts.vision_model)
    if parts.card.pooling:  # the model's own pooler is not used
        state = {key: value for key, value in state.items() if not key.startswith("vision_model.model.pooler.")}
    state |= _prefixed("vision_model.projection_head.", parts.projection_head)
    if isinstance(parts.text_tower, nn.Module):
        state |= _prefixed("text_model.", parts.text_tower)
    if parts.logit_scale is not None:
        state["logit_scale"] = torch.tensor(parts.logit_scale)
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    card = _fields(parts, sha256_of(folder / WEIGHTS))
    _save_tokenizer(parts, folder)
    write_text(folder / SAVED_CARD, yaml.safe_dump(card, sort_keys=False, allow_unicode=True))
    return folder


def _shapes(parts: Parts) -> dict[str, Any]:
    card, head = parts.card, parts.projection_head
    if card.source["format"] == "module":
        raise MedSAEError(f"{card.name} is a module of your own, which no card can name; save it with torch.save")
    if not isinstance(head, nn.Identity) and not (isinstance(head, nn.Linear) and head.bias is None):
        raise MedSAEError(f"{card.name} cannot be saved: its projection is a {type(head).__name__}, not linear")
    linear = isinstance(head, nn.Linear)
    config: dict[str, Any] = {
        "vision": card.vision if linear and card.vision else _config_of(parts.vision_model),
        "text": None,
        "projection_dim": head.out_features if isinstance(head, nn.Linear) else None,
    }
    if card.text and isinstance(parts.text_tower, nn.Module):
        layout = card.text.get("layout", card.source["format"])
        config["text"] = card.text.get("config") or _config_of(parts.text_tower.model)
        if layout not in _OWN_TEXT:
            config["text_layout"] = layout
    return config


def _config_of(model: Any) -> dict[str, Any]:
    """The fields that make a model's config."""
    config = model.config
    fields = dict(config.to_diff_dict() if hasattr(config, "to_diff_dict") else vars(config))
    return {
        key: value for key, value in fields.items() if key not in ("dtype", "architectures", "transformers_version")
    }


def _fields(parts: Parts, sha256: str) -> dict[str, Any]:
    """The fields of the card for what is saved."""
    card = parts.card
    fields = {key: value for key, value in vars(card).items() if key != "folder" and value not in (None, [], {})}
    fields["source"] = {"format": "medsae", "path": ".", "sha256": sha256}
    if card.text:
        text = {key: value for key, value in card.text.items() if key != "layout"}
        of_the_hub = parts.tokenizer if isinstance(parts.tokenizer, CardTokenizer) else None
        if of_the_hub is not None and not Path(of_the_hub.source).exists():
            text |= {"tokenizer": str(of_the_hub.source)}
            text |= {"revision": of_the_hub.revision} if of_the_hub.revision else {}
        fields["text"] = text
    if card.folder is not None and (card.folder / card.prompts).is_file():
        fields["prompts"] = str((card.folder / card.prompts).absolute())
    return fields


def _save_tokenizer(parts: Parts, folder: Path) -> None:
    tokenizer = parts.tokenizer
    if isinstance(tokenizer, FileTokenizer):
        content = tokenizer.path.read_bytes()
        with replacing(folder / TOKENIZER) as temporary:
            temporary.write_bytes(content)
    elif isinstance(tokenizer, CardTokenizer) and tokenizer.is_here:
        tokenizer.save(folder / "tokenizer")


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + key: value.detach().cpu() for key, value in module.state_dict().items()}
