"""Recipes of a sweep: specs with lists, which stand for every combination."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from medsae_plugin.training.recipes import SWEEPS, Recipe, RecipeFile, recipe_file
from medsae_plugin.yaml_files import CheckedYAML, yaml_text


def load_grid(path: str | Path) -> Recipe:
    """Read a recipe of `medsae train` in which any field of an SAE but its name, and any option, may be a list.

    Each list is a choice, and each entry of `saes` stands for every combination of its choices. An option that is a
    list itself, such as `matryoshka_widths`, is written as a choice of one: `[[128, 512]]`. An SAE is named after what
    its entry gives as name, if anything, and after what is chosen: `embedding-k8-seed1`.

    Raises:
        MedSAEError: as `load_recipe`; an empty list; two SAEs of one name.
    """
    file = recipe_file(path, SWEEPS)
    checked = CheckedYAML(yaml_text(file, "recipe"), str(file))
    content, entry_of = checked.content, []
    if isinstance(content, dict) and isinstance(content.get("saes"), list):
        made = [(k, sae) for k, entry in enumerate(content["saes"]) for sae in _expand(entry, k, checked)]
        content["saes"], entry_of = [sae for _, sae in made], [k for k, _ in made]
        # A problem is said of the entry that an SAE was made of.
        checked.origin = lambda at: (at[0], entry_of[at[1]], *at[2:]) if at[:1] == ("saes",) and at[1:] else at
    read = checked.as_(RecipeFile)
    names = [spec.name for spec in read.saes] if read else []
    for k, name in enumerate(names):
        if name in names[:k]:
            checked.add(("saes", entry_of[k]), f"several SAEs have the name {name}; give their entries names")
    checked.raise_problems()
    assert read is not None
    return read.recipe


def _expand(entry: Any, k: int, checked: CheckedYAML) -> list[Any]:
    """Every combination of an entry's choices; what is not made as an entry is left for the check to refuse."""
    if not isinstance(entry, dict):
        return [entry]
    options = entry.get("options")
    flat = {("", key): value for key, value in entry.items() if key not in ("name", "options")}
    flat |= {("options", key): value for key, value in options.items()} if isinstance(options, dict) else {}
    choices = {key: value for key, value in flat.items() if isinstance(value, list)}
    for part, key in [at for at, value in choices.items() if not value]:
        checked.add(("saes", k, *filter(None, (part,)), key), f"{key} is a list without choices")
    made = []
    for picked in itertools.product(*choices.values()):
        chosen = dict(zip(choices, picked, strict=True))
        at = flat | chosen
        sae = {key: value for (part, key), value in at.items() if not part}
        if "options" in entry:
            picked_options = {key: value for (part, key), value in at.items() if part}
            sae["options"] = picked_options if isinstance(options, dict) else options
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
