"""Encoders of one's own: any transformers vision model, any module, grids that are no square, Gaussian embeddings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
import yaml
from torch import Tensor, nn

from medsae_plugin import MedSAEError
from medsae_plugin.encoders import HookedVisionEncoder, HookSpec, build_encoder, describe_encoder, load_card
from medsae_plugin.encoders.cards import parse_card

PREPROCESSING = {"mode": "L", "size": 32, "fit": "pad", "resample": "bilinear", "mean": [0.5], "std": [0.25]}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "patch_size": 8}


def fields(family: str = "custom", source: dict[str, Any] | None = None, size: Any = 32, **more: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "description": "for tests",
        "licence": "MIT",
        "family": family,
        "source": source or {"format": "transformers", "path": "model"},
        "preprocessing": {**PREPROCESSING, "size": size},
        **more,
    }


def write(folder: Path, card: dict[str, Any]) -> Path:
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder / "card.yaml"


def specs(expected: dict[str, tuple[int, tuple[int, int] | None, int]]) -> list[HookSpec]:
    return [HookSpec(name, *spec) for name, spec in expected.items()]


def identity_changes_nothing(encoder: HookedVisionEncoder, x: Tensor) -> None:
    with torch.no_grad():
        hooked = encoder.run_with_hooks(x, fwd_hooks=[(n, lambda a, hook: a.clone()) for n in encoder.hook_specs])
        assert torch.equal(hooked, encoder(x))


def test_any_transformers_vision_model_by_a_list_of_module_paths(tmp_path: Path):
    """ConvNeXt, which the package has no family for, from a folder; its shapes without weights, too."""
    torch.manual_seed(0)
    config = tf.ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[2, 1], image_size=32, patch_size=4)
    model = tf.ConvNextModel(config).eval()
    model.save_pretrained(tmp_path / "model")
    rows = [
        {"name": "hook_embed", "path": "embeddings", "layout": "map"},
        {"name": "stages.{}.blocks.{}.hook_resid_post", "path": "encoder.stages.{}.layers.{}", "layout": "map"},
        {"name": "stages.{}.blocks.{}.hook_mlp_out", "path": "encoder.stages.{}.layers.{}.pwconv2"},
    ]
    card = write(tmp_path, fields(hooks=rows[:2]))
    encoder = HookedVisionEncoder.from_pretrained(card)
    expected = {
        "hook_embed": (8, (8, 8), 0),
        "stages.0.blocks.0.hook_resid_post": (8, (8, 8), 0),
        "stages.0.blocks.1.hook_resid_post": (8, (8, 8), 0),
        "stages.1.blocks.0.hook_resid_post": (16, (4, 4), 0),
        "hook_pooled": (16, None, 0),
        "hook_embedding": (16, None, 0),
        "hook_embedding_unit": (16, None, 0),
    }
    assert list(encoder.hook_specs.values()) == specs(expected)
    assert describe_encoder(card)[0] == encoder.hook_specs
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(encoder(x), model(x).pooler_output)
        block = model(x, output_hidden_states=True).hidden_states[1]
        seen = encoder.activations(x, ["stages.0.blocks.1.hook_resid_post"])["stages.0.blocks.1.hook_resid_post"]
    torch.testing.assert_close(seen, block.flatten(2).transpose(1, 2))
    identity_changes_nothing(encoder, x)
    # Inside its blocks ConvNeXt holds (batch, rows, columns, d), which is neither layout.
    with pytest.raises(MedSAEError, match=r"stages\.0\.blocks\.0\.hook_mlp_out carries 4 axes.*is its layout map"):
        HookedVisionEncoder.from_pretrained(write(tmp_path, fields(hooks=rows)))


def test_shapes_alone_tell_the_hook_points_of_a_custom_model():
    rows = [{"name": "stages.{}.hook_resid_post", "path": "encoder.stages.{}", "layout": "map"}]
    vision = {"model_type": "convnext", "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}
    encoder = build_encoder(parse_card(fields(hooks=rows, vision=vision)))
    assert encoder.hook_specs["stages.1.hook_resid_post"].grid == (4, 4)


def test_a_card_adds_hook_points_to_a_family(tmp_path: Path):
    tf.ViTModel(tf.ViTConfig(**VIT, image_size=32, pooler_output_size=16)).save_pretrained(tmp_path / "model")
    rows = [{"name": "blocks.{}.hook_mlp_in", "path": "layers.{}.layernorm_after"}]
    encoder = HookedVisionEncoder.from_pretrained(write(tmp_path, fields("vit", hooks=rows)))
    assert encoder.hook_specs["blocks.1.hook_mlp_in"] == HookSpec("blocks.1.hook_mlp_in", 16, (4, 4), 1)
    assert [name for name in encoder.hook_specs if "blocks.0" in name][-2:] == [
        "blocks.0.hook_mlp_out",
        "blocks.0.hook_resid_post",
    ]
    wrong = [{"name": "blocks.{}.hook_mlp_in", "path": "layers.{}.layernorm_afterwards"}]
    with pytest.raises(MedSAEError, match=r"no module at layers.\{\}.layernorm_afterwards; near it: layers.\{\}.layer"):
        HookedVisionEncoder.from_pretrained(write(tmp_path, fields("vit", hooks=wrong)))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_checkpoint_without_a_pooler_is_pooled_as_the_card_says(tmp_path: Path, pooling: str):
    model = tf.ViTModel(tf.ViTConfig(**VIT, image_size=32), add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(MedSAEError, match=r"lacks weights.*pooler\.dense"):
        HookedVisionEncoder.from_pretrained(write(tmp_path, fields("vit")))
    encoder = HookedVisionEncoder.from_pretrained(write(tmp_path, fields("vit", pooling=pooling)))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        states = model(x).last_hidden_state
        expected = states[:, 0] if pooling == "cls" else states[:, 1:].mean(1)
        assert torch.equal(encoder(x), expected)


NOT_SQUARE: dict[str, tuple[Callable[[], Any], list[int], dict[str, tuple[int, int]]]] = {
    "vit": (
        lambda: tf.ViTModel(tf.ViTConfig(**VIT, image_size=(32, 64), pooler_output_size=16)),
        [32, 64],
        {"hook_embed": (4, 8), "blocks.1.hook_resid_post": (4, 8)},
    ),
    # Patches that are no squares either: (rows, columns) cannot be guessed from the image's aspect.
    "vit-flat-patches": (
        lambda: tf.ViTModel(tf.ViTConfig(**{**VIT, "patch_size": (4, 16)}, image_size=(32, 64), pooler_output_size=16)),
        [32, 64],
        {"hook_embed": (8, 4), "blocks.1.hook_resid_post": (8, 4)},
    ),
    "dinov2": (
        lambda: tf.Dinov2Model(
            tf.Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
        ),
        [70, 28],
        {"hook_embed": (5, 2), "blocks.1.hook_resid_post": (5, 2)},
    ),
    "swin": (
        lambda: tf.SwinModel(
            tf.SwinConfig(
                image_size=(32, 64), patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
            )
        ),
        [32, 64],
        {"hook_embed": (16, 32), "stages.1.blocks.0.hook_resid_post": (8, 16)},
    ),
    "resnet": (
        lambda: tf.ResNetModel(tf.ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1])),
        [32, 96],
        {"hook_embed": (8, 24), "stages.1.blocks.0.hook_resid_post": (4, 12)},
    ),
}


@pytest.mark.parametrize("name", NOT_SQUARE)
def test_a_grid_that_is_no_square(name: str, tmp_path: Path):
    make, size, grids = NOT_SQUARE[name]
    torch.manual_seed(0)
    model = make().eval()
    model.save_pretrained(tmp_path / "model")
    encoder = HookedVisionEncoder.from_pretrained(write(tmp_path, fields(name.split("-")[0], size=size)))
    x = torch.randn(2, 3, *size)
    for hook, grid in grids.items():
        assert encoder.hook_specs[hook].grid == grid
        assert encoder.activations(x, [hook])[hook].shape[1] == encoder.hook_specs[hook].n_positions
    with torch.no_grad():
        assert torch.equal(encoder(x), model(x).pooler_output.flatten(1))
    identity_changes_nothing(encoder, x)


def test_the_grid_lies_as_the_image_does(tmp_path: Path):
    """A bright patch moves the position that the grid says, at rows and columns of their own."""
    model = tf.ViTModel(tf.ViTConfig(**{**VIT, "patch_size": (4, 16)}, image_size=(32, 64), pooler_output_size=16))
    model.save_pretrained(tmp_path / "model")
    encoder = HookedVisionEncoder.from_pretrained(write(tmp_path, fields("vit", size=[32, 64])))
    spec = encoder.hook_specs["hook_embed"]
    assert spec.grid is not None
    black, lit = torch.zeros(2, 1, 3, 32, 64)
    lit[:, :, 4 * 5 : 4 * 6, 16 * 2 : 16 * 3] = 1
    change = (
        encoder.activations(lit, ["hook_embed"])["hook_embed"]
        - encoder.activations(black, ["hook_embed"])["hook_embed"]
    )
    (moved,) = change[0].abs().sum(-1).nonzero().flatten().tolist()
    assert divmod(moved - spec.n_prefix, spec.grid[1]) == (5, 2)


class Network(nn.Module):
    """A small network of one's own; `heads` makes its embedding Gaussian."""

    def __init__(self, heads: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)])
        self.mean, self.spread = (nn.Linear(8, 5), nn.Linear(8, 5)) if heads else (None, None)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        if self.mean is None:
            return x
        pooled = x.mean((2, 3))
        return {"embedding": self.mean(pooled), "log_variance": self.spread(pooled).clamp(-5, 5)}


