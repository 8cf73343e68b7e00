"""MedCLIP as loaded here against the official code's values."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medsae_plugin.encoders import HookedVisionEncoder

NAMES = {"swin": "medclip-swin", "resnet50": "medclip-resnet50"}


@pytest.fixture(scope="module", params=NAMES)
def encoder_and_values(request, shared: Path, golden_medclip: Callable[[str], Path]):
    encoder = HookedVisionEncoder.from_pretrained(NAMES[request.param], weights=golden_medclip(request.param))
    return encoder, dict(np.load(shared / "golden" / f"medclip_{request.param}.npz"))


def test_pixels_are_the_official_extractors(encoder_and_values, shared: Path):
    encoder, _ = encoder_and_values
    expected = np.load(shared / "golden" / "pixel_values.npy")
    for image in (shared / "golden" / "frontal.jpg", Image.open(shared / "golden" / "frontal.jpg")):
        x = encoder.preprocess(image)
        assert x.shape == (1, 3, 224, 224) and x.dtype == torch.float32
        for channel in range(3):
            np.testing.assert_allclose(x[:, channel : channel + 1], expected, atol=1e-5)


def test_every_place_agrees_with_the_official_code(encoder_and_values, shared: Path):
    encoder, golden = encoder_and_values
    pixels = torch.from_numpy(np.load(shared / "golden" / "pixel_values.npy")).expand(-1, 3, -1, -1)
    with torch.no_grad():
        embedding, cache = encoder.run_with_cache(pixels)
    np.testing.assert_allclose(embedding, golden["hook_embedding"], atol=1e-5)
    places = [key for key in golden if "::" not in key and key != "text_embedding"]
    assert set(places) <= set(encoder.hook_specs)
    residuals = [name for name in encoder.hook_specs if name.endswith("hook_resid_post")]
    assert set(residuals) <= set(places)
    for name in places:
        ours, expected = cache[name].numpy(), golden[name]
        if ours.ndim == 3 and len(golden.get(f"{name}::shape", ())) == 4:  # the reference has a map
            ours = ours.transpose(0, 2, 1).reshape(golden[f"{name}::shape"])
        if f"{name}::shape" in golden:
            assert ours.shape == tuple(golden[f"{name}::shape"]), name
            moments = [ours.astype(np.float64).mean(), ours.astype(np.float64).std(ddof=1)]
            np.testing.assert_allclose(moments, golden[f"{name}::mean_std"], atol=1e-5, err_msg=name)
        corner = tuple(slice(0, n) for n in expected.shape)
        np.testing.assert_allclose(ours[corner], expected, atol=1e-5, err_msg=name)


def test_text_embedding_agrees_with_the_official_code(encoder_and_values):
    encoder, golden = encoder_and_values
    ids = torch.arange(5, 25).unsqueeze(0)
    ours = encoder.encode_text(ids, torch.ones_like(ids))
    np.testing.assert_allclose(ours, golden["text_embedding"], atol=1e-5)
