"""A tiny model for every card of the package: drawn at random, saved as its source is, with its own image features."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers as tf
import yaml
from torch import Tensor

from helpers.reference_models import (
    DENSE_BLOCKS,
    State,
    biomedclip_image,
    biomedclip_state,
    densenet_features,
    densenet_state,
    resnet_features,
    resnet_state,
)

HOOKS = Path(__file__).resolve().parents[2] / "hooks"
SHAPES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
VIT = {**SHAPES, "image_size": 32, "patch_size": 8}
TEXT = {**SHAPES, "vocab_size": 40, "max_position_embeddings": 12}


@dataclass
class Tiny:
    """How to make one, from the card's real text with `changes`.

    make: writes the checkpoint to a folder, and returns its image features: pixel values to `(batch, d)`.
    exact: whether the features come of the same operations, so that they must be equal bit for bit.
    """

    make: Callable[[Path], Callable[[Tensor], Tensor]]
    changes: dict[str, Any]
    expected: dict[str, tuple[int, tuple[int, int] | None, int]]
    size: int = 32
    exact: bool = True
    text: dict[str, Any] = field(default_factory=dict)


def write_tiny_card(name: str, folder: Path, **changes: Any) -> Path:
    """The package's card of this name for the tiny model in `folder/model`; made there unless it is."""
    tiny = TINY[name]
    card = yaml.safe_load((HOOKS / f"{name}.yaml").read_text())
    card["source"] = {"format": card["source"]["format"], "path": "model"}
    card |= tiny.changes
    card["preprocessing"] |= {"size": tiny.size}
    card["preprocessing"].pop("resize", None)
    if tiny.text:
        card["text"] = tiny.text
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**card, **changes}))
    return path


def blocks(d: int, grid: tuple[int, int], n_prefix: int, n: int = 2) -> dict[str, Any]:
    kinds = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    return {f"blocks.{i}.hook_{kind}": (d, grid, n_prefix) for i in range(n) for kind in kinds}


def vit_hooks(grid: tuple[int, int], n_prefix: int, d: int = 16, embedding: int = 16, norm: bool = True) -> Any:
    return {
        "hook_embed": (d, grid, n_prefix),
        **blocks(d, grid, n_prefix),
        **({"hook_final_norm": (d, grid, n_prefix)} if norm else {}),
        "hook_pooled": (d, None, 0),
        "hook_embedding": (embedding, None, 0),
        "hook_embedding_unit": (embedding, None, 0),
    }


def saved(build: Callable[[], Any], features: Callable[[Any, Tensor], Tensor], **options: Any) -> Any:
    def make(folder: Path) -> Callable[[Tensor], Tensor]:
        torch.manual_seed(0)
        model = build().eval()
        with torch.no_grad():  # transformers starts biases and scales at 0 and 1, where swapped ones would not show
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        model.save_pretrained(folder / "model", **options)
        return lambda x: features(model, x)

    return make


def siglip(size: int, patch: int) -> Any:
    vision = {**VIT, "image_size": size, "patch_size": patch}
    text = {**TEXT, "projection_size": 16}
    return lambda: tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=vision))


def clip() -> Any:
    text = {**TEXT, "eos_token_id": 39, "projection_dim": 10}
    vision = {**VIT, "projection_dim": 10}
    return tf.CLIPModel(tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=10))


def gemma3() -> Any:
    text = {**SHAPES, "head_dim": 8, "num_key_value_heads": 1, "vocab_size": 50, "hidden_size": 20}
    vision = {**VIT, "vision_use_head": False}
    config = tf.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return tf.Gemma3ForConditionalGeneration(config)


def mae_features(model: Any, x: Tensor) -> Tensor:
    """Of all patches in the order that the model shuffles them to: the first token does not depend on it."""
    model.config.mask_ratio = 0.0
    return model.vit(x).last_hidden_state[:, 0]


def pooler(model: Any, x: Tensor) -> Tensor:
    return model(x).pooler_output


def image_features(model: Any, x: Tensor) -> Tensor:
    return model.get_image_features(x).pooler_output


def make_biomedclip(folder: Path) -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    state = biomedclip_state()
    (folder / "model").mkdir(exist_ok=True)
    torch.save(state, folder / "model" / "open_clip_pytorch_model.bin")
    return lambda x: biomedclip_image(state, x)


def make_xrv(draw: Callable[[], State], features: Callable[[State, Tensor], Tensor]) -> Any:
    def make(folder: Path) -> Callable[[Tensor], Tensor]:
        torch.manual_seed(0)
        state = draw()
        (folder / "model").mkdir(exist_ok=True)
        torch.save(state, folder / "model" / "pytorch_model.bin")
        return lambda x: features(state, x)

    return make