ROWS = [
    {"name": "hook_embed", "path": "stem", "layout": "map"},
    {"name": "blocks.{}.hook_mlp_out", "path": "layers.{}", "layout": "map"},
]


def test_a_module_of_ones_own():
    torch.manual_seed(0)
    network = Network().eval()
    card = fields(source={"format": "module"}, hooks=ROWS)
    encoder = HookedVisionEncoder.from_module(network, card)
    expected = {
        "hook_embed": (8, (8, 8), 0),
        "blocks.0.hook_mlp_out": (8, (8, 8), 0),
        "blocks.1.hook_mlp_out": (8, (8, 8), 0),
        "hook_pooled": (8, None, 0),
        "hook_embedding": (8, None, 0),
        "hook_embedding_unit": (8, None, 0),
    }
    assert list(encoder.hook_specs.values()) == specs(expected)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), network(x).mean((2, 3)))
    identity_changes_nothing(encoder, x)
    same = HookedVisionEncoder.from_module(network, card)
    other = HookedVisionEncoder.from_module(Network(), card)
    assert len(encoder.weights_sha256) == 64
    assert encoder.weights_sha256 == same.weights_sha256 != other.weights_sha256


def test_a_modules_card_says_what_it_lacks(tmp_path: Path):
    card = fields(source={"format": "module"}, hooks=ROWS)
    with pytest.raises(MedSAEError, match=r"given in Python: HookedVisionEncoder\.from_module"):
        HookedVisionEncoder.from_pretrained(write(tmp_path, card))
    with pytest.raises(MedSAEError, match=r"card:\d+: family custom needs hooks"):
        HookedVisionEncoder.from_module(Network(), fields(source={"format": "module"}))
    with pytest.raises(MedSAEError, match=r"no module at layer\.\{\}; near it: layers\.\{\}"):
        wrong = [{"name": "blocks.{}.hook_mlp_out", "path": "layer.{}"}]
        HookedVisionEncoder.from_module(Network(), {**card, "hooks": wrong})
    with pytest.raises(MedSAEError, match="cannot take an image of 2 x 2 pixels"):
        tiny = {**PREPROCESSING, "size": 2}
        HookedVisionEncoder.from_module(Network(), {**card, "preprocessing": tiny})


