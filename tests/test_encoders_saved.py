"""`save_pretrained`, and what `from_pretrained` makes of it."""

from pathlib import Path

import pytest
import torch
import yaml
from helpers.extraction_case import tiny_encoder
from helpers.tiny_encoders import TINY, write_tiny_card
from torch import nn

from medsae_plugin import MedSAEError
from medsae_plugin.encoders import HookedVisionEncoder, check_card


@pytest.mark.parametrize("name", TINY)
def test_an_encoder_of_each_card_comes_back(name: str, tmp_path: Path):
    if name == "xrv-densenet121":
        pytest.importorskip("monai")
    TINY[name].make(tmp_path)
    encoder = HookedVisionEncoder.from_pretrained(write_tiny_card(name, tmp_path))
    folder = encoder.save_pretrained(tmp_path / "saved")
    assert {"card.yaml", "config.json", "model.safetensors"} <= {path.name for path in folder.iterdir()}
    assert check_card(folder)[0] == []
    moved = folder.rename(tmp_path / "moved")
    again = HookedVisionEncoder.from_pretrained(moved)
    assert again.hook_specs == encoder.hook_specs and again.preprocessor == encoder.preprocessor
    assert again.name == encoder.name and again.logit_scale == encoder.logit_scale
    x = torch.randn(2, 3, *encoder.preprocessor.shape)
    with torch.no_grad():
        for hook, value in encoder.run_with_cache(x)[1].items():
            assert torch.equal(again.activations(x, [hook])[hook], value), hook
    if encoder.card.text:
        ids = torch.tensor([[3, 5, 7, 39]])
        for key, value in encoder.text_tower.state_dict().items():
            assert torch.equal(again.text_tower.state_dict()[key], value), key
        torch.testing.assert_close(again.encode_text(ids), encoder.encode_text(ids))
    twice = HookedVisionEncoder.from_pretrained(again.save_pretrained(tmp_path / "twice"))
    assert twice.weights_sha256 == again.weights_sha256 and torch.equal(twice(x), encoder(x))


def test_the_demo_encoder_comes_back_with_its_tokenizer(tmp_path: Path):
    encoder = HookedVisionEncoder.from_pretrained("phantom-swin")
    again = HookedVisionEncoder.from_pretrained(str(encoder.save_pretrained(tmp_path)))
    assert torch.equal(again.encode_text("no effusion"), encoder.encode_text("no effusion"))
    assert again.card.own_prompts().name == encoder.card.own_prompts().name == "phantoms"


def test_weights_in_half_precision(tmp_path: Path):
    encoder = tiny_encoder()
    folder = encoder.save_pretrained(tmp_path / "half", dtype=torch.float16)
    again = HookedVisionEncoder.from_pretrained(folder, dtype=torch.float64)
    assert again.dtype == torch.float64
    weight = encoder.projection_head.weight.detach()
    assert torch.equal(again.projection_head.weight.detach(), weight.half().double())


def test_what_no_card_can_name_is_refused(tmp_path: Path):
    card = yaml.safe_load((Path(__file__).parent.parent / "hooks" / "rad-dino.yaml").read_text())
    card |= {"family": "custom", "source": {"format": "module"}, "hooks": [{"name": "hook_embed", "path": "0"}]}
    module = nn.Sequential(nn.Conv2d(3, 8, 14, 14), nn.Flatten(2))
    card["hooks"] = [{"name": "hook_embed", "path": "0", "layout": "map"}]
    card["preprocessing"]["size"] = 28
    encoder = HookedVisionEncoder.from_module(module, card)
    with pytest.raises(MedSAEError, match="a module of your own, which no card can name"):
        encoder.save_pretrained(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
