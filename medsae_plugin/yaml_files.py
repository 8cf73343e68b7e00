"""Files that people write: YAML, checked against a type by pydantic, every problem as `file:line: what is wrong`.

The types are pydantic models or dataclasses with `__pydantic_config__ = STRICT`: unknown fields are refused, and
nothing is turned into another kind. A check of their own raises ValueError; `Problem` names the field that it is about.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from medsae_plugin.errors import MedSAEError

T = TypeVar("T")
Place = tuple[Any, ...]  # keys and indices, from the root
STRICT = ConfigDict(extra="forbid", strict=True)

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_KINDS = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "a table of fields",
    "model": "a table of fields",
    "dataclass": "a table of fields",
}


class Problem(ValueError):
    """What is wrong with a field of the thing that is being checked: `at` leads from the thing to the field."""

    def __init__(self, what: str, *at: Any) -> None:
        super().__init__(what)
        self.at = at


class FieldError(Problem, MedSAEError):
    """A problem of a dataclass that people make in Python as well."""


class Problems(ValueError):
    """Several of them."""

    def __init__(self, found: Iterable[Problem]) -> None:
        self.found = list(found)
        super().__init__("; ".join(map(str, self.found)))


class CheckedYAML:
    """A YAML text: its `content`, and its `problems`, each `where:line: what`, in the order of their lines.

    Whoever changes the content before it is checked sets `origin`: from a place in it to that in the text.
    """

    def __init__(self, text: str, where: str) -> None:
        self.where, self.content = where, None
        self.origin: Callable[[Place], Place] = lambda place: place
        self._lines: dict[Place, int] = {(): 1}
        self._found: list[tuple[int, str]] = []
        try:
            self.content = yaml.safe_load(text)  # first, since it refuses keys that are not plain
            self._note_lines(yaml.compose(text, Loader=yaml.SafeLoader), ())
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            self._found.append((mark.line + 1 if mark else 1, f"not YAML: {getattr(error, 'problem', None) or error}"))

    @property
    def problems(self) -> list[str]:
        return [f"{self.where}:{line}: {problem}" for line, problem in sorted(set(self._found))]

    def add(self, place: Place, problem: str) -> None:
        """Note a problem at the line of `place`, or of the nearest thing above it that has one."""
        while place not in self._lines:
            place = place[:-1]
        self._found.append((self._lines[place], problem))

    def as_(self, kind: type[T] | GenericAlias) -> T | None:
        """The content as this type; None where it is not, with the problems noted."""
        if self._found:
            return None
        try:
            # By way of JSON, which a strict type takes tables and lists from.
            adapter: TypeAdapter[T] = TypeAdapter(kind)  # type: ignore[arg-type]
            return adapter.validate_json(json.dumps(self.content, default=str))
        except ValidationError as error:
            found = _once_a_number(error.errors(include_url=False))
            meant = {(*e["loc"][:-1], near) for e in found if (near := _meant(e, kind))}
            for one in found:
                if one["type"] != "missing" or one["loc"] not in meant:
                    self._note(one, kind)
            return None

    def raise_problems(self) -> None:
        """Raise a MedSAEError of all problems, if there are any."""
        if self._found:
            raise MedSAEError("\n".join(self.problems))

    def _note(self, error: Any, kind: Any) -> None:
        place, cause = self.origin(tuple(error["loc"])), error.get("ctx", {}).get("error")
        if isinstance(cause, Problems):
            for problem in cause.found:
                self.add((*place, *problem.at), str(problem))
        elif isinstance(cause, Problem):
            self.add((*place, *cause.at), str(cause))
        else:
            self.add(*_in_words(place, error, kind))

    def _note_lines(self, node: yaml.Node | None, place: Place) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*place, key.value)
                if inner in self._lines:
                    self._found.append((key.start_mark.line + 1, f"{key.value} is given twice"))
                self._lines[inner] = key.start_mark.line + 1
                self._note_lines(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                self._lines[(*place, i)] = value.start_mark.line + 1
                self._note_lines(value, (*place, i))


def read_yaml(path: str | Path, kind: type[T] | GenericAlias, what: str = "file") -> T:
    """The content of a YAML file as this type.

    Args:
        what: what should be there, for the message when nothing is.

    Raises:
        MedSAEError: no such file, no YAML, or every problem with what it says, line by line.
    """
    return parse_yaml(yaml_text(path, what), kind, str(path))


def parse_yaml(text: str, kind: type[T] | GenericAlias, where: str) -> T:
    """The content of a YAML text as this type; `where` begins every message. Raises as `read_yaml`."""
    checked = CheckedYAML(text, where)
    content = checked.as_(kind)
    checked.raise_problems()
    assert content is not None
    return content


def yaml_text(path: str | Path, what: str = "file") -> str:
    """The text of a file that people write.

    Raises:
        MedSAEError: there is no such file, or it is not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise MedSAEError(f"there is no {what} at {path}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MedSAEError(f"{path} is not YAML: it is not UTF-8 ({error})") from None


def problem_with(value: Any, kind: Any, name: str) -> str | None:
    """What is wrong with a value that should be of a type; None if nothing is. `name` is what to call it."""
    try:
        TypeAdapter(kind, config=ConfigDict(strict=True)).validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        return _in_words((name,), _once_a_number(error.errors(include_url=False))[0], kind)[1]
    return None


def _once_a_number(errors: list[Any]) -> list[Any]:
    """Without the pair of problems that pydantic has with what is neither an int nor a float."""
    places = {e["loc"] for e in errors}
    pairs = {loc[:-1] for loc in places if loc[-1:] == ("int",) and (*loc[:-1], "float") in places}
    kept = [e for e in errors if not (e["loc"][:-1] in pairs and e["loc"][-1] == "int")]
    return [{**e, "loc": e["loc"][:-1]} if e["loc"][:-1] in pairs and e["loc"][-1:] == ("float",) else e for e in kept]


def _meant(error: Any, kind: Any) -> str | None:
    """The field that an unknown one is a misspelling of; None for any other problem."""
    if error["type"] not in _UNKNOWN:
        return None
    place = tuple(error["loc"])
    return next(iter(difflib.get_close_matches(str(place[-1]), _fields_at(kind, place[:-1]), n=1)), None)


def _in_words(place: Place, error: Any, kind: Any) -> tuple[Place, str]:
    """Where to say a problem that pydantic found, and how."""
    name, given, of = _dotted(place), error["input"], error["type"]
    if of == "missing":
        return place[:-1], f"{_dotted(place[:-1]) or 'it'} lacks {place[-1]}"
    if of in _UNKNOWN:
        near = _meant(error, kind)
        hint = f"do you mean {near}?" if near else f"known are {', '.join(_fields_at(kind, place[:-1]))}"
        where = f"{_dotted(place[:-1])}: " if place[:-1] else ""
        return place, f"{where}unknown field {place[-1]}; {hint}"
    if of == "literal_error":
        return place, f"{name} is {given!r}, not one of {error['ctx']['expected'].replace(chr(39), '')}"
    if (wanted := _KINDS.get(re.sub("_(type|parsing|from_float)$", "", of))) is not None:
        hint = _how_to_write(given, wanted) if wanted in (_KINDS["int"], _KINDS["float"]) else ""
        return place, f"{name or 'it'} is {given!r}, should be {wanted}{hint}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return place, message if of == "value_error" else f"{name}: {message[:1].lower()}{message[1:]}"


def _dotted(place: Place) -> str:
    """A place as people say it: `saes, entry 2, options`."""
    return ", ".join(f"entry {part + 1}" if isinstance(part, int) else str(part) for part in place)


def _how_to_write(given: Any, wanted: str) -> str:
    """How to write a number that YAML 1.1 takes for text (1e-3) or for a fraction (1.0e+6)."""
    try:
        number = float(given) if isinstance(given, str | float) else math.nan
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    if wanted == _KINDS["int"]:
        return f" (write {int(number)})" if number.is_integer() else ""
    mantissa, _, exponent = str(given).lower().partition("e")
    point = "" if "." in mantissa else ".0"
    sign = "" if exponent[:1] in ("", "-", "+") else "+"
    return f" (write {mantissa}{point}{exponent and 'e'}{sign}{exponent}, with a point, for YAML)"


def _fields_at(kind: Any, place: Place) -> list[str]:
    """The fields that a type has at a place."""
    for part in place:
        arguments = [a for a in get_args(kind) if a is not type(None)]
        if isinstance(part, int) or get_origin(kind) in (dict, Mapping):
            kind = arguments[-1] if arguments else Any
        else:
            owner = next((a for a in (kind, *arguments) if part in _hints(a)), None)
            kind = _hints(owner).get(part, Any)
    return [name for a in (kind, *get_args(kind)) for name in _hints(a)]


def _hints(kind: Any) -> dict[str, Any]:
    is_model = hasattr(kind, "model_fields") or hasattr(kind, "__dataclass_fields__")
    if not is_model:
        return {}
    return {k: v for k, v in get_type_hints(kind).items() if not k.startswith("_") and k != "model_config"}
