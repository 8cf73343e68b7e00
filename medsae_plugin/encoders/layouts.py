"""`LAYOUTS`: the layouts of checkpoints that a card's `source: {format: ...}` can name, one entry each.

A layout of your own is an entry more: `LAYOUTS["mine"] = Layout(named_by=("path",), files=(...), towers=...)`. It then
works in cards, in `HookedVisionEncoder.from_pretrained` and in `medsae encoders check`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from medsae_plugin.encoders import key_rules
from medsae_plugin.encoders.card import EncoderCard
from medsae_plugin.encoders.checkpoints import check_keys, load_exactly, read_checkpoint, read_shapes
from medsae_plugin.encoders.families import FAMILIES
from medsae_plugin.encoders.key_rules import Tensors, Towers
from medsae_plugin.encoders.sources import CONFIG, Source, check_sha256, checkpoint_sha256
from medsae_plugin.encoders.text import MedCLIPTextTower, OpenClipTextTower, TextTower, TransformersTextTower
from medsae_plugin.encoders.tokenizing import TOKENIZER, CardTokenizer, FileTokenizer, tokenizer_of
from medsae_plugin.encoders.towers import (
    VisionTower,
    build_model,
    classes_of,
    config_of,
    model_options,
    parts_of,
    pretrained_model,
    quiet_transformers,
    saved_config,
)
from medsae_plugin.encoders.weights import official_checkpoint
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import read_json

WEIGHTS = "model.safetensors"
TEXT_CONFIG = "text.config"
_ONE_FILE = (WEIGHTS, "pytorch_model.bin")
_SHARDED = (WEIGHTS, f"{WEIGHTS}.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Parts:
    """What a `HookedVisionEncoder` is made of; see its arguments."""

    card: EncoderCard
    vision_model: nn.Module
    projection_head: nn.Module
    weights_sha256: str = ""
    text_tower: Callable[[], TextTower] | TextTower | None = None
    tokenizer: Callable[[], Any] | None = None
    logit_scale: float | None = None


@dataclass(frozen=True)
class Layout:
    """How a checkpoint of one kind is found, and becomes an encoder's parts.

    named_by: the fields of a card's `source`, of `path` and `url`, that can name the weights.
    files: what the checkpoint can be called in its folder or repository, the best first; an index of shards is
        `*.index.json`. A `url` names the file itself, or a zip.
    wanted: whether the tensor of a key is read.
    towers: a rule (`key_rules`): the checkpoint's state dict and the family to the state dicts `vision`, which must be
        exactly that of the family's model, and where the layout has them `text` and `logit_scale`.
    projects: the `vision` state dict is of a `VisionTower`: the model at `model.*` and a linear `projection_head.*`.
    has_config: the shapes are in a `config.json` beside the weights; else in the card's `vision`.
    text_tower: made of the card's `text: config` and `projection_dim`.
    needs: what a card must say, beyond where the weights are: fields (`projection_dim`, `text`, `text.config`), or a
        field and its value (`pooling: cls`).
    """

    named_by: tuple[str, ...] = ("path",)
    files: tuple[str, ...] = _SHARDED
    wanted: Callable[[str], object] = bool
    towers: Callable[[Tensors, str], Towers] = key_rules.own_towers
    projects: bool = False
    has_config: bool = False
    text_tower: Callable[[dict[str, Any], int], TextTower] | None = None
    needs: tuple[str, ...] = ()

    def load(self, source: Source) -> Parts:
        """The parts, with the checkpoint's weights on the CPU in float32; the text tower is checked, and built later.

        Raises:
            MedSAEError: no such files, or files that are damaged or do not fit the card, key by key.
        """
        files = self.find(source)
        card, folder = self.card(source), self._folder(source)
        towers = self.towers(self._read(files, read_checkpoint), card.family)
        vision = self._fitting(card, folder, towers)
        load_exactly(vision, towers["vision"], f"the vision tower of {card.name}")
        scale = towers.get("logit_scale", {}).get("logit_scale")
        return Parts(
            card,
            *self._split(card, vision.float()),
            weights_sha256=checkpoint_sha256(files),
            text_tower=functools.partial(_loaded_text_tower, card, files) if towers.get("text") else None,
            tokenizer=self.tokenizer(card, source),
            logit_scale=None if scale is None else float(scale),
        )

    def build(self, card: EncoderCard, folder: Path | None = None) -> Parts:
        """The parts with random weights (of torch's generator), of the card's shapes or those of a folder's config.

        Raises:
            MedSAEError: shapes that are not told, or make no model.
        """
        vision = self._vision(card, folder)
        text = self.new_text_tower(card) if card.text and self.text_tower else None
        return Parts(card, *self._split(card, vision), text_tower=text)

    def shapes(self, source: Source) -> tuple[Parts, str]:
        """As `build`, and where the shapes were read; of a source on the Hub its `config.json` alone is fetched.

        Raises:
            MedSAEError: as `build`.
        """
        card = source.card
        if self.has_config and (card.source_path or not card.vision):
            folder = source.folder("")
            return self.build(card, folder), f"{CONFIG} in {card.source['path']}"
        return self.build(card), "the card"

    def check(self, source: Source) -> None:
        """Raise what `load` would for the checkpoint's keys and shapes, from the headers of its files.

        Raises:
            MedSAEError: files that are missing or damaged, or keys and shapes that do not fit the card.
        """
        state = self._read(self.find(source), read_shapes)
        card = self.card(source)
        with torch.device("meta"):
            towers = self.towers(state, card.family)
            vision = self._fitting(card, self._folder(source), towers)
            check_keys(vision, towers["vision"], f"the vision tower of {card.name}")

    def find(self, source: Source) -> list[Path]:
        """The checkpoint's files, their SHA-256 checked where the card says it."""
        if "path" not in self.named_by or (source.given is None and "url" in source.card.source):
            return [official_checkpoint(source)]
        files = source.files(self.files, self.wanted)
        check_sha256(source.card, files)
        return files

    def card(self, source: Source) -> EncoderCard:
        """The source's card, with what the checkpoint itself says of its shapes."""
        return source.card

    def tokenizer(self, card: EncoderCard, source: Source) -> Callable[[], Any] | None:
        """The text tower's."""
        return tokenizer_of(card, source)

    def new_text_tower(self, card: EncoderCard) -> TextTower:
        """The text tower of a card's config, with random weights."""
        assert self.text_tower is not None
        try:
            return self.text_tower((card.text or {}).get("config", {}), self._projection_dim(card) or 0)
        except Exception as error:  # the configs raise errors of many kinds, from packages of their own too
            if isinstance(error, MedSAEError):
                raise
            raise MedSAEError(f"card {card.name}: text: config makes no BERT: {error}") from None

    def text_from(self, card: EncoderCard, files: Sequence[Path]) -> TextTower:
        """The text tower with its weights."""
        tower = self.new_text_tower(card)
        state = self.towers(self._read(files, read_checkpoint), card.family)["text"]
        load_exactly(tower, state, f"the text tower in {files[0]}")
        return tower

    def _read(self, files: Sequence[Path], read: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
        return {key: value for file in files for key, value in read(file, self.wanted).items()}

    def _folder(self, source: Source) -> Path | None:
        return source.folder() if self.has_config else None

    def _vision(self, card: EncoderCard, folder: Path | None) -> Any:
        family, pooler = FAMILIES[card.family], card.pooling is None
        if self.projects:
            return VisionTower(card.family, card.vision, self._projection_dim(card), pooler)
        config = saved_config(family, folder) if folder and self.has_config else config_of(family, card.vision)
        return build_model(family, config, pooler)

    def _split(self, card: EncoderCard, vision: Any) -> tuple[nn.Module, nn.Module]:
        return (vision.model, vision.projection_head) if self.projects else parts_of(FAMILIES[card.family], vision)

    def _fitting(self, card: EncoderCard, folder: Path | None, towers: Towers) -> Any:
        """The vision module with random weights; raises where the parts of a checkpoint are not those of the card."""
        vision = self._vision(card, folder)
        check_keys(vision, towers["vision"], f"the vision tower of {card.name}")
        if card.text and self.text_tower:
            with torch.device("meta"):
                check_keys(self.new_text_tower(card), towers.get("text", {}), f"the text tower of {card.name}")
            if "logit_scale" in towers and not towers["logit_scale"]:
                raise MedSAEError(f"the checkpoint does not fit {card.name}; keys missing: logit_scale")
        elif towers.get("text"):
            raise MedSAEError(f"the checkpoint has a text tower, card {card.name} names none")
        return vision

    def _projection_dim(self, card: EncoderCard) -> int | None:
        if card.projection_dim is None and "projection_dim" in self.needs:
            raise MedSAEError(f"card {card.name} lacks projection_dim, which its source needs")
        return card.projection_dim


class _Saved(Layout):
    """What `HookedVisionEncoder.save_pretrained` writes: always a folder here, whose config.json tells all shapes."""

    def find(self, source: Source) -> list[Path]:
        folder = Path(source.place)
        if not (folder / WEIGHTS).is_file() or not (folder / CONFIG).is_file():
            raise MedSAEError(f"card {source.card.name}: no {WEIGHTS} and {CONFIG} at {folder}")
        check_sha256(source.card, [folder / WEIGHTS])
        return [folder / WEIGHTS]

    def shapes(self, source: Source) -> tuple[Parts, str]:
        if source.card.source_path:
            return self.build(self.card(source)), f"{CONFIG} in {source.card.source['path']}"
        return self.build(source.card), "the card"

    def card(self, source: Source) -> EncoderCard:
        config, card = read_json(Path(source.place) / CONFIG), source.card
        kind = {"layout": config["text_layout"]} if "text_layout" in config else {}
        text = {**(card.text or {}), "config": config["text"], **kind} if config["text"] else None
        return dataclasses.replace(card, vision=config["vision"], projection_dim=config["projection_dim"], text=text)

    def tokenizer(self, card: EncoderCard, source: Source) -> Callable[[], Any] | None:
        folder = Path(source.place)
        if (folder / TOKENIZER).is_file():
            return FileTokenizer(folder / TOKENIZER)
        return tokenizer_of(card, dataclasses.replace(source, given=folder))

    def new_text_tower(self, card: EncoderCard) -> TextTower:
        own = (card.text or {}).get("layout")
        return LAYOUTS[own].new_text_tower(card) if own else super().new_text_tower(card)


class _Transformers(Layout):
    """By transformers' own loading, which knows the names that weights had in its earlier versions."""

    def load(self, source: Source) -> Parts:
        card, family = source.card, FAMILIES[source.card.family]
        files, folder, pooler = self.find(source), source.folder(), card.pooling is None
        options = {**family.settings, **model_options(family, pooler)}
        model = pretrained_model(card.name, classes_of(family)[1], folder, folder, pooler, **options)
        has_text = bool(card.text and family.text)
        return Parts(
            card,
            *parts_of(family, model),
            weights_sha256=checkpoint_sha256(files),
            text_tower=functools.partial(_loaded_text_tower, card, [folder]) if has_text else None,
            tokenizer=tokenizer_of(card, source, source.place),
            logit_scale=_scalar(files, "logit_scale") if has_text else None,
        )

    def check(self, source: Source) -> None:
        card, family, pooler = source.card, FAMILIES[source.card.family], source.card.pooling is None
        dry: dict[str, Any] = {"state_dict": self._read(self.find(source), read_shapes), "device_map": "meta"}
        folder = source.folder()
        with torch.device("meta"):
            model = build_model(family, saved_config(family, folder), pooler)
        with quiet_transformers():
            options = {"config": model.config, **model_options(family, pooler), **dry}
            pretrained_model(card.name, type(model), folder, None, pooler, **options)
            if card.text and family.text:
                text_class = _transformers_class(family.text)
                try:
                    config = text_class.config_class.from_pretrained(folder)
                except (OSError, ValueError, TypeError) as error:
                    raise MedSAEError(f"config.json in {folder} makes no text tower: {error}") from None
                pretrained_model(card.name, text_class, folder, None, config=config, **dry)

    def new_text_tower(self, card: EncoderCard) -> TextTower:
        text_class = _transformers_class(FAMILIES[card.family].text)
        return TransformersTextTower(text_class(text_class.config_class(**(card.text or {}).get("config", {}))))

    def text_from(self, card: EncoderCard, files: Sequence[Path]) -> TextTower:
        (folder,) = files
        text_class = _transformers_class(FAMILIES[card.family].text)
        return TransformersTextTower(pretrained_model(card.name, text_class, folder, folder, card.pooling is None))


class _Module(Layout):
    """A module that is given in Python."""

    def load(self, source: Source) -> Parts:
        raise MedSAEError(
            f"card {source.card.name} describes a module that is given in Python: "
            "HookedVisionEncoder.from_module(module, card)"
        )

    def shapes(self, source: Source) -> tuple[Parts, str]:
        raise MedSAEError(
            f"card {source.card.name} describes a module that is given in Python, so its shapes are not known"
        )


LAYOUTS: dict[str, Layout] = {
    # An official MedCLIP checkpoint: a zip, or the file in it.
    "medclip": Layout(
        named_by=("url",),
        towers=key_rules.medclip_towers,
        projects=True,
        text_tower=MedCLIPTextTower,
        needs=("projection_dim", TEXT_CONFIG),
    ),
    "medsae": _Saved(towers=key_rules.saved_towers, projects=True, text_tower=MedCLIPTextTower),
    "transformers": _Transformers(has_config=True),
    # A timm ViT and a BERT, as BiomedCLIP has them.
    "open_clip": Layout(
        files=("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        towers=key_rules.open_clip_towers,
        projects=True,
        text_tower=OpenClipTextTower,
        needs=("projection_dim", "text", "pooling: cls", TEXT_CONFIG),
    ),
    # Of the checkpoint's shards only those that hold the vision tower are fetched.
    "gemma3": Layout(wanted=key_rules.GEMMA3_KEYS.match, towers=key_rules.gemma3_towers, has_config=True),
    "torchxrayvision": Layout(named_by=("path", "url"), files=_ONE_FILE, towers=key_rules.torchxrayvision_towers),
    "module": _Module(named_by=()),
}


def layout_of(card: EncoderCard) -> Layout:
    """The layout that a card's source names."""
    return LAYOUTS[card.source["format"]]


def load_parts(source: Source, tokenizer: str | Path | None = None) -> Parts:
    """An encoder's parts, with the weights of a source; see `HookedVisionEncoder.from_pretrained`."""
    card = source.card
    if tokenizer is not None and not card.text:
        raise MedSAEError(f"card {card.name} has no text tower, and takes no tokenizer")
    if tokenizer is not None and not Path(tokenizer).expanduser().exists():
        raise MedSAEError(f"there is no tokenizer at {tokenizer}")
    parts = layout_of(card).load(source)
    if tokenizer is None:
        return parts
    pads = FAMILIES[card.family].pads_text
    given = CardTokenizer(card, Path(tokenizer).expanduser(), pads=pads, given=True)
    return dataclasses.replace(parts, tokenizer=given)


def _loaded_text_tower(card: EncoderCard, files: Sequence[Path]) -> TextTower:
    # By the layout's name, so that what an encoder holds until its text tower is asked for can be pickled.
    return layout_of(card).text_from(card, files)


def _transformers_class(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def _scalar(files: Sequence[Path], key: str) -> float | None:
    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                if key in tensors.keys():  # noqa: SIM118
                    return float(tensors.get_tensor(key))
        elif key in (state := read_checkpoint(file)):
            return float(state[key])
    return None