def test_measuring_runs_no_pass_with_numbers():
    devices: list[str] = []

    class Watched(Network):
        def forward(self, x: Tensor) -> Tensor:
            devices.append(x.device.type)
            return super().forward(x)

    HookedVisionEncoder.from_module(Watched(), fields(source={"format": "module"}, hooks=ROWS))
    assert devices == ["meta"]


def test_a_model_that_needs_values_to_run_is_measured_on_an_image():
    """Where the pass depends on numbers, the meta device has none."""

    class Choosy(Network):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum().item() > 1 else x + 1)

    encoder = HookedVisionEncoder.from_module(Choosy(), fields(source={"format": "module"}, hooks=ROWS))
    assert encoder.hook_specs["hook_embed"].grid == (8, 8)


@pytest.mark.parametrize(
    "outputs", [{"mean": "mean", "logvar": "spread"}, {"mean": "embedding", "logvar": "log_variance"}]
)
def test_a_probabilistic_encoder_has_its_mean_and_log_variance(outputs: dict[str, str]):
    """By the paths of the modules that make them, or by the fields of the output that hold them."""
    torch.manual_seed(0)
    network = Network(heads=True).eval()
    with torch.no_grad():
        network.spread.weight.mul_(40)
    encoder = HookedVisionEncoder.from_module(network, fields(source={"format": "module"}, hooks=ROWS, outputs=outputs))
    assert list(encoder.hook_specs)[-3:] == ["hook_embedding_logvar", "hook_embedding", "hook_embedding_unit"]
    assert encoder.hook_specs["hook_embedding_logvar"] == HookSpec("hook_embedding_logvar", 5, None)
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        out = network(x)
        embedding, cache = encoder.run_with_cache(x)
        assert torch.equal(embedding, out["embedding"]) and torch.equal(cache["hook_embedding"], out["embedding"])
        clamped = out["log_variance"]
        logvar = cache["hook_embedding_logvar"]
        assert torch.equal(logvar if outputs["logvar"] == "log_variance" else logvar.clamp(-5, 5), clamped)
        identity_changes_nothing(encoder, x)
        output, only = encoder.run_with_cache(x, names_filter="hook_embedding_logvar")
        assert torch.equal(output, embedding) and torch.equal(only["hook_embedding_logvar"], logvar)
        moved = encoder.run_with_hooks(x, fwd_hooks=[("hook_embedding", lambda a, hook: a + 1)])
        torch.testing.assert_close(moved, embedding + 1)


def test_outputs_that_a_model_does_not_have_are_named():
    card = fields(source={"format": "module"}, hooks=ROWS, outputs={"mean": "embedding", "logvar": "logvar"})
    with pytest.raises(MedSAEError, match="outputs: logvar: no module and no field 'logvar'"):
        HookedVisionEncoder.from_module(Network(heads=True), card)


def test_a_probabilistic_encoder_of_transformers(tmp_path: Path):
    """A card can take two parts of any model: here DINOv2's last norm of the first token, and its patch mean."""
    model = tf.Dinov2Model(
        tf.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14)
    )
    model.save_pretrained(tmp_path / "model")
    outputs = {"mean": "pooler_output", "logvar": "pooler_output"}
    encoder = HookedVisionEncoder.from_pretrained(write(tmp_path, fields("dinov2", size=56, outputs=outputs)))
    x = torch.randn(2, 3, 56, 56)
    assert torch.equal(encoder(x), encoder.run_with_cache(x)[1]["hook_embedding_logvar"])
    assert load_card(tmp_path / "card.yaml").outputs == outputs
