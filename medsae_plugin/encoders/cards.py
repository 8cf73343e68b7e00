"""Cards: one YAML file an encoder, checked when read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from medsae_plugin.encoders.card_checks import CheckedCard
from medsae_plugin.errors import MedSAEError


@dataclass(frozen=True)
class EncoderCard:
    """What a card says of an encoder.

    source: `format` is one of `card_checks.SOURCES`: `medclip` (an official checkpoint, fetched from `url` and checked
        against `sha256` where it is known), `medsae` (a folder that `save_encoder` wrote, at `path`), `transformers`,
        `open_clip`, `gemma3` or `torchxrayvision` (a checkpoint in that layout: a Hub id with a `revision`, or a
        folder, at `path`; for torchxrayvision also a file at `url`), or `module` (an `nn.Module` that is given in
        Python). A path starts at the card, or in the package's pretrained folder for a card of the package.
    vision: fields of the family's config, where the source does not bring one, and to tell shapes without it.
    text: the text tower's config and tokenizer, or None where there is none.
    prefix_tokens: tokens before the image's own (CLS, registers); None leaves it to the family.
    pooling: `cls` or `mean` of the tokens beyond the prefix; None takes the model's own pooled output where there is
        one, else the first prefix token, else the mean.
    hooks: hook points beyond the family's: each a `name`, the `path` of a module, and where they are not output and
        tokens, a `side` and a `layout`.
    outputs: for a probabilistic encoder, what gives the `mean` and the `logvar` of its Gaussian embedding: the path
        of a module, or a field of the model's output.
    access: how to get weights that are not open to all.
    """

    name: str
    description: str
    licence: str
    family: str
    source: dict[str, Any]
    preprocessing: dict[str, Any]
    vision: dict[str, Any] = field(default_factory=dict)
    projection_dim: int | None = None
    text: dict[str, Any] | None = None
    prefix_tokens: int | None = None
    pooling: str | None = None
    hooks: list[dict[str, Any]] = field(default_factory=list)
    outputs: dict[str, str] | None = None
    access: str | None = None
    folder: Path | None = None  # that relative paths start from

    @property
    def source_path(self) -> Path | None:
        """The source's local path, if it names one that exists."""
        if "path" not in self.source or self.folder is None:
            return None
        path = (self.folder / self.source["path"]).expanduser()
        return path if path.exists() else None


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
    """A card's checked text, and the folder that its paths start from.

    Raises:
        MedSAEError: no such card.
    """
    text = str(name_or_path)
    if text in list_cards():
        card = resources.files("medsae_plugin.hooks") / f"{text}.yaml"
        return CheckedCard(card.read_text(encoding="utf-8"), text), pretrained_folder()
    path = Path(name_or_path)
    if not path.is_file():
        raise MedSAEError(f"no card named {text!r} and no file there; the package has: {', '.join(list_cards())}")
    return CheckedCard(path.read_text(encoding="utf-8", errors="replace"), str(path)), path.resolve().parent


def pretrained_folder() -> Path:
    """The package's folder of bundled weights and recipes."""
    folder = resources.files("medsae_plugin.pretrained")
    return folder if isinstance(folder, Path) else Path(str(folder))
