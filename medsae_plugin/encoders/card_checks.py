"""What may stand in a card, as pydantic models; `CheckedCard` says every problem with its line."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, field_validator, model_validator

from medsae_plugin.encoders.families import FAMILIES
from medsae_plugin.encoders.layouts import LAYOUTS, TEXT_CONFIG
from medsae_plugin.yaml_files import STRICT, CheckedYAML, Problem, Problems

Fit = Literal["pad", "crop", "stretch"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
FITS, RESAMPLES = get_args(Fit), get_args(Resample)
Pixels = Annotated[int, Field(gt=0)]
_HOOK_NAME = re.compile(r"((blocks|stages|layers)\.(\{\}|\d+)\.)*hook_\w+")


class _Part(BaseModel):
    model_config = STRICT


class Source(_Part):
    """Where the weights are."""

    format: str
    path: str | None = None
    url: str | None = None
    sha256: str | None = None
    revision: str | None = None

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in LAYOUTS:
            raise Problem(f"source: format is not one of {', '.join(LAYOUTS)}")
        return value

    @field_validator("sha256")
    @classmethod
    def _digits(cls, value: str | None) -> str | None:
        if value and not re.fullmatch(r"[0-9a-f]{64}", value):
            raise Problem("source: sha256 is 64 digits 0-9a-f")
        return value

    @model_validator(mode="after")
    def _named(self) -> Source:
        places = LAYOUTS[self.format].named_by
        if places and not any(getattr(self, place) for place in places):
            raise Problem(f"source lacks {' or '.join(places)}")
        for place in ("path", "url"):
            if place not in places and getattr(self, place) is not None:
                raise Problem(f"source: a source of format {self.format} has no {place}", place)
        return self


class Preprocessing(_Part):
    """From an image to pixel values."""

    mode: Literal["L", "RGB"]
    size: Any
    fit: Fit
    resample: Resample
    mean: Any
    std: Any
    resize: int | None = None
    truncate: bool = False

    @field_validator("mode", "fit", "resample", mode="before")
    @classmethod
    def _one_of(cls, value: Any, info: Any) -> Any:
        known = get_args(cls.model_fields[info.field_name].annotation)
        if value not in known:
            listed = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"
            raise Problem(f"preprocessing: {info.field_name} {value!r} is not {listed}"
                          if info.field_name == "resample" else
                          f"preprocessing: {info.field_name} is {listed}, not {value!r}")  # fmt: skip
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Preprocessing:
        if found := [*self._size_problems(), *self._statistics_problems("mean"), *self._statistics_problems("std")]:
            raise Problems(found)
        return self

    def _size_problems(self) -> list[Problem]:
        sides = self.size if isinstance(self.size, list) and len(self.size) == 2 else [self.size]
        if not all(_is(side, int) and side > 0 for side in sides):
            return [Problem("preprocessing: size is a count of pixels, or two: rows and columns", "size")]
        if self.truncate and self.fit != "stretch":
            return [Problem("preprocessing: truncate is for fit: stretch", "truncate")]
        if self.resize is None:
            return []
        if self.fit != "crop":
            return [Problem("preprocessing: resize is for fit: crop", "resize")]
        if self.resize < max(sides):
            return [Problem("preprocessing: resize is a count of pixels, not less than size", "resize")]
        return []

    def _statistics_problems(self, key: str) -> list[Problem]:
        values, channels = getattr(self, key), 1 if self.mode == "L" else 3
        if not (isinstance(values, list) and all(_is(v, int | float) and abs(v) < 1e6 for v in values)):
            return [Problem(f"preprocessing: {key} is a list of one number, or of three", key)]
        if len(values) not in (1, channels):
            more = ", or of three" if channels == 3 else " in mode L"
            return [Problem(f"preprocessing: {key} is a list of one number{more}", key)]
        if key == "std" and any(v <= 0 for v in values):
            return [Problem("preprocessing: std is above zero", key)]
        return []


class Text(_Part):
    """The text tower's config and tokenizer."""

    config: dict[str, Any] | None = None
    max_tokens: int | None = None
    tokenizer: str | None = None
    revision: str | None = None


class HookRow(_Part):
    """A hook point beyond the family's, at a module's path."""

    name: str
    path: Annotated[str, Field(min_length=1)]
    side: Literal["input", "output"] = "output"
    layout: Literal["tokens", "map"] = "tokens"
    first: int = 0

    @field_validator("name")
    @classmethod
    def _like_a_hook(cls, value: str) -> str:
        if not _HOOK_NAME.fullmatch(value):
            raise Problem(f"a name is like hook_embed or blocks.{{}}.hook_resid_post, not {value!r}")
        return value

    @model_validator(mode="after")
    def _counts_alike(self) -> HookRow:
        if self.name.count("{}") != self.path.count("{}"):
            raise Problem("name and path have different counts of {}", "path")
        return self


class Outputs(_Part):
    """What gives a probabilistic encoder's embedding."""

    mean: str
    logvar: str


class Card(_Part):
    """All that a card may say; see `EncoderCard`."""

    name: str
    description: str
    licence: str
    family: str
    source: Source
    preprocessing: Preprocessing
    vision: dict[str, Any] | None = None
    projection_dim: int | None = None
    text: Text | None = None
    prefix_tokens: Annotated[int, Field(ge=0)] | None = None
    pooling: str | None = None
    hooks: list[HookRow] | None = None
    outputs: Outputs | None = None
    prompts: str | None = None
    access: str | None = None
    trained_on: list[Annotated[str, Field(min_length=1)]] | None = None

    @field_validator("family")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in FAMILIES:
            raise Problem(f"family {value!r} is not one of {', '.join(FAMILIES)}")
        return value

    @field_validator("pooling")
    @classmethod
    def _a_pooling(cls, value: str | None) -> str | None:
        if value not in (None, "cls", "mean"):
            raise Problem("pooling is cls or mean")
        return value

    @model_validator(mode="after")
    def _fits_its_source(self) -> Card:
        if found := [*self._lacking(), *self._text_problems()]:
            raise Problems(found)
        return self

    def _lacking(self) -> list[Problem]:
        found, of = [], self.source.format
        if self.family == "custom" and not self.hooks:
            found.append(Problem("family custom needs hooks: a list of names and module paths"))
        for need in LAYOUTS[of].needs:
            name, _, value = need.partition(": ")
            said = getattr(self, name, None)
            if name in Card.model_fields and (said is None or (value and said != value)):
                found.append(Problem(f"a source of format {of} needs {need}", "source"))
        return found

    def _text_problems(self) -> list[Problem]:
        if self.text is None:
            return []
        layout = LAYOUTS[self.source.format]
        if TEXT_CONFIG in layout.needs and self.text.config is None:
            return [Problem(f"text lacks config, which a source of format {self.source.format} needs", "text")]
        if layout.text_tower is None and not FAMILIES[self.family].text:
            return [Problem(f"text: family {self.family} has no text tower; leave it out", "text")]
        return []


class CheckedCard(CheckedYAML):
    """A card's `content`, and its `problems`: `where:line: what is wrong`, in the order of their lines."""

    content: dict[str, Any]

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text, where)
        if isinstance(self.content, dict):  # a field that is left empty is not there
            self.content = {key: value for key, value in self.content.items() if value is not None}
        self.as_(Card)


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
