"""Recipes of a sweep: specs with lists, which stand for every combination."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from medsae_plugin.errors import MedSAEError
from medsae_plugin.training.recipes import Recipe, parse_recipe, read_yaml


def load_grid(path: str | Path) -> Recipe:
    """Read a recipe of `medsae train` in which any field of an SAE but its name, and any option, may be a list.

    Each list is a choice, and each entry of `saes` stands for every combination of its choices. An option that is a
    list itself, such as `matryoshka_widths`, is written as a choice of one: `[[128, 512]]`. An SAE is named after what
    its entry gives as name, if anything, and after what is chosen: `embedding-k8-seed1`.

    Raises:
        MedSAEError: as `load_recipe`; an empty list; two SAEs of one name.
    """
    content = read_yaml(path)
    if isinstance(content, dict) and isinstance(content.get("saes"), list):
        entries = enumerate(content["saes"], start=1)
        content["saes"] = [sae for k, entry in entries for sae in _expand(entry, f"{path}, SAE {k}")]
    recipe = parse_recipe(content, str(path))
    names = [spec.name for spec in recipe.specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MedSAEError(f"{path}: several SAEs have the name {twice[0]}; give their entries names")
    return recipe


def _expand(entry: Any, where: str) -> list[Any]:
    """Every combination of an entry's choices; what is no mapping is left for `parse_recipe` to refuse."""
    if not isinstance(entry, dict):
        return [entry]
    options = entry.get("options", {})
    if not isinstance(options, dict):
        raise MedSAEError(f"{where}: options is {options!r}, should be a mapping, whose values may be lists")
    flat = {("", key): value for key, value in entry.items() if key not in ("name", "options")}
    flat |= {("options", key): value for key, value in options.items()}
    choices = {key: value for key, value in flat.items() if isinstance(value, list)}
    if empty := [key for (_, key), value in choices.items() if not value]:
        raise MedSAEError(f"{where}: {empty[0]} is a list without choices")
    made = []
    for picked in itertools.product(*choices.values()):
        chosen = dict(zip(choices, picked, strict=True))
        at = flat | chosen
        sae = {key: value for (part, key), value in at.items() if not part}
        if "options" in entry:
            sae["options"] = {key: value for (part, key), value in at.items() if part}
        made.append({"name": _name(entry, chosen), **sae})
    return made


def _name(entry: dict[str, Any], chosen: dict[tuple[str, str], Any]) -> str:
    parts = [str(entry["name"])] if "name" in entry else []
    for (_, key), value in chosen.items():
        parts.append(_word(key, value))
    return "-".join(parts) or _word("hook", entry.get("hook", "sae"))


def _word(key: str, value: Any) -> str:
    if key == "hook":
        return str(value).replace("hook_", "")
    if key in ("architecture", "normalize"):
        return str(value)
    text = "x".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{key}{text}"
