"""Prompts, zero-shot scores and AUROC against float64 by hand and scikit-learn."""

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from medsae_plugin import HookedVisionEncoder, MedSAEError
from medsae_plugin.data.prompts import load_prompts
from medsae_plugin.data.tables import OBSERVATIONS
from medsae_plugin.encoders import ZeroShot, load_card
from medsae_plugin.scores.ranking import aurocs


def test_chexperts_prompts_state_and_deny_every_observation_and_say_their_source():
    prompts = load_prompts("chexpert")
    assert tuple(prompts.sentences) == OBSERVATIONS and "not reviewed by a radiologist" in prompts.source
    texts = [text for ways in prompts.sentences.values() for way in ways for text in way]
    assert len(set(texts)) == len(texts) and all(len(text.split()) <= 12 for text in texts)
    assert all(len(way) == 3 for ways in prompts.sentences.values() for way in ways)


def test_an_encoder_gets_prompts_in_words_it_knows():
    assert load_card("medclip-swin").own_prompts().name == "chexpert"
    encoder = HookedVisionEncoder.from_pretrained(load_card("phantom-swin").name)
    tokenize = encoder._tokenizer()
    texts = [t for ways in load_card("phantom-swin").own_prompts().sentences.values() for way in ways for t in way]
    assert all(0 not in tokenize(text) for text in texts)  # 0 is the unknown word
    assert any(0 in tokenize(t) for t in load_prompts("chexpert").sentences["Edema"].present)


def test_prompts_of_your_own(tmp_path):
    path = tmp_path / "mine.yaml"
    good = {"source": "me", "observations": {"Cavity": {"present": ["a cavity"], "absent": ["no cavity", "solid"]}}}
    path.write_text(yaml.safe_dump(good))
    prompts = load_prompts(path)
    assert (prompts.name, prompts.source) == ("mine", "me")
    assert prompts.sentences["Cavity"].absent == ("no cavity", "solid")
    wrong = {
        r"mine\.yaml:1: unknown field extra; known are source, observations": {**good, "extra": 1},
        "observations is \\[\\], should be a table of fields": {**good, "observations": []},
        "observations, Cavity lacks absent": {**good, "observations": {"Cavity": {"present": ["a cavity"]}}},
        "Cavity, present is 'a cavity', should be a list": {
            **good,
            "observations": {"Cavity": {"present": "a cavity", "absent": ["no"]}},
        },
    }
    for message, content in wrong.items():
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(MedSAEError, match=message):
            load_prompts(path)
    path.write_text("a: [")
    with pytest.raises(MedSAEError, match="not YAML"):
        load_prompts(path)
    with pytest.raises(MedSAEError, match="no prompts named 'radiology'"):
        load_prompts("radiology")


def test_scores_are_cosines_with_the_mean_of_what_states_less_what_denies():
    encoder = HookedVisionEncoder.from_pretrained("phantom-swin")
    prompts = load_prompts("phantoms")
    zero_shot = ZeroShot(encoder, prompts)
    images = torch.randn(5, 96, generator=torch.Generator().manual_seed(0))
    scores = zero_shot.scores(images)
    assert scores.shape == (5, 14) and zero_shot.labels == OBSERVATIONS

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    for c, ways in enumerate(prompts.sentences.values()):
        stated, denied = (
            unit(np.mean([unit(encoder.encode_text(t).numpy().astype(np.float64)[0]) for t in way], axis=0))
            for way in ways
        )
        expected = unit(images.numpy().astype(np.float64)) @ (stated - denied)
        np.testing.assert_allclose(scores[:, c], expected, atol=1e-5)


def test_auroc_is_scikit_learns_over_the_known_images():
    rng = np.random.default_rng(0)
    y = rng.choice([0.0, 1.0, np.nan], size=(60, 4))
    scores = np.round(rng.normal(size=(60, 4)) + np.nan_to_num(y), 1)  # ties
    y[:, 2], y[:, 3] = 1.0, np.nan
    got = aurocs(scores, y)
    for c in range(2):
        known = ~np.isnan(y[:, c])
        assert got[c] == pytest.approx(roc_auc_score(y[known, c], scores[known, c]))
    assert np.isnan(got[2:]).all()
