"""Cards: one YAML file an encoder, checked when read."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from medsae_plugin.errors import MedSAEError

SOURCE_FORMATS = ("medclip", "medsae", "transformers")
FITS = ("pad", "crop", "stretch")
_REQUIRED = {"name", "description", "licence", "family", "source", "preprocessing"}
_OPTIONAL = {"vision", "projection_dim", "text"}
_PREPROCESSING = {"mode", "size", "fit", "resample", "mean", "std"}


@dataclass(frozen=True)
class EncoderCard:
    """What a card says of an encoder.

    source: `format` is one of `SOURCE_FORMATS`: `medclip` (an official checkpoint, fetched from `url` and checked
        against `sha256` where it is known), `medsae` (a folder that `save_encoder` wrote, at `path`), or
        `transformers` (a Hub id with a `revision`, or a folder, at `path`). A path starts at the card, or in the
        package's pretrained folder for a card of the package.
    vision: fields of the family's transformers config, where the source does not bring one.
    text: the text tower's config and tokenizer, or None where there is none.
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
        MedSAEError: no such card, or one that says something wrong.
    """
    text = str(name_or_path)
    if text in list_cards():
        card = resources.files("medsae_plugin.hooks") / f"{text}.yaml"
        return _parse(card.read_text(encoding="utf-8"), text, pretrained_folder())
    path = Path(name_or_path)
    if not path.is_file():
        raise MedSAEError(f"no card named {text!r} and no file there; the package has: {', '.join(list_cards())}")
    return _parse(path.read_text(encoding="utf-8"), str(path), path.resolve().parent)


def pretrained_folder() -> Path:
    """The package's folder of bundled weights and recipes."""
    folder = resources.files("medsae_plugin.pretrained")
    return folder if isinstance(folder, Path) else Path(str(folder))


def _parse(text: str, where: str, folder: Path) -> EncoderCard:
    from medsae_plugin.encoders.families import FAMILIES

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MedSAEError(f"{where} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise MedSAEError(f"{where} is not a card: it holds no fields")
    check_fields(content, _REQUIRED, _REQUIRED | _OPTIONAL, where)
    if content["family"] not in FAMILIES:
        raise MedSAEError(f"{where}: family {content['family']!r} is not one of {', '.join(FAMILIES)}")
    _check_source(content["source"], where)
    _check_preprocessing(content["preprocessing"], where)
    return EncoderCard(**content, folder=folder)


def check_fields(content: Any, required: set[str], known: set[str], where: str) -> None:
    """Raise a MedSAEError unless a card's mapping has the required fields and no unknown ones."""
    if not isinstance(content, dict):
        raise MedSAEError(f"{where} should hold the fields {', '.join(sorted(known))}")
    missing, extra = sorted(required - content.keys()), sorted(map(str, content.keys() - known))
    if missing:
        raise MedSAEError(f"{where} lacks {', '.join(missing)}")
    if extra:
        raise MedSAEError(f"{where} has unknown fields {', '.join(extra)}; known are {', '.join(sorted(known))}")


def _check_source(source: Any, where: str) -> None:
    where = f"{where}, source"
    if not isinstance(source, dict) or source.get("format") not in SOURCE_FORMATS:
        raise MedSAEError(f"{where}: format is not one of {', '.join(SOURCE_FORMATS)}")
    place = "url" if source["format"] == "medclip" else "path"
    check_fields(source, {"format", place}, {"format", place, "sha256", "revision"}, where)


def _check_preprocessing(config: Any, where: str) -> None:
    where = f"{where}, preprocessing"
    check_fields(config, _PREPROCESSING, _PREPROCESSING, where)
    if config["mode"] not in ("L", "RGB") or config["fit"] not in FITS:
        raise MedSAEError(f"{where}: mode is L or RGB, fit is one of {', '.join(FITS)}")
    if config["resample"] not in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"):
        raise MedSAEError(f"{where}: resample {config['resample']!r} is no filter of PIL's, such as bicubic")
    if not isinstance(config["size"], int) or config["size"] < 1:
        raise MedSAEError(f"{where}: size is a count of pixels")
    for key in ("mean", "std"):
        values = config[key]
        if not (isinstance(values, list) and len(values) in (1, 3) and all(isinstance(v, int | float) for v in values)):
            raise MedSAEError(f"{where}: {key} is a list of one number, or of three")
    if 0 in config["std"]:
        raise MedSAEError(f"{where}: std has a zero")
