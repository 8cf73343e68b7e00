"""From outside the package: an encoder by a card, a layout of checkpoints by an entry."""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from medsae_plugin import HookedVisionEncoder
from medsae_plugin.cli import main
from medsae_plugin.encoders import LAYOUTS, Layout, TextTower, build_encoder, load_card

PREPROCESSING = {"mode": "L", "size": 32, "fit": "pad", "resample": "bicubic", "mean": [0.5], "std": [0.25]}
VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


def write_card(folder: Path, **fields: Any) -> Path:
    card = {"name": "mine", "description": "ours", "licence": "ours", "preprocessing": PREPROCESSING, **fields}
    (folder / "mine.yaml").write_text(yaml.safe_dump(card))
    return folder / "mine.yaml"


# An encoder: a card beside a checkpoint, and no line of code.


def test_an_encoder_by_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(0)
    model = tf.ConvNextModel(tf.ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 2], num_stages=2)).eval()
    model.save_pretrained(tmp_path / "model")
    card = write_card(
        tmp_path,
        family="custom",
        source={"format": "transformers", "path": "./model"},
        hooks=[
            {"name": "hook_embed", "path": "embeddings", "layout": "map"},
            {"name": "stages.{}.hook_resid_post", "path": "encoder.stages.{}", "layout": "map"},
        ],
    )
    assert main(["encoders", "check", str(card)]) == 0
    assert "its weights' keys and shapes" in capsys.readouterr().out
    encoder = HookedVisionEncoder.from_pretrained(card)
    assert {name: (spec.d, spec.grid) for name, spec in encoder.hook_specs.items()} == {
        "hook_embed": (8, (8, 8)),
        "stages.0.hook_resid_post": (8, (8, 8)),
        "stages.1.hook_resid_post": (12, (4, 4)),
        "hook_pooled": (12, None),
        "hook_embedding": (12, None),
        "hook_embedding_unit": (12, None),
    }
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(encoder(x), model(x).pooler_output)


# A layout: one entry. A lab saves a ViT as `backbone.*`, its linear projection as `head`, and a text tower that counts
# words, in one file `lab.safetensors`.


class WordCounts(TextTower):
    """The mean of one vector a word."""

    def __init__(self, config: dict[str, Any], projection_dim: int) -> None:
        super().__init__()
        self.words = nn.Embedding(config["vocab_size"], projection_dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.words(input_ids).mean(1)


def of_the_lab(state: Mapping[str, Tensor], family: str) -> dict[str, dict[str, Tensor]]:
    towers: dict[str, dict[str, Tensor]] = {"vision": {}, "text": {}}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part == "words":
            towers["text"][key] = value
        else:
            towers["vision"]["projection_head.weight" if part == "head" else f"model.{rest}"] = value
    return towers


@pytest.fixture
def lab() -> Iterator[None]:
    LAYOUTS["lab"] = Layout(
        files=("lab.safetensors",),
        wanted=lambda key: not key.startswith("optimizer."),
        towers=of_the_lab,
        projects=True,
        text_tower=WordCounts,
        needs=("projection_dim", "text", "text.config"),
    )
    yield
    del LAYOUTS["lab"]


@pytest.fixture
def state(lab: None) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = tf.ViTModel(tf.ViTConfig(**VIT), add_pooling_layer=False)
    return {
        **{f"backbone.{key}": value for key, value in model.state_dict().items()},
        "head": torch.randn(6, 16),
        "words.weight": torch.randn(9, 6),
        "optimizer.step": torch.tensor(3),
    }


def lab_card(folder: Path, **fields: Any) -> Path:
    return write_card(
        folder,
        family="vit",
        source={"format": "lab", "path": "./weights"},
        vision=VIT,
        pooling="cls",
        **{"projection_dim": 6, "text": {"config": {"vocab_size": 9}}, **fields},
    )


def write(state: dict[str, Tensor], folder: Path) -> None:
    (folder / "weights").mkdir(exist_ok=True)
    save_file(state, folder / "weights" / "lab.safetensors")


def test_a_layout_by_an_entry(state: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(state, tmp_path)
    card = lab_card(tmp_path)
    assert main(["encoders", "check", str(card)]) == 0
    assert "its weights' keys and shapes" in capsys.readouterr().out
    assert main(["encoders", str(card)]) == 0
    assert "blocks.{0..1}.hook_resid_post" in capsys.readouterr().out
    encoder = HookedVisionEncoder.from_pretrained(card)
    model = tf.ViTModel(tf.ViTConfig(**VIT), add_pooling_layer=False).eval()
    model.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")})
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), model(x).last_hidden_state[:, 0] @ state["head"].T)
    texts = torch.tensor([[1, 2, 2], [4, 0, 8]])
    again = pickle.loads(pickle.dumps(encoder))  # noqa: S301  before its text tower is asked for
    for one in (encoder, again):
        torch.testing.assert_close(one.encode_text(texts), state["words.weight"][texts].mean(1))
    assert build_encoder(load_card(card)).hook_specs == encoder.hook_specs
    saved = HookedVisionEncoder.from_pretrained(encoder.save_pretrained(tmp_path / "saved"))
    assert torch.equal(saved(x), encoder(x)) and torch.equal(saved.encode_text(texts), encoder.encode_text(texts))


@pytest.mark.parametrize("gone", ["backbone.layernorm.weight", "head", "words.weight"])
def test_its_checkpoints_are_checked_key_by_key(
    state: dict[str, Tensor], gone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write({key: value for key, value in state.items() if key != gone}, tmp_path)
    card = lab_card(tmp_path)
    line = card.read_text().splitlines().index("  path: ./weights") + 1
    missing = {"head": "projection_head.weight"}.get(gone, gone.removeprefix("backbone."))
    assert main(["encoders", "check", str(card)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{card}:{line}: source: ") and f"missing: {missing}" in out.replace("model.", "")
    with pytest.raises(Exception, match="does not fit"):
        HookedVisionEncoder.from_pretrained(card)


def test_its_cards_are_checked_for_what_it_needs(lab: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    card = lab_card(tmp_path, projection_dim=None, text={"max_tokens": 7})
    assert main(["encoders", "check", str(card)]) == 1
    out = capsys.readouterr().out
    assert "a source of format lab needs projection_dim" in out
    assert "text lacks config, which a source of format lab needs" in out
    elsewhere = write_card(tmp_path, family="vit", source={"format": "lab", "url": "https://lab.example/w.safetensors"})
    assert main(["encoders", "check", str(elsewhere)]) == 1
    assert "source lacks path" in capsys.readouterr().out
