"""From a card to a `HookedVisionEncoder`, and back to a folder."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from medsae_plugin.encoders.cards import EncoderCard, load_card
from medsae_plugin.encoders.checkpoints import check_keys, load_exactly, read_checkpoint, towers_of
from medsae_plugin.encoders.families import FAMILIES
from medsae_plugin.encoders.hooked import HookedVisionEncoder
from medsae_plugin.encoders.text import TextTower
from medsae_plugin.encoders.weights import official_checkpoint
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import sha256_of, write_text

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


class VisionTower(nn.Module):
    """A transformers vision model and the projection to the image embedding, under MedCLIP's key names."""

    def __init__(self, family: str, config: dict[str, Any], projection_dim: int) -> None:
        super().__init__()
        config_name, model_name = FAMILIES[family].model
        self.model = getattr(transformers, model_name)(getattr(transformers, config_name)(**config))
        shapes = self.model.config
        width = shapes.hidden_size if hasattr(shapes, "hidden_size") else shapes.hidden_sizes[-1]
        self.projection_head = nn.Linear(width, projection_dim, bias=False)


def load_encoder(name_or_card_path: str | Path, weights: str | Path | None) -> HookedVisionEncoder:
    """The encoder of a card, on the CPU in float32; see `HookedVisionEncoder.from_pretrained`."""
    card = load_card(name_or_card_path)
    return _LOADERS[card.source["format"]](card, weights)


def build_encoder(card: EncoderCard) -> HookedVisionEncoder:
    """An encoder of a card's shapes with random weights (of torch's generator), for training one."""
    vision = VisionTower(card.family, card.vision, _projection_dim(card))
    text = TextTower(card.text["config"], _projection_dim(card)) if card.text else None
    return HookedVisionEncoder(card, vision.model, vision.projection_head, text_tower=text)


def save_encoder(encoder: HookedVisionEncoder, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write an encoder's weights (`model.safetensors`) and shapes (`config.json`) as a `medsae` source.

    A tokenizer goes beside them as `tokenizer.json` (the `tokenizers` library's format). Returns the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = _prefixed("vision_model.model.", encoder.vision_model) | _prefixed(
        "vision_model.projection_head.", encoder.projection_head
    )
    if encoder.card.text:
        state |= _prefixed("text_model.", encoder.text_tower)
    if encoder.logit_scale is not None:
        state["logit_scale"] = torch.tensor(encoder.logit_scale)
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / WEIGHTS)
    config = {
        "vision": encoder.card.vision,
        "text": encoder.card.text and encoder.card.text["config"],
        "projection_dim": encoder.card.projection_dim,
    }
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    return folder


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + key: value.detach().cpu() for key, value in module.state_dict().items()}


def _projection_dim(card: EncoderCard) -> int:
    if card.projection_dim is None:
        raise MedSAEError(f"card {card.name} lacks projection_dim, which its source needs")
    return card.projection_dim


def _load_medclip(card: EncoderCard, weights: str | Path | None) -> HookedVisionEncoder:
    path = official_checkpoint(card, weights)
    return _assemble(card, path, towers_of(read_checkpoint(path), card.family), _hub_tokenizer(card))


def _load_medsae(card: EncoderCard, weights: str | Path | None) -> HookedVisionEncoder:
    folder = Path(weights) if weights is not None else card.source_path
    if folder is None or not (folder / WEIGHTS).is_file() or not (folder / CONFIG).is_file():
        raise MedSAEError(f"card {card.name}: no {WEIGHTS} and {CONFIG} at {folder or card.source['path']}")
    path = folder / WEIGHTS
    if card.source.get("sha256") and sha256_of(path) != card.source["sha256"]:
        raise MedSAEError(f"{path} is not the file that card {card.name} names: its sha256 is another")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    text = {**(card.text or {}), "config": config["text"]} if config["text"] else None
    card = dataclasses.replace(card, vision=config["vision"], projection_dim=config["projection_dim"], text=text)
    # The same key layout as MedCLIP's, already under today's names.
    return _assemble(card, path, towers_of(read_checkpoint(path)), _file_tokenizer(folder / TOKENIZER))


def _load_transformers(card: EncoderCard, weights: str | Path | None) -> HookedVisionEncoder:
    source = str(weights or card.source_path or card.source["path"])
    model_class = getattr(transformers, FAMILIES[card.family].model[1])
    try:
        model, report = model_class.from_pretrained(
            source,
            revision=card.source.get("revision"),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise MedSAEError(f"card {card.name}: {source} cannot be loaded: {error}") from None
    if report["missing_keys"] or report["mismatched_keys"]:
        problems = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise MedSAEError(f"card {card.name}: {source} lacks weights, or has them in other shapes: {problems[:20]}")
    sha256 = sha256_of(Path(source) / WEIGHTS) if (Path(source) / WEIGHTS).is_file() else ""
    return HookedVisionEncoder(card, model.float(), nn.Identity(), weights_sha256=sha256)


def _assemble(
    card: EncoderCard, path: Path, towers: dict[str, dict[str, Tensor]], tokenizer: Callable[[], Any] | None
) -> HookedVisionEncoder:
    """Both towers from state dicts under today's names; the text tower is checked now and built when asked for."""
    dim = _projection_dim(card)
    vision = VisionTower(card.family, card.vision, dim)
    load_exactly(vision, towers["vision"], f"the vision tower of {card.name}")
    text: Callable[[], TextTower] | None = None
    if card.text:
        with torch.device("meta"):
            check_keys(TextTower(card.text["config"], dim), towers["text"], f"the text tower of {card.name}")
        if not towers["logit_scale"]:
            raise MedSAEError(f"the checkpoint does not fit {card.name}; keys missing: logit_scale")
        text = functools.partial(_text_tower, card.text["config"], dim, path)
    elif towers["text"]:
        raise MedSAEError(f"the checkpoint has a text tower, card {card.name} names none")
    scale = towers["logit_scale"].get("logit_scale")
    return HookedVisionEncoder(
        card,
        vision.model,
        vision.projection_head,
        weights_sha256=sha256_of(path),
        text_tower=text,
        tokenizer=tokenizer,
        logit_scale=None if scale is None else float(scale),
    )


def _text_tower(config: dict[str, Any], dim: int, path: Path) -> TextTower:
    tower = TextTower(config, dim)
    load_exactly(tower, towers_of(read_checkpoint(path))["text"], f"the text tower in {path}")
    return tower


def _hub_tokenizer(card: EncoderCard) -> Callable[[], Any] | None:
    """A maker of the card's tokenizer; it fetches it from the Hub, or takes it from a folder, when first used."""
    if not card.text or "tokenizer" not in card.text:
        return None
    source, revision, most = card.text["tokenizer"], card.text.get("revision"), card.text.get("max_tokens")

    @functools.cache
    def make() -> Callable[[str], list[int]]:
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise MedSAEError(
                f"the tokenizer {source} of {card.name} cannot be had ({str(error).splitlines()[0]}); give token ids"
            ) from None
        return lambda text: tokenizer(text, truncation=most is not None, max_length=most)["input_ids"]

    return make


def _file_tokenizer(path: Path) -> Callable[[], Any] | None:
    if not path.is_file():
        return None

    @functools.cache
    def make() -> Callable[[str], list[int]]:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
        return lambda text: tokenizer.encode(text).ids

    return make


_LOADERS: dict[str, Callable[[EncoderCard, str | Path | None], HookedVisionEncoder]] = {
    "medclip": _load_medclip,
    "medsae": _load_medsae,
    "transformers": _load_transformers,
}
