"""A tiny model for every card of the package: drawn at random, saved as its source is, with its own image features."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers as tf
import yaml
from torch import Tensor

HOOKS = Path(__file__).parent.parent / "hooks"
State = dict[str, Tensor]
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


# --- BiomedCLIP: open_clip's key layout, and its forward pass in plain torch ---

BIOMED = {"layers": 2, "d": 16, "heads": 2, "dim": 10, "hidden": 13, "words": 40}


def norm_(state: State, key: str, d: int) -> None:
    state[f"{key}.weight"], state[f"{key}.bias"] = 1 + torch.randn(d) * 0.1, torch.randn(d) * 0.1


def linear_(state: State, key: str, n_in: int, n_out: int, bias: bool = True) -> None:
    state[f"{key}.weight"] = torch.randn(n_out, n_in) * 0.2
    if bias:
        state[f"{key}.bias"] = torch.randn(n_out) * 0.1


def biomedclip_state() -> State:
    d, dim = BIOMED["d"], BIOMED["dim"]
    state: State = {"logit_scale": torch.tensor(4.4)}
    state["visual.trunk.cls_token"] = torch.randn(1, 1, d)
    state["visual.trunk.pos_embed"] = torch.randn(1, 17, d)
    state["visual.trunk.patch_embed.proj.weight"] = torch.randn(d, 3, 8, 8) * 0.1
    state["visual.trunk.patch_embed.proj.bias"] = torch.randn(d) * 0.1
    for i in range(BIOMED["layers"]):
        block = f"visual.trunk.blocks.{i}"
        norm_(state, f"{block}.norm1", d)
        linear_(state, f"{block}.attn.qkv", d, 3 * d)
        linear_(state, f"{block}.attn.proj", d, d)
        norm_(state, f"{block}.norm2", d)
        linear_(state, f"{block}.mlp.fc1", d, 24)
        linear_(state, f"{block}.mlp.fc2", 24, d)
    norm_(state, "visual.trunk.norm", d)
    linear_(state, "visual.head.proj", d, dim, bias=False)
    bert = "text.transformer"
    state[f"{bert}.embeddings.position_ids"] = torch.arange(12).unsqueeze(0)
    for table, n in (("word", BIOMED["words"]), ("position", 12), ("token_type", 2)):
        state[f"{bert}.embeddings.{table}_embeddings.weight"] = torch.randn(n, d)
    norm_(state, f"{bert}.embeddings.LayerNorm", d)
    for i in range(BIOMED["layers"]):
        layer = f"{bert}.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear_(state, f"{layer}.attention.self.{part}", d, d)
        linear_(state, f"{layer}.attention.output.dense", d, d)
        norm_(state, f"{layer}.attention.output.LayerNorm", d)
        linear_(state, f"{layer}.intermediate.dense", d, 24)
        linear_(state, f"{layer}.output.dense", 24, d)
        norm_(state, f"{layer}.output.LayerNorm", d)
    linear_(state, "text.proj.0", d, BIOMED["hidden"], bias=False)
    linear_(state, "text.proj.2", BIOMED["hidden"], dim, bias=False)
    return state


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, keep: Tensor | None = None) -> Tensor:
    b, n, d = q.shape
    q, k, v = (t.view(b, n, heads, d // heads).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(2, 3) / (d // heads) ** 0.5
    if keep is not None:
        scores = scores.masked_fill(~keep[:, None, None], float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d)


def biomedclip_image(state: State, x: Tensor) -> Tensor:
    def norm(key: str, h: Tensor) -> Tensor:
        return F.layer_norm(h, h.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"], 1e-6)

    def linear(key: str, h: Tensor) -> Tensor:
        return F.linear(h, state[f"{key}.weight"], state.get(f"{key}.bias"))

    trunk = "visual.trunk"
    patches = F.conv2d(x, state[f"{trunk}.patch_embed.proj.weight"], state[f"{trunk}.patch_embed.proj.bias"], stride=8)
    h = torch.cat([state[f"{trunk}.cls_token"].expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
    h = h + state[f"{trunk}.pos_embed"]
    for i in range(BIOMED["layers"]):
        block = f"{trunk}.blocks.{i}"
        q, k, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", h)).chunk(3, -1)
        h = h + linear(f"{block}.attn.proj", attention(q, k, v, BIOMED["heads"]))
        h = h + linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", h))))
    return linear("visual.head.proj", norm(f"{trunk}.norm", h)[:, 0])


def biomedclip_text(state: State, ids: Tensor) -> Tensor:
    def norm(key: str, h: Tensor) -> Tensor:
        return F.layer_norm(h, h.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"], 1e-12)

    def linear(key: str, h: Tensor) -> Tensor:
        return F.linear(h, state[f"{key}.weight"], state.get(f"{key}.bias"))

    bert = "text.transformer"
    h = state[f"{bert}.embeddings.word_embeddings.weight"][ids]
    h = h + state[f"{bert}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    h = norm(f"{bert}.embeddings.LayerNorm", h + state[f"{bert}.embeddings.token_type_embeddings.weight"][0])
    for i in range(BIOMED["layers"]):
        layer = f"{bert}.encoder.layer.{i}"
        q, k, v = (linear(f"{layer}.attention.self.{part}", h) for part in ("query", "key", "value"))
        attended = linear(f"{layer}.attention.output.dense", attention(q, k, v, BIOMED["heads"], ids != 0))
        h = norm(f"{layer}.attention.output.LayerNorm", attended + h)
        made = linear(f"{layer}.output.dense", F.gelu(linear(f"{layer}.intermediate.dense", h)))
        h = norm(f"{layer}.output.LayerNorm", made + h)
    return linear("text.proj.2", F.gelu(linear("text.proj.0", h[:, 0])))


def make_biomedclip(folder: Path) -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    state = biomedclip_state()
    (folder / "model").mkdir(exist_ok=True)
    torch.save(state, folder / "model" / "open_clip_pytorch_model.bin")
    return lambda x: biomedclip_image(state, x)


# --- TorchXRayVision: torchvision's key layouts for one channel, and their forward passes in plain torch ---


def batch_norm_(state: State, key: str, d: int) -> None:
    norm_(state, key, d)
    state[f"{key}.running_mean"], state[f"{key}.running_var"] = torch.randn(d) * 0.1, 1 + torch.rand(d)
    state[f"{key}.num_batches_tracked"] = torch.tensor(0)


def batch_norm(state: State, key: str, x: Tensor) -> Tensor:
    mean, var = state[f"{key}.running_mean"], state[f"{key}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{key}.weight"], state[f"{key}.bias"], eps=1e-5)


DENSE_BLOCKS = (2, 1)


def densenet_state() -> State:
    state: State = {"features.conv0.weight": torch.randn(8, 1, 7, 7) * 0.1}
    batch_norm_(state, "features.norm0", 8)
    d = 8
    for b, n in enumerate(DENSE_BLOCKS, start=1):
        for layer in (f"features.denseblock{b}.denselayer{i}" for i in range(1, n + 1)):
            batch_norm_(state, f"{layer}.norm1", d)
            state[f"{layer}.conv1.weight"] = torch.randn(16, d, 1, 1) * 0.2
            batch_norm_(state, f"{layer}.norm2", 16)
            state[f"{layer}.conv2.weight"] = torch.randn(4, 16, 3, 3) * 0.1
            d += 4
        if b < len(DENSE_BLOCKS):
            batch_norm_(state, f"features.transition{b}.norm", d)
            state[f"features.transition{b}.conv.weight"] = torch.randn(d // 2, d, 1, 1) * 0.2
            d //= 2
    batch_norm_(state, "features.norm5", d)
    linear_(state, "classifier", d, 18)
    state["op_threshs"] = torch.rand(18)
    return state


def densenet_features(state: State, x: Tensor) -> Tensor:
    x = F.conv2d(x[:, :1], state["features.conv0.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(batch_norm(state, "features.norm0", x)), 3, 2, 1)
    for b, n in enumerate(DENSE_BLOCKS, start=1):
        for layer in (f"features.denseblock{b}.denselayer{i}" for i in range(1, n + 1)):
            y = F.conv2d(F.relu(batch_norm(state, f"{layer}.norm1", x)), state[f"{layer}.conv1.weight"])
            y = F.conv2d(F.relu(batch_norm(state, f"{layer}.norm2", y)), state[f"{layer}.conv2.weight"], padding=1)
            x = torch.cat([x, y], 1)
        if b < len(DENSE_BLOCKS):
            x = F.relu(batch_norm(state, f"features.transition{b}.norm", x))
            x = F.avg_pool2d(F.conv2d(x, state[f"features.transition{b}.conv.weight"]), 2)
    return F.relu(batch_norm(state, "features.norm5", x)).mean((2, 3))


def resnet_state() -> State:
    state: State = {"conv1.weight": torch.randn(8, 1, 7, 7) * 0.1}
    batch_norm_(state, "bn1", 8)
    widths = ((8, 16), (16, 32))
    for s, (d_in, d_out) in enumerate(widths, start=1):
        block, mid = f"layer{s}.0", d_out // 4
        for k, (n_in, n_out, side) in enumerate(((d_in, mid, 1), (mid, mid, 3), (mid, d_out, 1)), start=1):
            state[f"{block}.conv{k}.weight"] = torch.randn(n_out, n_in, side, side) * 0.2
            batch_norm_(state, f"{block}.bn{k}", n_out)
        state[f"{block}.downsample.0.weight"] = torch.randn(d_out, d_in, 1, 1) * 0.2
        batch_norm_(state, f"{block}.downsample.1", d_out)
    linear_(state, "fc", 32, 18)
    return state


def resnet_features(state: State, x: Tensor) -> Tensor:
    x = F.conv2d(x[:, :1], state["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(batch_norm(state, "bn1", x)), 3, 2, 1)
    for s in (1, 2):
        block, stride = f"layer{s}.0", 1 if s == 1 else 2
        y = F.relu(batch_norm(state, f"{block}.bn1", F.conv2d(x, state[f"{block}.conv1.weight"])))
        y = F.conv2d(y, state[f"{block}.conv2.weight"], stride=stride, padding=1)
        y = F.conv2d(F.relu(batch_norm(state, f"{block}.bn2", y)), state[f"{block}.conv3.weight"])
        past = F.conv2d(x, state[f"{block}.downsample.0.weight"], stride=stride)
        x = F.relu(batch_norm(state, f"{block}.bn3", y) + batch_norm(state, f"{block}.downsample.1", past))
    return x.mean((2, 3))


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
        },
        exact=False,
    ),
}
