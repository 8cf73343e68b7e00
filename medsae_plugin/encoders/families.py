"""Architecture families as tables: where in a transformers model each hook point sits, and in what layout.

A new family is a new entry of `FAMILIES`. `{}` in a path stands for an index, which goes to the `{}` of the name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import nn

# tokens: (batch, position, d); map: (batch, d, rows, columns)
Layout = Literal["tokens", "map"]
Side = Literal["input", "output"]


class HookRow(NamedTuple):
    """One line of a family's table: the hook `name` is the input or output of the modules at `path`."""

    name: str
    path: str
    side: Side = "output"
    layout: Layout = "tokens"


@dataclass(frozen=True)
class Family:
    """A table of hook points, and how to make the model.

    model: transformers' names of the config and model classes.
    n_prefix: prefix tokens (CLS, registers) before the image's own, from the config.
    """

    model: tuple[str, str]
    rows: tuple[HookRow, ...]
    n_prefix: Callable[[Any], int] = lambda config: 0


FAMILIES: dict[str, Family] = {
    "swin": Family(
        model=("SwinConfig", "SwinModel"),
        rows=(
            HookRow("hook_embed", "embeddings"),
            HookRow("stages.{}.blocks.{}.hook_mlp_out", "encoder.layers.{}.blocks.{}.mlp"),
            HookRow("stages.{}.blocks.{}.hook_resid_post", "encoder.layers.{}.blocks.{}"),
            HookRow("hook_final_norm", "layernorm"),
        ),
    ),
    "resnet": Family(
        model=("ResNetConfig", "ResNetModel"),
        rows=(
            HookRow("hook_embed", "embedder", layout="map"),
            HookRow("stages.{}.blocks.{}.hook_resid_post", "encoder.stages.{}.layers.{}", layout="map"),
        ),
    ),
    "vit": Family(
        model=("ViTConfig", "ViTModel"),
        rows=(
            HookRow("hook_embed", "embeddings"),
            HookRow("blocks.{}.hook_resid_pre", "layers.{}", side="input"),
            HookRow("blocks.{}.hook_attn_out", "layers.{}.attention"),
            HookRow("blocks.{}.hook_mlp_out", "layers.{}.mlp"),
            HookRow("blocks.{}.hook_resid_post", "layers.{}"),
            HookRow("hook_final_norm", "layernorm"),
        ),
        n_prefix=lambda config: 1,
    ),
}


def hook_places(family: Family, model: nn.Module) -> Iterator[tuple[HookRow, nn.Module]]:
    """Each row of the table with its indices filled in, and the module of `model` that it stands for."""
    modules = dict(model.named_modules())
    for row in family.rows:
        pattern = re.compile(re.escape(row.path).replace(r"\{\}", r"(\d+)"))
        for path, module in modules.items():
            if match := pattern.fullmatch(path):
                yield row._replace(name=row.name.format(*match.groups()), path=path), module
