"""From a card to a `HookedVisionEncoder`, and back to a folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medsae_plugin.encoders.cards import EncoderCard, load_card
from medsae_plugin.encoders.checkpoints import (
    GEMMA3_KEYS,
    check_keys,
    gemma3_tower,
    load_exactly,
    open_clip_towers,
    read_checkpoint,
    torchxrayvision_tower,
    towers_of,
)
from medsae_plugin.encoders.families import FAMILIES
from medsae_plugin.encoders.hooked import HookedVisionEncoder
from medsae_plugin.encoders.sources import OPEN_CLIP, TRANSFORMERS, checkpoint_sha256, fetched, place_of, weight_files
from medsae_plugin.encoders.text import MedCLIPTextTower, OpenClipTextTower, TextTower, TransformersTextTower
from medsae_plugin.encoders.tokenizing import TOKENIZER, CardTokenizer, FileTokenizer, tokenizer_beside
from medsae_plugin.encoders.towers import (
    VisionTower,
    build_model,
    classes_of,
    config_of,
    model_options,
    parts_of,
    saved_config,
)
from medsae_plugin.encoders.weights import official_checkpoint
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, read_json, replacing, sha256_of, write_text

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# Formats of which the towers are built from the card, under MedCLIP's key names.
_TEXT_TOWERS = {"medclip": MedCLIPTextTower, "medsae": MedCLIPTextTower, "open_clip": OpenClipTextTower}
_UNREADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
)
Tensors = dict[str, Tensor]
Towers = dict[str, Tensors]


def load_encoder(
    name_or_card_path: str | Path, weights: str | Path | None, tokenizer: str | Path | None = None
) -> HookedVisionEncoder:
    """The encoder of a card, on the CPU in float32; see `HookedVisionEncoder.from_pretrained`."""
    card = load_card(name_or_card_path)
    if tokenizer is not None and not card.text:
        raise MedSAEError(f"card {card.name} has no text tower, and takes no tokenizer")
    if tokenizer is not None and not Path(tokenizer).expanduser().exists():
        raise MedSAEError(f"there is no tokenizer at {tokenizer}")
    encoder = _LOADERS[card.source["format"]](card, weights)
    if tokenizer is not None:
        pads = FAMILIES[card.family].pads_text
        encoder._tokenizer = CardTokenizer(card, Path(tokenizer).expanduser(), pads=pads, given=True)
    return encoder


def build_encoder(card: EncoderCard) -> HookedVisionEncoder:
    """An encoder of a card's shapes with random weights (of torch's generator), for training one.

    Raises:
        MedSAEError: the card's `vision` does not tell the shapes.
    """
    if card.source["format"] in _TEXT_TOWERS:
        dim = _projection_dim(card)
        vision = VisionTower(card.family, card.vision, dim, card.pooling is None)
        text = _new_text_tower(card) if card.text else None
        return HookedVisionEncoder(card, vision.model, vision.projection_head, text_tower=text)
    family = FAMILIES[card.family]
    model = build_model(family, config_of(family, card.vision), card.pooling is None)
    return HookedVisionEncoder(card, *parts_of(family, model))


def save_encoder(encoder: HookedVisionEncoder, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write an encoder's weights (`model.safetensors`) and shapes (`config.json`) as a `medsae` source.

    A tokenizer goes beside them as `tokenizer.json` (the `tokenizers` library's format). Returns the folder.
    """
    folder = make_folder(Path(folder))
    state = _prefixed("vision_model.model.", encoder.vision_model) | _prefixed(
        "vision_model.projection_head.", encoder.projection_head
    )
    if encoder.card.text:
        state |= _prefixed("text_model.", encoder.text_tower)
    if encoder.logit_scale is not None:
        state["logit_scale"] = torch.tensor(encoder.logit_scale)
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
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
    tokenizer = _tokenizer_of(card, weights)
    return _assemble(card, path, functools.partial(towers_of, official_family=card.family), tokenizer)


def saved_card(card: EncoderCard, folder: Path) -> EncoderCard:
    """The card with the shapes that `save_encoder` wrote beside its weights."""
    config = read_json(folder / CONFIG)
    text = {**(card.text or {}), "config": config["text"]} if config["text"] else None
    return dataclasses.replace(card, vision=config["vision"], projection_dim=config["projection_dim"], text=text)


