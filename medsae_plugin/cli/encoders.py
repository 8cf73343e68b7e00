"""`medsae encoders`: the cards, an encoder's hook points, and what is wrong with a card."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from medsae_plugin.cli.arguments import with_cards
from medsae_plugin.cli.commands import Commands
from medsae_plugin.errors import MedSAEError
from medsae_plugin.text import to_the_left

if TYPE_CHECKING:
    from medsae_plugin.encoders import EncoderCard, HookSpec


def add(commands: Commands) -> None:
    commands.add(
        "encoders",
        run,
        _arguments,
        help="list encoders, or show an encoder's hook points",
        description="Without NAME, the cards of the package. With NAME (a card's name or path), its hook points, from "
        "the model's shapes alone: no weights are read or fetched.",
    )
    commands.add(
        "encoders check",
        run_check,
        _check_arguments,
        help="what is wrong with an encoder card of your own",
        description="What is wrong with an encoder card, line by line; the exit status is 1 if anything is.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    with_cards(parser.add_argument("name", nargs="?", metavar="NAME", help="an encoder card's name or path"))


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("card", metavar="CARD", help="an encoder card's path, or its name in the package")


def run(args: argparse.Namespace) -> None:
    if args.name is None:
        _list()
    else:
        _show(args.name)


def run_check(args: argparse.Namespace) -> None:
    _check(args.card)


def _list() -> None:
    from medsae_plugin.encoders import list_cards, load_card

    cards = [load_card(name) for name in list_cards()]
    rows = [["encoder", "family", "pixels", "text", "access", ""]]
    for card in cards:
        text, access = "yes" if card.text else "no", "terms" if card.access else "open"
        rows.append([card.name, card.family, _size(card), text, access, card.description])
    print("\n".join(to_the_left(rows)))


def _show(name: str) -> None:
    from medsae_plugin.encoders import describe_encoder, load_card

    card = load_card(name)
    specs, origin = describe_encoder(name)
    print(f"{card.name}: {card.description}")
    print(f"licence: {card.licence}")
    if card.trained_on:
        print(f"trained on: {', '.join(card.trained_on)}")
    if card.access:
        print(f"access: {card.access}")
    source = {key: value for key, value in card.source.items() if value}
    print(f"source: {', '.join(f'{key} {value}' for key, value in source.items())}")
    print(f"images: {_size(card)} pixels, {card.preprocessing['mode']}, {card.preprocessing['fit']}")
    print(f"text tower: {'yes' if card.text else 'no'}")
    print(f"shapes: from {origin}; no weights were read\n")
    rows = [("hook point", "d", "grid", "prefix tokens"), *_rows(specs.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for hook, d, grid, prefix in rows:
        print(f"{hook.ljust(widths[0])}  {d.rjust(widths[1])}  {grid.rjust(widths[2])}  {prefix}".rstrip())
    if pattern := next((hook for hook, *_ in rows if "{" in hook), None):
        print(f"\nFor medsae extract, as they stand here, in quotes: --hooks '{pattern}'")


def _rows(specs: Iterable[HookSpec]) -> list[tuple[str, str, str, str]]:
    """A line each, but one for hook points that differ in their last index alone: `blocks.{0..11}.hook_mlp_out`."""
    from medsae_plugin.encoders.hook_names import collapsed

    groups: dict[tuple[str, int, object, int], list[int]] = {}
    for spec in specs:
        before, index, after = re.fullmatch(r"(.*?)(\d*)(\.hook_\w+|hook_\w+)", spec.name).groups()  # type: ignore[union-attr]
        group = groups.setdefault(
            (f"{before}{{}}{after}" if index else spec.name, spec.d, spec.grid, spec.n_prefix), []
        )
        if index:
            group.append(int(index))
    return [
        (
            name.replace("{}", collapsed(found)) if found else name,
            str(d),
            "image" if grid is None else "{} x {}".format(*grid),  # type: ignore[misc]
            str(n_prefix or ""),
        )
        for (name, d, grid, n_prefix), found in groups.items()
    ]


def _check(path: str) -> None:
    from medsae_plugin.encoders import check_card

    problems, checked = check_card(path)
    for problem in problems:
        print(problem)
    if problems:
        raise MedSAEError(f"{path} has {len(problems)} problem{'s' if len(problems) > 1 else ''}")
    print(f"{path} is sound. Checked: {checked}.")


def _size(card: EncoderCard) -> str:
    size = card.preprocessing["size"]
    return f"{size} x {size}" if isinstance(size, int) else "{} x {}".format(*size)