DINO = {k: v for k, v in SHAPES.items() if k != "intermediate_size"} | {"patch_size": 14, "layerscale_value": 0.5}
TINY: dict[str, Tiny] = {
    # At its real size, 448 pixels in 32 x 32 patches.
    "medsiglip-448": Tiny(
        saved(siglip(448, 14), image_features),
        {"vision": {}},
        vit_hooks((32, 32), 0),
        size=448,
        text={"max_tokens": 12},
    ),
    "siglip-base": Tiny(
        saved(siglip(32, 8), image_features), {"vision": {}}, vit_hooks((4, 4), 0), text={"max_tokens": 12}
    ),
    "clip-vit-base": Tiny(
        saved(clip, image_features),
        {"vision": {}},
        vit_hooks((4, 4), 1, embedding=10, norm=False),
        text={"max_tokens": 12},
    ),
    "biomedclip": Tiny(
        make_biomedclip,
        {"vision": {**VIT, "layer_norm_eps": 1e-6}, "projection_dim": 10},
        vit_hooks((4, 4), 1, embedding=10),
        exact=False,
        text={"config": TEXT, "max_tokens": 12},
    ),
    "rad-dino": Tiny(
        saved(lambda: tf.Dinov2Model(tf.Dinov2Config(**DINO, image_size=56)), pooler),
        {"vision": {}},
        vit_hooks((4, 4), 1),
        size=56,
    ),
    # Smaller images than the model was trained on, as the card has it: positions are interpolated.
    "dinov2-base": Tiny(
        saved(lambda: tf.Dinov2Model(tf.Dinov2Config(**DINO, image_size=70)), pooler),
        {"vision": {}},
        vit_hooks((3, 3), 1),
        size=42,
    ),
    "dinov2-registers-base": Tiny(
        saved(
            lambda: tf.Dinov2WithRegistersModel(
                tf.Dinov2WithRegistersConfig(**DINO, image_size=56, num_register_tokens=4)
            ),
            pooler,
        ),
        {"vision": {}},
        vit_hooks((4, 4), 5),
        size=56,
    ),
    "vit-base": Tiny(
        saved(lambda: tf.ViTModel(tf.ViTConfig(**VIT, pooler_output_size=16)), pooler),
        {"vision": {}},
        vit_hooks((4, 4), 1),
    ),
    "vit-mae-base": Tiny(
        saved(
            lambda: tf.ViTMAEForPreTraining(
                tf.ViTMAEConfig(
                    **VIT,
                    decoder_hidden_size=16,
                    decoder_num_hidden_layers=1,
                    decoder_num_attention_heads=2,
                    decoder_intermediate_size=16,
                )
            ),
            mae_features,
        ),
        {"vision": {}},
        vit_hooks((4, 4), 1),
        exact=False,
    ),
    "medgemma-4b-vision": Tiny(
        saved(gemma3, lambda model, x: model.model.get_image_features(x).pooler_output.mean(1), max_shard_size="20KB"),
        {"vision": {}},
        {
            "hook_embed": (16, (4, 4), 0),
            **blocks(16, (4, 4), 0),
            "hook_final_norm": (16, (4, 4), 0),
            "hook_projected": (20, (2, 2), 0),
            "hook_pooled": (20, None, 0),
            "hook_embedding": (20, None, 0),
            "hook_embedding_unit": (20, None, 0),
        },
    ),
    "xrv-densenet121": Tiny(
        make_xrv(densenet_state, densenet_features),
        {"vision": {"init_features": 8, "growth_rate": 4, "block_config": list(DENSE_BLOCKS)}},
        {
            "hook_embed": (8, (8, 8), 0),
            "stages.0.blocks.0.hook_resid_post": (12, (8, 8), 0),
            "stages.0.blocks.1.hook_resid_post": (16, (8, 8), 0),
            "stages.1.blocks.0.hook_resid_post": (12, (4, 4), 0),
            "hook_final_norm": (12, (4, 4), 0),
            "hook_pooled": (12, None, 0),
            "hook_embedding": (12, None, 0),
            "hook_embedding_unit": (12, None, 0),
        },
        exact=False,
    ),
    "xrv-resnet50": Tiny(
        make_xrv(resnet_state, resnet_features),
        {"vision": {"num_channels": 1, "embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]}},
        {
            "hook_embed": (8, (8, 8), 0),
            "stages.0.blocks.0.hook_resid_post": (16, (8, 8), 0),
            "stages.1.blocks.0.hook_resid_post": (32, (4, 4), 0),
            "hook_pooled": (32, None, 0),
            "hook_embedding": (32, None, 0),
            "hook_embedding_unit": (32, None, 0),
        },
        exact=False,
    ),
}
