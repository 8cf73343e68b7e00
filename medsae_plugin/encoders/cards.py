"""Cards: one YAML file an encoder, checked when read."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from medsae_plugin.encoders.card import EncoderCard
from medsae_plugin.encoders.card_checks import CheckedCard
from medsae_plugin.errors import MedSAEError

SAVED_CARD = "card.yaml"


def list_cards() -> list[str]:
    """Names of the cards in the package, sorted."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in resources.files("medsae_plugin.hooks").iterdir()
        if entry.name.endswith(".yaml")
    )


def load_card(name_or_path: str | Path) -> EncoderCard:
    """The card of this name in the package, or the user's own at this path.

    Raises:
        MedSAEError: no such card, or one that says something wrong: all of it, line by line.
    """
    checked, folder = read_card(name_or_path)
    if checked.problems:
        raise MedSAEError("\n".join(checked.problems))
    return EncoderCard(**checked.content, folder=folder)


def parse_card(fields: Mapping[str, Any], where: str = "card") -> EncoderCard:
    """The card that these fields make.

    Raises:
        MedSAEError: something wrong with them: all of it.
    """
    checked = CheckedCard(yaml.safe_dump(dict(fields), sort_keys=False), where)
    if checked.problems:
        raise MedSAEError("\n".join(checked.problems))
    return EncoderCard(**checked.content, folder=Path())


def read_card(name_or_path: str | Path) -> tuple[CheckedCard, Path]:
    """A card's checked text, and the folder that its paths start from; a folder stands for the `card.yaml` in it.

    Raises:
        MedSAEError: no such card.
    """
    text = str(name_or_path)
    if text in list_cards():
        card = resources.files("medsae_plugin.hooks") / f"{text}.yaml"
        return CheckedCard(card.read_text(encoding="utf-8"), text), pretrained_folder()
    path = Path(name_or_path).expanduser()
    if (path / SAVED_CARD).is_file():
        path = path / SAVED_CARD
    if not path.is_file():
        raise MedSAEError(f"no card named {text!r} and no file there; the package has: {', '.join(list_cards())}")
    return CheckedCard(path.read_text(encoding="utf-8", errors="replace"), str(path)), path.resolve().parent


def pretrained_folder() -> Path:
    """The package's folder of bundled weights and recipes."""
    folder = resources.files("medsae_plugin.pretrained")
    return folder if isinstance(folder, Path) else Path(str(folder))
