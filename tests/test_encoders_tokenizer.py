"""The tokenizer of a text tower from files: given, or beside the weights; and what is said where it cannot be had."""

import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from tokenizers import BertWordPieceTokenizer

from medsae_plugin.encoders import HookedVisionEncoder, build_encoder, load_card
from medsae_plugin.encoders.loading import save_encoder
from medsae_plugin.errors import MedSAEError

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pleural", "eff", "##usion", "no", "edema", ",", "heart"]
TEXTS = ["No pleural effusion", "edema, lungs"]
CARD = """
name: small
description: drawn
licence: none
family: swin
source: {format: medclip, url: https://example.org/x.zip}
vision: {image_size: 32, patch_size: 4, embed_dim: 12, depths: [1, 1], num_heads: [2, 2], window_size: 4}
projection_dim: 10
preprocessing: {mode: L, size: 32, fit: pad, resample: bicubic, mean: [0.5], std: [0.25]}
text:
  config: {vocab_size: 12, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 24}
  max_tokens: 20
  tokenizer: lab/words
  revision: main
"""


@pytest.fixture
def card(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(CARD)
    return tmp_path / "small.yaml"


@pytest.fixture
def weights(card: Path, tmp_path: Path) -> Path:
    """A checkpoint under MedCLIP's names, alone in its folder."""
    encoder = build_encoder(load_card(card))
    encoder.logit_scale = 1.0
    folder = save_encoder(encoder, tmp_path / "weights")
    (folder / "config.json").unlink()
    return folder


def write_vocabulary(path: Path, words: list[str] = VOCABULARY) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(f"{word}\n" for word in words))
    return path


def expected(vocabulary: Path) -> list[list[int]]:
    """By the library of tokenizers itself, with BERT's rules."""
    reference = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    return [reference.encode(text).ids for text in TEXTS]


@pytest.mark.parametrize("place", ["vocab.txt", "tokenizer/vocab.txt", "words/vocab.txt"])
def test_a_vocabulary_beside_the_weights_is_taken_without_a_network(card, weights, place):
    vocabulary = write_vocabulary(weights / place)
    encoder = HookedVisionEncoder.from_pretrained(card, weights=weights)
    assert encoder.tokenize(TEXTS) == expected(vocabulary) == [[2, 8, 5, 6, 7, 3], [2, 9, 10, 1, 3]]
    by_file = HookedVisionEncoder.from_pretrained(card, weights=weights / "model.safetensors")
    torch.testing.assert_close(by_file.encode_text(TEXTS), encoder.encode_text(TEXTS))


@pytest.mark.parametrize("name", ["vocab.txt", "any-name.txt", "tokenizer.json"])
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_tokenizer_that_is_given_is_taken(card, weights, tmp_path, name, as_folder):
    if as_folder and name == "any-name.txt":
        pytest.skip("a folder is known by what its files are called")
    given = write_vocabulary(tmp_path / "given" / name)
    wanted = expected(write_vocabulary(tmp_path / "reference.txt"))
    if name == "tokenizer.json":
        BertWordPieceTokenizer(str(tmp_path / "reference.txt"), lowercase=True).save(str(given))
    write_vocabulary(weights / "vocab.txt", list(reversed(VOCABULARY)))  # beside the weights, and not asked
    tokenizer = given.parent if as_folder else given
    encoder = HookedVisionEncoder.from_pretrained(card, weights=weights, tokenizer=tokenizer)
    assert encoder.tokenize(TEXTS) == wanted


def test_anothers_vocabulary_and_none_are_refused(card, weights, tmp_path):
    encoder = HookedVisionEncoder.from_pretrained(
        card, weights=weights, tokenizer=write_vocabulary(tmp_path / "long.txt", [*VOCABULARY, "more"])
    )
    with pytest.raises(MedSAEError, match="has 13 words, the text tower of small has 12"):
        encoder.encode_text(TEXTS)
    with pytest.raises(MedSAEError, match="there is no tokenizer at"):
        HookedVisionEncoder.from_pretrained(card, weights=weights, tokenizer=tmp_path / "absent.txt")
    (tmp_path / "tokenizer.json").write_text('{"cut')
    encoder = HookedVisionEncoder.from_pretrained(card, weights=weights, tokenizer=tmp_path / "tokenizer.json")
    with pytest.raises(MedSAEError, match=r"tokenizer\.json cannot be read"):
        encoder.encode_text(TEXTS)
    with pytest.raises(MedSAEError, match="has no text tower"):
        HookedVisionEncoder.from_pretrained("rad-dino", tokenizer=tmp_path / "long.txt")


def test_without_a_network_what_to_give_is_said_at_once(card, weights, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    encoder = HookedVisionEncoder.from_pretrained(card, weights=weights)
    start = time.monotonic()
    with pytest.raises(MedSAEError, match=r"lab/words .*cannot be .*[cC]onnection refused.*vocab\.txt.*--tokenizer"):
        encoder.encode_text(TEXTS)
    assert time.monotonic() - start < 15
