"""What a model may answer, as pydantic schemas, and the strict rules by which an untidy answer is read."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

# One line of text that begins with a letter or digit, so that no spreadsheet takes a name for a formula.
_ONE_LINE = r"^[^\W_][^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"


class Answer(BaseModel):
    """An answer: these fields, of exactly these types. What else a model adds is left aside; see `read`."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class LatentName(Answer):
    """A name of a latent: the concept in a few words, and what is seen where it fires."""

    concept: Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=80, pattern=_ONE_LINE)]
    description: Annotated[
        str, StringConstraints(strip_whitespace=True, max_length=600, pattern=rf"(?:^$)|(?:{_ONE_LINE})")
    ] = ""


class Fits(Answer):
    """Whether one image fits a name."""

    fits: bool


class Fitting(Answer):
    """The numbers of the images, from 1, that fit a name."""

    fitting: list[Annotated[int, Field(ge=1)]]

    @field_validator("fitting")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError("a number comes twice")
        return value


class Unparsable(Exception):
    """An answer that no rule turns into the schema; the message says why, in words that a model can be told."""


A = TypeVar("A", bound=Answer)

_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


def parse(text: str, schema: type[A]) -> A:
    """The answer in `text`; see `read`."""
    return read(text, schema)[0]


def read(text: str, schema: type[A]) -> tuple[A, tuple[str, ...]]:
    """The answer in `text`, and the fields in it that were not asked for, which are left aside.

    The rules, nothing else: text may stand before or after the one JSON object, with or without one code fence round
    it; an answer that was cut off in its object is closed after its last whole field, if the fields that it has by then
    make the schema. Two objects are one too many, whatever they say. Nothing in the text is ever evaluated or obeyed.

    Raises:
        Unparsable: the answer is not of this form.
    """
    fenced = _FENCE.findall(text)
    if len(fenced) > 1:
        raise Unparsable("the answer has more than one block of code; give one JSON object")
    found = _objects(fenced[0] if fenced else text)
    if len(found) > 1:
        raise Unparsable("the answer has more than one JSON object; give one")
    if not found:
        raise Unparsable("the answer has no JSON object")
    try:
        return schema.model_validate(found[0]), tuple(key for key in found[0] if key not in schema.model_fields)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'the object'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise Unparsable(f"the JSON object is not as asked: {problems}") from None


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a text, one after another; the last one closed where the text was cut."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    found: list[dict[str, Any]] = []
    start = text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            cut = _closed(text[start:], decoder)
            return [*found, cut] if cut is not None else found
        found.append(value)
        start = text.find("{", end)
    return found


def _closed(text: str, decoder: json.JSONDecoder) -> dict[str, Any] | None:
    """An object that ends before its brace, closed after its last whole field; None where it has none or is malformed.

    A field is whole once a comma follows it: a list or a text that was cut is never taken for a whole one.
    """
    place, fields = 1, []
    while True:
        match = re.compile(r'\s*("(?:[^"\\\x00-\x1f]|\\.)*")\s*:\s*').match(text, place)
        if match is None:
            break
        try:
            value, end = decoder.raw_decode(text, match.end())
        except (json.JSONDecodeError, RecursionError):
            break
        comma = re.compile(r"\s*,").match(text, end)
        if comma is None:
            # Nothing but the closing brace is missing; a bare number might have gone on.
            if not text[end:].strip() and isinstance(value, str | bool | list):
                fields.append((json.loads(match[1]), value))
                return _unique(fields)
            break
        fields.append((json.loads(match[1]), value))
        place = comma.end()
    # What is left must be the field that was cut, not something else that stands there.
    rest = text[place:].lstrip()
    return _unique(fields) if fields and (not rest or (rest.startswith('"') and "}" not in rest)) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise Unparsable("a field of the JSON object comes twice")
    return dict(pairs)
