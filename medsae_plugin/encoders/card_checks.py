"""What may stand in a card, and what is wrong with one: every problem, each with its line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

import yaml

# Where each source format's weights are named.
SOURCES: dict[str, tuple[str, ...]] = {
    "medclip": ("url",),
    "medsae": ("path",),
    "transformers": ("path",),
    "open_clip": ("path",),
    "gemma3": ("path",),
    "torchxrayvision": ("path", "url"),
    "module": (),
}
FITS = ("pad", "crop", "stretch")
RESAMPLES = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
_REQUIRED = {"name": str, "description": str, "licence": str, "family": str, "source": dict, "preprocessing": dict}
_OPTIONAL = {
    "vision": dict,
    "projection_dim": int,
    "text": dict,
    "prefix_tokens": int,
    "pooling": str,
    "hooks": list,
    "outputs": dict,
    "access": str,
}
_KINDS: dict[Any, str] = {str: "text", dict: "a table of fields", int: "a whole number", list: "a list"}
_PREPROCESSING = {"mode", "size", "fit", "resample", "mean", "std"}
_ROW = {"name", "path", "side", "layout", "first"}
_HOOK_NAME = re.compile(r"((blocks|stages|layers)\.(\{\}|\d+)\.)*hook_\w+")
_TEXT = {"config", "max_tokens", "tokenizer", "revision"}
_NEEDS_SHAPES = ("medclip", "open_clip")
_BERT = ("medclip", "medsae", "open_clip")  # formats whose text tower is a BERT of the card's config

Path = tuple[Any, ...]  # of keys and indices, from the card's root


class CheckedCard:
    """A card's `content`, and its `problems`: `where:line: what is wrong`, in the order of their lines."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self.content: dict[str, Any] = {}
        self._lines: dict[Path, int] = {(): 1}
        self._found: list[tuple[int, str]] = []
        try:
            content = yaml.safe_load(text)  # first, since it refuses keys that are not plain
            self._note_lines(yaml.compose(text, Loader=yaml.SafeLoader), ())
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            self._found.append((mark.line + 1 if mark else 1, f"not YAML: {getattr(error, 'problem', error)}"))
            return
        if not isinstance(content, dict):
            self._found.append((1, "not a card: it holds no fields"))
            return
        self.content = {key: value for key, value in content.items() if value is not None}
        self._check()

    @property
    def problems(self) -> list[str]:
        return [f"{self.where}:{line}: {problem}" for line, problem in sorted(self._found)]

    def add(self, path: Path, problem: str) -> None:
        """Note a problem at the line of `path`, or of the nearest thing above it that has one."""
        while path not in self._lines:
            path = path[:-1]
        self._found.append((self._lines[path], problem))

    def _note_lines(self, node: yaml.Node | None, path: Path) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*path, key.value)
                if inner in self._lines:
                    self._found.append((key.start_mark.line + 1, f"{key.value} is given twice"))
                self._lines[inner] = key.start_mark.line + 1
                self._note_lines(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                self._lines[(*path, i)] = value.start_mark.line + 1
                self._note_lines(value, (*path, i))

    def _check(self) -> None:
        self._check_fields((), self.content, _REQUIRED, _OPTIONAL)
        for key, kind in (_REQUIRED | _OPTIONAL).items():
            if key in self.content and not _is(self.content[key], kind):
                self.add((key,), f"{key} should be {_KINDS[kind]}")
                del self.content[key]
        self._check_family()
        if "source" in self.content:
            self._check_source(self.content["source"])
        if "preprocessing" in self.content:
            self._check_preprocessing(self.content["preprocessing"])
        if "text" in self.content:
            self._check_text(self.content["text"])
        if "outputs" in self.content:
            self._check_fields(("outputs",), self.content["outputs"], ("mean", "logvar"), ())
        if self.content.get("pooling", "cls") not in ("cls", "mean"):
            self.add(("pooling",), "pooling is cls or mean")
        if self.content.get("prefix_tokens", 0) < 0:
            self.add(("prefix_tokens",), "prefix_tokens is a count")
        for i, row in enumerate(self.content.get("hooks", [])):
            self._check_row(("hooks", i), row)

    def _check_fields(self, path: Path, value: Any, required: Collection[str], optional: Collection[str]) -> bool:
        where, known = "".join(f"{_dotted(path)} " for _ in path[:1]), sorted({*required, *optional})
        if not isinstance(value, dict):
            self.add(path, f"{where}should hold the fields {', '.join(known)}")
            return False
        missing = set(required) - value.keys()
        for key in sorted(map(str, value.keys() - set(known))):
            near = difflib.get_close_matches(key, known, n=1)
            missing -= set(near)
            hint = f"do you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            self.add((*path, key), f"{where}has unknown fields {key}; {hint}")
        if missing:
            self.add(path, f"{where}lacks {', '.join(sorted(missing))}")
        return not set(required) - value.keys()

    def _check_family(self) -> None:
        from medsae_plugin.encoders.families import FAMILIES

        family = self.content.get("family")
        if family is not None and family not in FAMILIES:
            self.add(("family",), f"family {family!r} is not one of {', '.join(FAMILIES)}")
        if family == "custom" and not self.content.get("hooks"):
            self.add((), "family custom needs hooks: a list of names and module paths")

    def _check_source(self, source: Mapping[str, Any]) -> None:
        if not isinstance(source.get("format"), str) or source["format"] not in SOURCES:
            self.add(("source", "format"), f"source: format is not one of {', '.join(SOURCES)}")
            return
        places = SOURCES[source["format"]]
        if places and not any(source.get(place) for place in places):
            self.add(("source",), f"source lacks {' or '.join(places)}")
        self._check_fields(("source",), source, ("format",), (*places, "sha256", "revision"))
        for key in places:
            if key in source and not isinstance(source[key], str):
                self.add(("source", key), f"source: {key} should be text")
        if source["format"] in _NEEDS_SHAPES and "projection_dim" not in self.content:
            self.add(("source",), f"a source of format {source['format']} needs projection_dim")
        if source["format"] == "open_clip" and "text" not in self.content:
            self.add(("source",), "a source of format open_clip needs text")
        if source["format"] == "open_clip" and self.content.get("pooling") != "cls":
            self.add(("source",), "a source of format open_clip needs pooling: cls")
        if source.get("sha256") and not re.fullmatch(r"[0-9a-f]{64}", str(source["sha256"])):
            self.add(("source", "sha256"), "source: sha256 is 64 digits 0-9a-f")

    def _check_text(self, text: Mapping[str, Any]) -> None:
        from medsae_plugin.encoders.families import FAMILIES

        self._check_fields(("text",), text, (), _TEXT)
        for key, kind in (("config", dict), ("max_tokens", int), ("tokenizer", str), ("revision", str)):
            if text.get(key) is not None and not _is(text[key], kind):
                self.add(("text", key), f"text: {key} should be {_KINDS[kind]}")
        source_format, family = self.content.get("source", {}).get("format"), self.content.get("family")
        if source_format in _BERT:
            if source_format != "medsae" and "config" not in text:
                self.add(("text",), f"text lacks config, which a source of format {source_format} needs")
        elif family in FAMILIES and not FAMILIES[family].text:
            self.add(("text",), f"text: family {family} has no text tower; leave it out")

    def _check_preprocessing(self, config: Mapping[str, Any]) -> None:
        if not self._check_fields(("preprocessing",), config, _PREPROCESSING, ("resize",)):
            return

        def add(key: str, problem: str) -> None:
            self.add(("preprocessing", key), f"preprocessing: {problem}")

        if config["mode"] not in ("L", "RGB"):
            add("mode", f"mode is L or RGB, not {config['mode']!r}")
        if config["fit"] not in FITS:
            add("fit", f"fit is one of {', '.join(FITS)}, not {config['fit']!r}")
        if config["resample"] not in RESAMPLES:
            add("resample", f"resample {config['resample']!r} is no filter of PIL's, such as bicubic")
        size = config["size"]
        sides = size if isinstance(size, list) and len(size) == 2 else [size]
        sizes_are_right = all(_is(side, int) and side > 0 for side in sides)
        if not sizes_are_right:
            add("size", "size is a count of pixels, or two: rows and columns")
        if "resize" in config and config["fit"] != "crop":
            add("resize", "resize is for fit: crop")
        elif "resize" in config and not (
            _is(config["resize"], int) and sizes_are_right and config["resize"] >= max(sides)
        ):
            add("resize", "resize is a count of pixels, not less than size")
        channels = 1 if config["mode"] == "L" else 3
        for key in ("mean", "std"):
            values = config[key]
            if not (isinstance(values, list) and all(_is(v, int | float) and abs(v) < 1e6 for v in values)):
                add(key, f"{key} is a list of one number, or of three")
            elif len(values) not in (1, channels):
                add(key, f"{key} is a list of one number{', or of three' if channels == 3 else ' in mode L'}")
            elif key == "std" and any(v <= 0 for v in values):
                add(key, "std is above zero")

    def _check_row(self, path: Path, row: Any) -> None:
        where = f"hooks, entry {path[-1] + 1}"
        if not isinstance(row, dict):
            self.add(path, f"{where} should hold the fields name and path")
            return
        if extra := sorted(map(str, row.keys() - _ROW)):
            self.add((*path, extra[0]), f"{where} has unknown fields {', '.join(extra)}")
        name, module = row.get("name"), row.get("path")
        if not isinstance(name, str) or not _HOOK_NAME.fullmatch(name):
            self.add(
                (*path, "name"), f"{where}: a name is like hook_embed or blocks.{{}}.hook_resid_post, not {name!r}"
            )
        elif not isinstance(module, str) or not module:
            self.add((*path, "path"), f"{where} lacks path")
        elif name.count("{}") != module.count("{}"):
            self.add((*path, "path"), f"{where}: name and path have different counts of {{}}")
        if row.get("side", "output") not in ("input", "output"):
            self.add((*path, "side"), f"{where}: side is input or output")
        if row.get("layout", "tokens") not in ("tokens", "map"):
            self.add(
                (*path, "layout"), f"{where}: layout is tokens (batch, position, d) or map (batch, d, rows, columns)"
            )
        if not _is(row.get("first", 0), int):
            self.add((*path, "first"), f"{where}: first is the number that the path's indices count from")


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
