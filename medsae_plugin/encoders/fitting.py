"""Whether a checkpoint fits a card, told from the headers of its files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from medsae_plugin.encoders.cards import EncoderCard
from medsae_plugin.encoders.checkpoints import (
    GEMMA3_KEYS,
    check_keys,
    gemma3_tower,
    open_clip_towers,
    read_shapes,
    torchxrayvision_tower,
    towers_of,
)
from medsae_plugin.encoders.families import FAMILIES
from medsae_plugin.encoders.loading import WEIGHTS, check_sha256, check_towers, pretrained_model, saved_card
from medsae_plugin.encoders.sources import OPEN_CLIP, TRANSFORMERS, weight_files
from medsae_plugin.encoders.towers import build_model, config_of, model_options, saved_config
from medsae_plugin.errors import MedSAEError

_FILES = {"medsae": (WEIGHTS,), "open_clip": OPEN_CLIP}


def check_weights(card: EncoderCard, folder: Path) -> None:
    """Raise what loading the card's weights from a folder would for their keys and shapes.

    Raises:
        MedSAEError: files that are missing or damaged, or keys and shapes that do not fit the card.
    """
    family, source_format, what = FAMILIES[card.family], card.source["format"], f"the vision tower of {card.name}"
    state = _shapes(card, folder)
    if source_format == "transformers":
        _check_transformers(card, folder, state)
        return
    with torch.device("meta"):
        if source_format == "gemma3":
            check_keys(build_model(family, saved_config(family, folder)), gemma3_tower(state), what)
        elif source_format == "torchxrayvision":
            model = build_model(family, config_of(family, card.vision))
            check_keys(model, torchxrayvision_tower(state, card.family), what)
        elif source_format == "open_clip":
            check_towers(card, open_clip_towers(state))
        else:
            check_towers(saved_card(card, folder), towers_of(state))


def _shapes(card: EncoderCard, folder: Path) -> dict[str, Tensor]:
    def wanted(key: str) -> bool:
        return card.source["format"] != "gemma3" or GEMMA3_KEYS.match(key) is not None

    files = weight_files(card, folder, _FILES.get(card.source["format"], TRANSFORMERS), wanted)
    check_sha256(card, files)
    state: dict[str, Tensor] = {}
    for file in files:
        state |= read_shapes(file, wanted)
    return state


def _check_transformers(card: EncoderCard, folder: Path, state: dict[str, Tensor]) -> None:
    """By transformers' own loading, which knows the names that weights had in its earlier versions."""
    family, pooler = FAMILIES[card.family], card.pooling is None
    with torch.device("meta"):
        model = build_model(family, saved_config(family, folder), pooler)
    dry: dict[str, Any] = {"state_dict": state, "device_map": "meta"}
    with _quiet():
        options = model_options(family, pooler)
        pretrained_model(card, type(model), folder, None, config=model.config, **options, **dry)
        if card.text and family.text:
            text_class = getattr(transformers, family.text)
            try:
                config = text_class.config_class.from_pretrained(folder)
            except (OSError, ValueError, TypeError) as error:
                raise MedSAEError(f"config.json in {folder} makes no text tower: {error}") from None
            pretrained_model(card, text_class, folder, None, config=config, **dry)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report of what is missing, which is told in words, and its progress bar."""
    logging = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
