"""`check_card` on a checkpoint here: what it calls sound loads, what it refuses does not."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
import yaml
from helpers.tiny_encoders import TINY, VIT, write_tiny_card
from safetensors.torch import load_file, save_file

from medsae_plugin import MedSAEError
from medsae_plugin.encoders import HookedVisionEncoder, check_card, load_card
from medsae_plugin.encoders.describing import describe_encoder

PREPROCESSING = {"mode": "L", "size": 32, "fit": "pad", "resample": "bicubic", "mean": [0.5], "std": [0.25]}


def write(folder: Path, family: str, **more: Any) -> Path:
    card = {"name": "mine", "description": "ours", "licence": "ours", "family": family, "preprocessing": PREPROCESSING}
    (folder / "mine.yaml").write_text(yaml.safe_dump({**card, "source": source(), **more}))
    return folder / "mine.yaml"


def source() -> dict[str, str]:
    return {"format": "transformers", "path": "./model"}


def checkpoint(folder: Path) -> Path:
    """The last file of weights: of several, each holds some of them."""
    return max([*(folder / "model").glob("*.safetensors"), *(folder / "model").glob("*.bin")])


def rewritten(path: Path, change: Any) -> None:
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    state = change(state)
    if path.suffix == ".safetensors":
        save_file(state, path, metadata={"format": "pt"})
    else:
        torch.save(state, path)


def refused(card: Path, problem: str) -> None:
    """By the check, at the line of the path, and by loading, in the same words."""
    (line,), _ = check_card(card)
    assert problem in line and line.startswith(f"{card}:") and "path: " in card.read_text().splitlines()[line_of(line)]
    with pytest.raises(MedSAEError) as error:
        HookedVisionEncoder.from_pretrained(card)
    assert str(error.value) in line


def line_of(problem: str) -> int:
    return int(problem.split(":")[1]) - 1


@pytest.mark.parametrize("name", TINY)
def test_a_checkpoint_of_each_card_is_sound_and_without_a_weight_it_is_not(name: str, tmp_path: Path):
    if name == "xrv-densenet121":
        pytest.importorskip("monai")
    TINY[name].make(tmp_path)
    card = write_tiny_card(name, tmp_path)
    problems, checked = check_card(card)
    assert problems == [] and "its weights' keys and shapes" in checked
    path = checkpoint(tmp_path)
    loaded: list[str] = []
    rewritten(path, lambda state: loaded.extend(state) or state)
    needed = [key for key in loaded if any(part in key for part in ("vision", "encoder.layer", "visual", "layer"))]
    gone = next(key for key in reversed(needed) if "mask_token" not in key and "decoder" not in key)
    rewritten(path, lambda state: {key: value for key, value in state.items() if key != gone})
    (problem,), _ = check_card(card)
    with pytest.raises(MedSAEError) as error:
        HookedVisionEncoder.from_pretrained(card)
    assert str(error.value) in problem


@pytest.mark.parametrize("kind", ["vit", "custom", "classifier"])
def test_a_checkpoint_without_a_pooler_is_told_the_remedy(kind: str, tmp_path: Path):
    config = tf.ViTConfig(**VIT, num_labels=3)
    model = tf.ViTForImageClassification(config) if kind == "classifier" else tf.ViTModel(config, False)
    model.eval().save_pretrained(tmp_path / "model")
    hooks = {"hooks": [{"name": "hook_embed", "path": "embeddings"}], "prefix_tokens": 1} if kind == "custom" else {}
    family = "custom" if kind == "custom" else "vit"
    refused(write(tmp_path, family, **hooks), "pooler.dense.bias, pooler.dense.weight; a checkpoint without a pooler")
    x = torch.randn(2, 3, 32, 32)
    for pooling in ("cls", "mean"):
        card = write(tmp_path, family, pooling=pooling, **hooks)
        assert check_card(card)[0] == []
        encoder = HookedVisionEncoder.from_pretrained(card)
        body = model.vit if kind == "classifier" else model
        with torch.no_grad():
            states = body(x).last_hidden_state
            assert torch.equal(encoder(x), states[:, 0] if pooling == "cls" else states[:, 1:].mean(1))


def test_shapes_that_are_not_the_configs_are_told(tmp_path: Path):
    tf.ViTModel(tf.ViTConfig(**VIT), False).save_pretrained(tmp_path / "model")
    card = write(tmp_path, "vit", pooling="cls")
    rewritten(checkpoint(tmp_path), lambda s: {k: v[:5] if k == "layernorm.weight" else v for k, v in s.items()})
    refused(card, "layernorm.weight")


def test_another_checksum_and_a_damaged_file_are_told(tmp_path: Path):
    tf.ViTModel(tf.ViTConfig(**VIT), False).save_pretrained(tmp_path / "model")
    refused(write(tmp_path, "vit", pooling="cls", source={**source(), "sha256": "0" * 64}), "its sha256 is another")
    path = checkpoint(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    (problem,), _ = check_card(write(tmp_path, "vit", pooling="cls"))
    assert "not a sound safetensors file" in problem


def test_weights_that_are_elsewhere_are_not_called_checked():
    problems, checked = check_card("rad-dino")
    assert problems == [] and "not its weights, which are not here" in checked


def test_a_real_encoder_fits_its_card(shared: Path, tmp_path: Path):
    """DINOv2 ViT-S/14, under the names that its weights have in checkpoints."""
    more = {"source": {"format": "transformers", "path": str(shared / "dinov2-small")}}
    card = write(tmp_path, "dinov2", preprocessing={**PREPROCESSING, "size": 224, "fit": "crop"}, **more)
    assert check_card(card)[0] == []
    encoder = HookedVisionEncoder.from_pretrained(card)
    assert encoder.hook_specs == describe_encoder(card)[0]
    assert encoder.hook_specs["blocks.11.hook_resid_post"].grid == (16, 16)
    assert load_card(card).pooling is None
