"""The demo encoder: it knows phantoms it has not seen, and the script that made it is deterministic."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medsae_plugin.data.phantoms import FINDINGS
from medsae_plugin.data.phantoms.sentences import SENTENCES
from medsae_plugin.encoders import HookedVisionEncoder, load_card
from medsae_plugin.training.demo_encoder import build_tokenizer, train, training_case, zero_shot_auroc


@pytest.fixture(scope="module")
def encoder():
    return HookedVisionEncoder.from_pretrained("phantom-swin")


def test_zero_shot_on_fresh_phantoms(encoder):
    aurocs = zero_shot_auroc(encoder, 150, seed=31_337)
    assert list(aurocs) == list(SENTENCES)
    assert np.mean([*aurocs.values()]) > 0.80
    assert min(aurocs[name] for name in ("Cardiomegaly", "Edema", "Pleural Effusion")) > 0.9


def test_an_untrained_encoder_knows_nothing(encoder):
    """So the figure above is the weights' doing, not the score's."""
    from medsae_plugin.encoders import build_encoder

    torch.manual_seed(0)
    blank = build_encoder(encoder.card)
    blank._tokenizer = encoder._tokenizer
    assert abs(np.mean([*zero_shot_auroc(blank, 100, seed=31_337).values()]) - 0.5) < 0.15


def test_bundled_weights_are_small(encoder):
    weights = encoder.card.source_path / "model.safetensors"
    assert weights.stat().st_size < 3e6
    assert sum(p.numel() for p in encoder.vision_model.parameters()) < 1e6


def test_training_twice_gives_the_same_weights(tmp_path):
    card = load_card("phantom-swin")
    torch.use_deterministic_algorithms(True)
    try:
        for name in ("first", "second"):
            train(card, tmp_path / name, images=24, steps=3, batch_size=8, workers=0)
        train(card, tmp_path / "other", images=24, steps=3, batch_size=8, workers=0, seed=1)
    finally:
        torch.use_deterministic_algorithms(False)
    first, second, other = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second", "other"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_every_word_of_every_sentence_is_in_the_vocabulary(encoder):
    tokenizer = build_tokenizer()
    assert tokenizer.get_vocab_size() <= encoder.card.text["config"]["vocab_size"]
    texts = [text for sentences in SENTENCES.values() for way in sentences for text in way]
    assert all(tokenizer.token_to_id("[UNK]") not in tokenizer.encode(text).ids for text in texts)
    assert len(set(texts)) == len(texts)
    embedded = encoder.encode_text(texts)
    torch.testing.assert_close(encoder.encode_text(texts[:3]), embedded[:3], rtol=0, atol=1e-5)


def test_training_cases_show_rare_findings_as_often_as_common_ones():
    cases = [training_case(index, seed=0) for index in range(1500)]
    shares = {name: np.mean([name in case.findings for case in cases]) for name in FINDINGS if name != "Lung Opacity"}
    assert max(shares.values()) < 1.6 * min(shares.values())