def _load_medsae(card: EncoderCard, weights: str | Path | None) -> HookedVisionEncoder:
    folder = Path(weights) if weights is not None else card.source_path
    if folder is None or not (folder / WEIGHTS).is_file() or not (folder / CONFIG).is_file():
        raise MedSAEError(f"card {card.name}: no {WEIGHTS} and {CONFIG} at {folder or card.source['path']}")
    path = folder / WEIGHTS
    check_sha256(card, [path])
    # The same key layout as MedCLIP's, already under today's names.
    return _assemble(
        saved_card(card, folder),
        path,
        towers_of,
        FileTokenizer(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else None,
    )


def _load_open_clip(card: EncoderCard, weights: str | Path | None) -> HookedVisionEncoder:
    (path,) = weight_files(card, weights, OPEN_CLIP)
    check_sha256(card, [path])
    return _assemble(card, path, open_clip_towers, _tokenizer_of(card, weights))


def _load_gemma3(card: EncoderCard, weights: str | Path | None) -> HookedVisionEncoder:
    files = weight_files(card, weights, TRANSFORMERS, lambda key: GEMMA3_KEYS.match(key) is not None)
    check_sha256(card, files)
    family = FAMILIES[card.family]
    model = build_model(family, saved_config(family, _folder_with_config(card, weights)))
    state: dict[str, Tensor] = {}
    for file in files:
        state |= gemma3_tower(read_checkpoint(file, GEMMA3_KEYS.match))
    load_exactly(model, state, f"the vision tower of {card.name}")
    return HookedVisionEncoder(card, model.float(), nn.Identity(), weights_sha256=checkpoint_sha256(files))


def _load_torchxrayvision(card: EncoderCard, weights: str | Path | None) -> HookedVisionEncoder:
    if weights is None and "url" in card.source:
        path = official_checkpoint(card, None)
    else:
        (path,) = weight_files(card, weights, ("model.safetensors", "pytorch_model.bin"))
        check_sha256(card, [path])
    family = FAMILIES[card.family]
    model = build_model(family, config_of(family, card.vision))
    state = torchxrayvision_tower(read_checkpoint(path), card.family)
    load_exactly(model, state, f"the vision tower of {card.name}")
    return HookedVisionEncoder(card, *parts_of(family, model), weights_sha256=sha256_of(path))


def _load_transformers(card: EncoderCard, weights: str | Path | None) -> HookedVisionEncoder:
    family = FAMILIES[card.family]
    files, folder = weight_files(card, weights), _folder_with_config(card, weights)
    check_sha256(card, files)
    options = {**family.settings, **model_options(family, card.pooling is None)}
    model = pretrained_model(card, classes_of(family)[1], folder, folder, **options)
    text: Callable[[], TextTower] | None = None
    if card.text and family.text:
        text = functools.partial(_transformers_text, card, getattr(transformers, family.text), folder)
    return HookedVisionEncoder(
        card,
        *parts_of(family, model),
        weights_sha256=checkpoint_sha256(files),
        text_tower=text,
        tokenizer=_tokenizer_of(card, weights, place_of(card, weights), family.pads_text),
        logit_scale=_scalar(files, "logit_scale") if text else None,
    )


def _transformers_text(card: EncoderCard, text_class: Any, folder: Path) -> TextTower:
    return TransformersTextTower(pretrained_model(card, text_class, folder, folder))


def _load_module(card: EncoderCard, weights: str | Path | None) -> HookedVisionEncoder:
    raise MedSAEError(
        f"card {card.name} describes a module that is given in Python: HookedVisionEncoder.from_module(module, card)"
    )


def _folder_with_config(card: EncoderCard, weights: str | Path | None) -> Path:
    config = fetched(card, place_of(card, weights), CONFIG)
    if config is None:
        raise MedSAEError(f"card {card.name}: {place_of(card, weights)} cannot be loaded: it holds no {CONFIG}")
    return config.parent


def pretrained_model(card: EncoderCard, model_class: Any, folder: Path, source: Path | None, **options: Any) -> Any:
    """A transformers model in float32; every weight of it must be there, but for those of a pooler that is not used.

    Args:
        folder: holds the checkpoint, for messages.
        source: the folder again; or None, where the options say it all.

    Raises:
        MedSAEError: a checkpoint that is damaged, or lacks weights.
    """
    options |= {"trust_remote_code": False, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        model, report = model_class.from_pretrained(source, dtype=torch.float32, **options)
    except _UNREADABLE as error:
        raise MedSAEError(f"card {card.name}: {folder} cannot be loaded: {error}") from None
    lacking = sorted(map(str, [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]))
    only_pooler = bool(lacking) and all(key.startswith("pooler.") for key in lacking)
    if only_pooler and card.pooling:
        model.pooler = None  # as transformers' models have it that are made without one
    elif lacking:
        hint = "; a checkpoint without a pooler needs a card with pooling: cls (or mean)" if only_pooler else ""
        raise MedSAEError(
            f"card {card.name}: {folder} lacks weights, or has them in other shapes: {', '.join(lacking[:20])}{hint}"
        )
    return model


def _scalar(files: Sequence[Path], key: str) -> float | None:
    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                if key in tensors.keys():  # noqa: SIM118
                    return float(tensors.get_tensor(key))
        elif key in (state := read_checkpoint(file)):
            return float(state[key])
    return None


def check_sha256(card: EncoderCard, files: Sequence[Path]) -> None:
    expected = card.source.get("sha256")
    if expected and checkpoint_sha256(files) != expected:
        raise MedSAEError(f"{files[0]} is not the file that card {card.name} names: its sha256 is another")


def _assemble(
    card: EncoderCard, path: Path, split: Callable[[dict[str, Tensor]], Towers], tokenizer: Callable[[], Any] | None
) -> HookedVisionEncoder:
    """Both towers from state dicts under today's names; the text tower is checked now and built when asked for."""
    towers = split(read_checkpoint(path))
    vision = check_towers(card, towers)
    load_exactly(vision, towers["vision"], f"the vision tower of {card.name}")
    text = functools.partial(_text_tower, card, path, split) if card.text else None
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


def check_towers(card: EncoderCard, towers: Towers) -> VisionTower:
    """Raise where the parts of a checkpoint are not those of the card; else a vision tower with random weights."""
    vision = VisionTower(card.family, card.vision, _projection_dim(card), card.pooling is None)
    check_keys(vision, towers["vision"], f"the vision tower of {card.name}")
    if card.text:
        with torch.device("meta"):
            check_keys(_new_text_tower(card), towers["text"], f"the text tower of {card.name}")
        if not towers["logit_scale"]:
            raise MedSAEError(f"the checkpoint does not fit {card.name}; keys missing: logit_scale")
    elif towers["text"]:
        raise MedSAEError(f"the checkpoint has a text tower, card {card.name} names none")
    return vision


def _new_text_tower(card: EncoderCard) -> TextTower:
    """The text tower of a card's config, with random weights."""
    config = (card.text or {}).get("config", {})
    try:
        return _TEXT_TOWERS[card.source["format"]](config, _projection_dim(card))
    except Exception as error:  # the configs raise errors of many kinds, from packages of their own too
        raise MedSAEError(f"card {card.name}: text: config makes no BERT: {error}") from None


def _text_tower(card: EncoderCard, path: Path, split: Callable[[dict[str, Tensor]], Towers]) -> TextTower:
    tower = _new_text_tower(card)
    load_exactly(tower, split(read_checkpoint(path))["text"], f"the text tower in {path}")
    return tower


def _tokenizer_of(
    card: EncoderCard, weights: str | Path | None, place: str | None = None, pads: bool = False
) -> CardTokenizer | None:
    """The card's tokenizer: files beside the weights, else the one it names; without a name, the one at `place`."""
    source = card.text.get("tokenizer", place) if card.text else None
    if not card.text or source is None:
        return None
    if weights is not None and (beside := tokenizer_beside(card, Path(weights).expanduser())):
        return CardTokenizer(card, beside, pads=pads, given=True)
    revision = card.text.get("revision", None if "tokenizer" in card.text else card.source.get("revision"))
    return CardTokenizer(card, source, revision, pads=pads)


_LOADERS: dict[str, Callable[[EncoderCard, str | Path | None], HookedVisionEncoder]] = {
    "medclip": _load_medclip,
    "medsae": _load_medsae,
    "transformers": _load_transformers,
    "open_clip": _load_open_clip,
    "gemma3": _load_gemma3,
    "torchxrayvision": _load_torchxrayvision,
    "module": _load_module,
}
