"""Architecture families as tables: where in a model each hook point sits, and in what layout.

A new family is a new entry of `FAMILIES`. `{}` in a path stands for an index, which goes to the `{}` of the name.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from medsae_plugin.errors import MedSAEError

# tokens: (batch, position, d), or (batch, d) for the whole image; map: (batch, d, rows, columns)
Layout = Literal["tokens", "map"]
Side = Literal["input", "output"]


class HookRow(NamedTuple):
    """One line of a family's table: the hook `name` is the input or output of the modules at `path`.

    first: the number that the path's indices count from; the name's count from 0.
    """

    name: str
    path: str
    side: Side = "output"
    layout: Layout = "tokens"
    first: int = 0


@dataclass(frozen=True)
class Family:
    """A table of hook points, and how to make and call the model.

    model: names of the config and the model class, in transformers or in `medsae_plugin.encoders.towers`.
    n_prefix: prefix tokens (CLS, registers) before the image's own, from the config.
    tower, projection: paths in the model of what makes the pooled output, and of the projection to the image
        embedding; "" is the model itself, and no projection.
    text: transformers' class of the text tower in the same checkpoint.
    pads_text: whether that tower was trained on texts padded to full length, without a mask.
    optional_pooler: whether the model can be made without its pooler, for checkpoints that have none.
    settings: fields of the config that differ from the checkpoint's.
    arguments: more arguments of the tower's forward pass, from its config and the pixel values.
    """

    model: tuple[str, str]
    rows: tuple[HookRow, ...] = ()
    n_prefix: Callable[[Any], int] = lambda config: 0
    tower: str = ""
    projection: str = ""
    text: str = ""
    pads_text: bool = False
    optional_pooler: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    arguments: Callable[[Any, Tensor], dict[str, Any]] = lambda config, pixels: {}


def _blocks(path: str, attention: str = "attention", mlp: str = "mlp") -> tuple[HookRow, ...]:
    """The hook points of a pre-norm transformer whose blocks are at `path`."""
    return (
        HookRow("blocks.{}.hook_resid_pre", path, side="input"),
        HookRow("blocks.{}.hook_attn_out", f"{path}.{attention}"),
        HookRow("blocks.{}.hook_mlp_out", f"{path}.{mlp}"),
        HookRow("blocks.{}.hook_resid_post", path),
    )


def _in_order(config: Any, pixels: Tensor) -> dict[str, Tensor]:
    """The `noise` with which ViT-MAE leaves the patches in their order: it sorts them by it."""
    n = math.prod(pixels.shape[2:]) // config.patch_size**2
    return {"noise": torch.arange(n, device=pixels.device).expand(len(pixels), n)}


_VIT = (HookRow("hook_embed", "embeddings"), *_blocks("layers.{}"), HookRow("hook_final_norm", "layernorm"))
# What a block adds to the residual stream is what its layer scale lets through.
_DINOV2 = (
    HookRow("hook_embed", "embeddings"),
    *_blocks("encoder.layer.{}", "layer_scale1", "layer_scale2"),
    HookRow("hook_final_norm", "layernorm"),
)
_SIGLIP = (
    HookRow("hook_embed", "embeddings"),
    *_blocks("encoder.layers.{}", "self_attn"),
    HookRow("hook_final_norm", "post_layernorm"),
)

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
    # Every layer of a dense block hands on its input and its own new channels, side by side: its residual stream.
    "densenet": Family(
        model=("DenseNetConfig", "DenseNetTower"),
        rows=(
            HookRow("hook_embed", "features.pool0", layout="map"),
            HookRow("stages.{}.blocks.{}.hook_resid_post", "features.denseblock{}.denselayer{}", layout="map", first=1),
            HookRow("hook_final_norm", "features.norm5", layout="map"),
        ),
    ),
    "vit": Family(model=("ViTConfig", "ViTModel"), rows=_VIT, n_prefix=lambda config: 1, optional_pooler=True),
    "vit_mae": Family(
        model=("ViTMAEConfig", "ViTMAEModel"),
        rows=_VIT,
        n_prefix=lambda config: 1,
        settings={"mask_ratio": 0.0},
        arguments=_in_order,
    ),
    "dinov2": Family(model=("Dinov2Config", "Dinov2Model"), rows=_DINOV2, n_prefix=lambda config: 1),
    "dinov2_with_registers": Family(
        model=("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel"),
        rows=_DINOV2,
        n_prefix=lambda config: 1 + config.num_register_tokens,
    ),
    # Its last norm is on the pooled token alone, so it is `hook_pooled`.
    "clip": Family(
        model=("CLIPVisionConfig", "CLIPVisionModelWithProjection"),
        rows=(HookRow("hook_embed", "embeddings"), *_blocks("encoder.layers.{}", "self_attn")),
        n_prefix=lambda config: 1,
        tower="vision_model",
        projection="visual_projection",
        text="CLIPTextModelWithProjection",
    ),
    "siglip": Family(
        model=("SiglipVisionConfig", "SiglipVisionModel"), rows=_SIGLIP, text="SiglipTextModel", pads_text=True
    ),
    # The vision tower of Gemma 3 and MedGemma, and the projector that makes the soft tokens of the language model.
    "gemma3": Family(
        model=("Gemma3Config", "Gemma3VisionTower"),
        rows=(
            *(row._replace(path=f"vision_tower.{row.path}") for row in _SIGLIP),
            HookRow("hook_projected", "multi_modal_projector"),
        ),
    ),
    # Any other vision model: a card's own `hooks` are its table.
    "custom": Family(model=("AutoConfig", "AutoModel")),
}


def hook_places(rows: Iterable[HookRow], model: nn.Module) -> Iterator[tuple[HookRow, nn.Module]]:
    """Each row with its indices filled in, and the module of `model` that it stands for.

    Raises:
        MedSAEError: a row whose path no module has.
    """
    modules = dict(model.named_modules())
    for row in rows:
        pattern = re.compile(re.escape(row.path).replace(r"\{\}", r"(\d+)"))
        found = [(match, module) for path, module in modules.items() if (match := pattern.fullmatch(path))]
        if not found:
            raise MedSAEError(f"no module at {row.path}{near_modules(row.path, modules)}")
        for match, module in found:
            indices = [int(index) - row.first for index in match.groups()]
            yield row._replace(name=row.name.format(*indices), path=match.string), module


def near_modules(path: str, modules: Iterable[str]) -> str:
    """`; near it: ...` with the modules whose paths look like `path`, or nothing where none does."""
    known = list(dict.fromkeys(re.sub(r"(?<=\.)\d+|^\d+", "{}", name) for name in modules if name))
    near = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
    return f"; near it: {', '.join(near)}" if near else ""
