"""The demo encoder: how it is measured, and that the script that made it is deterministic."""

import numpy as np
import pytest
import torch
from helpers.repository_scripts import script
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from medsae_plugin.encoders import HookedVisionEncoder, load_card
from medsae_plugin.phantoms import FINDINGS, draw_case
from medsae_plugin.phantoms.generate import sample_rows
from medsae_plugin.phantoms.sentences import SENTENCES

demo_encoder = script("demo_encoder")


@pytest.fixture(scope="module")
def encoder():
    return HookedVisionEncoder.from_pretrained("phantom-swin")


@torch.no_grad()
def test_its_zero_shot_auroc_is_scikit_learns_of_cosines(encoder):
    """Of each phantom's image with the sentences, in float64; ranks that rounding may change are left open."""
    got = demo_encoder.zero_shot_auroc(encoder, 16, seed=31_337)
    assert list(got) == list(SENTENCES)
    phantoms = [draw_case(row.case, size=demo_encoder.EVALUATION_SIZE) for row in sample_rows(16, 31_337)]
    x = encoder(encoder.preprocess([Image.fromarray(phantom.image) for phantom in phantoms])).double()
    for name, ways in SENTENCES.items():
        present, absent = (unit(unit(encoder.encode_text(list(texts)).double()).mean(0)) for texts in ways)
        scores = (unit(x) @ (present - absent)).numpy()
        y = np.array([name in phantom.findings for phantom in phantoms])
        if y.any() and not y.all():
            close = (np.abs(scores[y][:, None] - scores[~y]) < 1e-5).mean()
            assert got[name] == pytest.approx(roc_auc_score(y, scores), abs=close + 1e-9)
        else:
            assert np.isnan(got[name])


def unit(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def test_bundled_weights_are_small(encoder):
    weights = encoder.card.source_path / "model.safetensors"
    assert weights.stat().st_size < 3e6
    assert sum(p.numel() for p in encoder.vision_model.parameters()) < 1e6


def test_training_twice_gives_the_same_weights(tmp_path):
    card = load_card("phantom-swin")
    torch.use_deterministic_algorithms(True)
    try:
        for name in ("first", "second"):
            demo_encoder.train(card, tmp_path / name, images=24, steps=3, batch_size=8, workers=0)
        demo_encoder.train(card, tmp_path / "other", images=24, steps=3, batch_size=8, workers=0, seed=1)
    finally:
        torch.use_deterministic_algorithms(False)
    first, second, other = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second", "other"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_every_word_of_every_sentence_is_in_the_vocabulary(encoder):
    tokenizer = demo_encoder.build_tokenizer()
    assert tokenizer.get_vocab_size() <= encoder.card.text["config"]["vocab_size"]
    texts = [text for sentences in SENTENCES.values() for way in sentences for text in way]
    assert all(tokenizer.token_to_id("[UNK]") not in tokenizer.encode(text).ids for text in texts)
    assert len(set(texts)) == len(texts)
    embedded = encoder.encode_text(texts)
    torch.testing.assert_close(encoder.encode_text(texts[:3]), embedded[:3], rtol=0, atol=1e-5)


def test_training_cases_show_rare_findings_as_often_as_common_ones():
    cases = [demo_encoder.training_case(index, seed=0) for index in range(1500)]
    shares = {name: np.mean([name in case.findings for case in cases]) for name in FINDINGS if name != "Lung Opacity"}
    assert max(shares.values()) < 1.6 * min(shares.values())
