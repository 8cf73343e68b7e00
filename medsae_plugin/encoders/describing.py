"""An encoder's hook points without its weights, and what is wrong with a card."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medsae_plugin.encoders.card import EncoderCard
from medsae_plugin.encoders.cards import load_card, read_card
from medsae_plugin.encoders.families import HookRow, hook_places
from medsae_plugin.encoders.hooked import HookedVisionEncoder
from medsae_plugin.encoders.layouts import layout_of
from medsae_plugin.encoders.measuring import CannotRun, HookSpec
from medsae_plugin.encoders.sources import Source, is_local
from medsae_plugin.errors import MedSAEError


def describe_encoder(name_or_card_path: str | Path) -> tuple[dict[str, HookSpec], str]:
    """An encoder's hook points, in the order of the forward pass, and where its shapes were read.

    No weights are read: the model is built on torch's meta device, from the `config.json` of a local source, else from
    the card's `vision`, else from the `config.json` on the Hub, the one file that is then fetched.

    Raises:
        MedSAEError: no such card, a card that is wrong, or shapes that cannot be had.
    """
    encoder, origin = _without_weights(load_card(name_or_card_path))
    return encoder.hook_specs, origin


def check_card(path: str | Path) -> tuple[list[str], str]:
    """What is wrong with a card, a line each (`card:line: problem`), and what was checked.

    First the card's fields; if they are right, its hook points on a model of its shapes, as `describe_encoder` has it;
    then the keys and shapes of its weights, where they are in a folder here.

    Raises:
        MedSAEError: no such card.
    """
    checked, folder = read_card(path)
    if checked.problems:
        return checked.problems, "its fields"
    card = EncoderCard(**checked.content, folder=folder)
    place = card.source.get("path", "")
    if card.source_path is None and (is_local(place) or card.source["format"] == "medsae"):
        checked.add(("source", "path"), f"source: there is nothing at {place}")
    try:
        card.own_prompts()
    except MedSAEError as error:
        checked.add(("prompts",), f"prompts: {error}")
    if checked.problems or card.source["format"] == "module":
        return checked.problems, "its fields"
    bare = dataclasses.replace(card, prefix_tokens=None, hooks=[], outputs=None)
    try:
        encoder, origin = _without_weights(bare)
    except CannotRun as error:
        checked.add(("preprocessing", "size"), str(error))
        return checked.problems, "its fields"
    except MedSAEError as error:
        if card.source_path is None and not card.vision:  # the Hub was asked, and it is not the card that is wrong
            return [], f"its fields; not its hook points: {error}"
        checked.add(("vision",), str(error))
        return checked.problems, "its fields"
    for i, row in enumerate(card.hooks):
        for problem in _row_problems(row, encoder.vision_model):
            checked.add(("hooks", i, "path"), f"hooks, entry {i + 1}: {problem}")
    for name in ("prefix_tokens", "hooks", "outputs"):  # one more at a time, so that the one to blame is known
        if checked.problems or not getattr(card, name):
            continue
        bare = dataclasses.replace(bare, **{name: getattr(card, name)})
        try:
            encoder, _ = _without_weights(bare)
        except MedSAEError as error:
            checked.add(_place_of(str(error), card) if name == "hooks" else (name,), str(error))
    what = f"its fields, and its {len(encoder.hook_specs)} hook points on the shapes of {origin}"
    if checked.problems:
        return checked.problems, what
    if card.source_path is None:
        return [], f"{what}; not its weights, which are not here"
    try:
        layout_of(card).check(Source(card))
    except MedSAEError as error:
        checked.add(("source", "path"), f"source: {error}")
    return checked.problems, f"{what.replace(', and', ',')}, and its weights' keys and shapes"


def _place_of(problem: str, card: EncoderCard) -> tuple[Any, ...]:
    """The place in the card of the hook point that a problem starts with."""
    for i, row in enumerate(card.hooks):
        if re.match(re.escape(row["name"]).replace(r"\{\}", r"\d+") + r"\b", problem):
            return ("hooks", i)
    return ("hooks",)


def _row_problems(row: dict[str, Any], model: nn.Module) -> Iterator[str]:
    try:
        names = [place.name for place, _ in hook_places([HookRow(**row)], model)]
    except MedSAEError as error:
        yield str(error)
        return
    if len(set(names)) < len(names):
        yield f"several modules fit the path, and would all be {names[0]}"


def _without_weights(card: EncoderCard) -> tuple[HookedVisionEncoder, str]:
    """An encoder on the meta device; with random weights, if its model cannot run there."""
    try:
        with torch.device("meta"):
            return _build(card)
    except CannotRun:
        return _build(card)


def _build(card: EncoderCard) -> tuple[HookedVisionEncoder, str]:
    parts, origin = layout_of(card).shapes(Source(card))
    return HookedVisionEncoder(**vars(parts)), origin
