"""What stores of whole data sets take on disk, and how long an encoder is at it: the tables of docs/sizing.md.

python scripts/sizing.py [CARD ...]        the cards of encoders (default: those of the page); no weights are read
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from medsae_plugin.encoders import HookSpec, describe_encoder
from medsae_plugin.store.extraction import hook_info
from medsae_plugin.store.plan import ExtractionPlan
from medsae_plugin.store.positions import parse_positions
from medsae_plugin.text import byte_size, clock

# Images as published: CheXpert's training set, MIMIC-CXR-JPG 2.1.
DATA_SETS = {"CheXpert": 223_414, "MIMIC-CXR": 377_110, "a million": 1_000_000}
CARDS = {
    "medclip-swin": [
        "stages.0.blocks.1.hook_resid_post",
        "stages.1.blocks.1.hook_resid_post",
        "stages.3.blocks.1.hook_resid_post",
        "hook_embedding",
    ],
    "medclip-resnet50": ["stages.3.blocks.2.hook_resid_post", "hook_embedding"],
}
POLICIES = ("all", "sample:8", "mean")
DTYPES = (torch.float32, torch.bfloat16)
RATES = (10, 30, 100, 300, 1000)


def main(cards: Sequence[str]) -> None:
    for card in cards:
        specs, _ = describe_encoder(card)
        print(f"{card}\n\n{sizes([specs[hook] for hook in CARDS.get(card, specs)])}\n")
    print(durations())


def sizes(specs: Sequence[HookSpec]) -> str:
    """Bytes on disk of each hook and policy, float32 / bfloat16."""
    lines = [_row("hook", "positions", "rows an image", *DATA_SETS), "| --- | --- |" + " ---: |" * 4]
    for spec in specs:
        for policy in POLICIES[: 1 if spec.is_image_level else None]:
            infos = [hook_info(spec, parse_positions(policy), dtype) for dtype in DTYPES]
            cells = [
                " / ".join(byte_size(ExtractionPlan({spec.name: info}, n, n, 1, None).bytes) for info in infos)
                for n in DATA_SETS.values()
            ]
            told = "(one vector)" if spec.is_image_level else f"`{policy}`"
            lines.append(_row(f"`{spec.name}`", told, str(infos[0].rows_per_image), *cells))
    return "\n".join(lines)


def durations() -> str:
    """Hours, minutes and seconds of one pass at rates of images a second."""
    lines = [_row("images/s", *DATA_SETS), "| ---: |" + " ---: |" * len(DATA_SETS)]
    lines += [_row(str(rate), *(clock(n / rate) for n in DATA_SETS.values())) for rate in RATES]
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(sys.argv[1:] or [*CARDS])
