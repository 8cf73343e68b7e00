"""MedSAE's space: the embedding divided by its norm, and pictures stretched as its code stretches them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.planted import relu_sae
from PIL import Image
from torch.nn import functional as F

import medsae_plugin as medsae
from medsae_plugin.data.prompts import load_prompts
from medsae_plugin.encoders import HookedVisionEncoder, Preprocessor, ZeroShot, ablate, load_card

UNIT, EMBEDDING = "hook_embedding_unit", "hook_embedding"
CARDS = ("medclip-resnet50", "medclip-swin")


@pytest.fixture(scope="module")
def encoder() -> HookedVisionEncoder:
    return HookedVisionEncoder.from_pretrained("phantom-swin")


@pytest.fixture(scope="module")
def pixels(encoder) -> torch.Tensor:
    return torch.randn(3, 3, *encoder.preprocessor.shape, generator=torch.Generator().manual_seed(0))


def test_it_is_the_embedding_divided_by_its_norm_and_changes_nothing(encoder, pixels):
    plain = encoder(pixels)
    out, cache = encoder.run_with_cache(pixels)
    assert torch.equal(out, plain) and torch.equal(cache[EMBEDDING], plain)
    torch.testing.assert_close(cache[UNIT], plain / plain.norm(dim=1, keepdim=True), rtol=0, atol=1e-7)
    assert torch.equal(encoder(pixels, stop_at_hook=UNIT), cache[UNIT])
    assert list(encoder.hook_specs)[-2:] == [EMBEDDING, UNIT]
    for dtype in (torch.bfloat16, torch.float64):
        other = HookedVisionEncoder.from_pretrained("phantom-swin", dtype=dtype)
        assert torch.equal(other.run_with_cache(pixels)[0], other(pixels)), dtype


def test_gradients_flow_through_it(encoder, pixels):
    """Of a score of the unit vector, back to the embedding, as of the quotient written out; and of the output."""
    direction = torch.randn(96, generator=torch.Generator().manual_seed(1))
    cache, forward, backward = encoder.get_caching_hooks([EMBEDDING, UNIT], incl_bwd=True)
    with encoder.hooks(forward, backward):
        F.cosine_similarity(encoder(pixels), direction).sum().backward()
    e = cache[EMBEDDING].clone().requires_grad_()
    (F.normalize(e, dim=1) @ F.normalize(direction, dim=0)).sum().backward()
    torch.testing.assert_close(cache[f"{EMBEDDING}_grad"], e.grad, rtol=1e-4, atol=1e-7)
    # At the unit vector it is that of the cosine by the vector itself, whose norm is not fixed there.
    u = cache[UNIT].clone().requires_grad_()
    F.cosine_similarity(u, direction).sum().backward()
    torch.testing.assert_close(cache[f"{UNIT}_grad"], u.grad, rtol=1e-4, atol=1e-6)


def test_a_patch_there_is_the_direction_of_the_output(encoder, pixels):
    other = F.normalize(torch.randn(3, 96, generator=torch.Generator().manual_seed(2)), dim=1)
    norms = encoder(pixels).norm(dim=1, keepdim=True)
    patched = encoder.run_with_hooks(pixels, fwd_hooks=[(UNIT, lambda a, hook: other)])
    torch.testing.assert_close(patched, norms * other)
    assert not encoder.run_with_hooks(pixels, fwd_hooks=[(UNIT, lambda a, hook: a * 0)]).any()


def test_zero_shot_sees_an_sae_that_is_spliced_in_there(encoder, pixels):
    sae = relu_sae(UNIT, torch.randn(40, 96, generator=torch.Generator().manual_seed(3)) / 10, b_dec=0.01)
    zero_shot = ZeroShot(encoder, load_prompts("phantoms"))
    unit = encoder(pixels, stop_at_hook=UNIT)
    spliced = zero_shot.scores(encoder.run_with_saes(pixels, saes=sae))
    torch.testing.assert_close(spliced, zero_shot.scores(sae(unit)))
    assert (spliced - zero_shot.scores(encoder(pixels))).abs().max() > 0.01
    # Edits of latents go with the error term: alone they change nothing, and by as much as the latent wrote.
    latents = sae.encode(unit)
    with encoder.latent_edits({sae: {7: ablate()}}):
        edited = encoder(pixels, stop_at_hook=UNIT)
    torch.testing.assert_close(edited, unit - latents[:, 7:8] * sae.W_dec[7], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CARDS)
def test_the_cards_differ_from_medclips_in_the_picture_alone(name):
    theirs, ours = load_card(name), load_card(f"{name}-medsae")
    differ = {key for key, value in vars(theirs).items() if vars(ours)[key] != value}
    assert differ == {"name", "description", "preprocessing"}
    differ = {key for key, value in ours.preprocessing.items() if theirs.preprocessing.get(key) != value}
    assert differ == {"fit", "resample", "truncate"}


def as_the_reference(image: Image.Image) -> np.ndarray:
    """ToTensor, Resize((224, 224)), ToPILImage and MedCLIP's mode L, by what torchvision's pages say they do."""
    x = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
    x = F.interpolate(x[None], size=(224, 224), mode="bilinear", align_corners=False, antialias=True)[0]
    return np.asarray(Image.fromarray((x * 255).byte().permute(1, 2, 0).numpy()).convert("L"))


@pytest.mark.parametrize("name", CARDS)
def test_radiographs_are_stretched_as_the_reference_stretches_them(name, shared: Path):
    preprocessor = Preprocessor.from_config(load_card(f"{name}-medsae").preprocessing)
    files = sorted((shared / "realcxr").rglob("*.jpg"))[::6]
    assert len({Image.open(file).size for file in files}) > 10
    for file in files:
        image = Image.open(file)
        seen, expected = preprocessor.to_array(image), as_the_reference(image)
        differences = np.abs(seen.astype(float) - expected)
        # Where a grey level comes out whole, float rounding may leave either side of it.
        assert differences.mean() < 0.05 and differences.max() <= 1, file.name
        pixels = preprocessor.normalize(seen[None])
        assert pixels.shape == (1, 3, 224, 224)
        expected_pixel = (seen[5, 7] / 255 - 0.5862785803043838) / 0.27950088968644304
        assert pixels[0, :, 5, 7].tolist() == pytest.approx([expected_pixel] * 3, abs=1e-6)


def test_pictures_in_colour_and_of_other_depths_are_stretched_too():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (300, 260, 3), dtype=np.uint8))
    config = {"size": [64, 96], "fit": "stretch", "resample": "bilinear", "truncate": True, "mean": [0.5], "std": [0.2]}
    seen = Preprocessor.from_config({"mode": "RGB", **config}).to_array(image)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1).double()
    expected = F.interpolate(x[None], size=(64, 96), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    assert seen.shape == (64, 96, 3) and ((expected - seen) > -1e-3).all() and ((expected - seen) < 1 + 1e-3).all()


def test_truncation_is_for_stretched_pictures(tmp_path):
    card = Path(medsae.__file__).parents[1] / "hooks" / "medclip-swin-medsae.yaml"
    (tmp_path / "mine.yaml").write_text(card.read_text().replace("fit: stretch", "fit: pad"))
    with pytest.raises(medsae.MedSAEError, match=r"mine\.yaml:\d+: preprocessing: truncate is for fit: stretch"):
        load_card(tmp_path / "mine.yaml")
