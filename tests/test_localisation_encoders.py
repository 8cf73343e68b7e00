"""Maps of real hooks through real preprocessing, of images whose one bright block the latent reads; and of pixels."""

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as tf
from helpers.planted import relu_sae
from PIL import Image
from torch import nn

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.data.regions import read_regions
from medsae_plugin.encoders import HookedVisionEncoder
from medsae_plugin.localisation import maps as figures
from medsae_plugin.localisation.attribution import AttributedMaps, default_stride
from medsae_plugin.localisation.places import Places, StoredMaps
from medsae_plugin.localisation.score import score_regions
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.units import Latents, Neurons
from medsae_plugin.store import extract

N, SIDE = 60, 64
FITS = ("pad", "crop", "stretch")
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "patch_size": 8}
MODELS = {
    "vit": (lambda: tf.ViTModel(tf.ViTConfig(**VIT, image_size=SIDE)), "blocks.1.hook_resid_post"),
    "swin": (
        lambda: tf.SwinModel(
            tf.SwinConfig(image_size=SIDE, embed_dim=16, depths=[2, 2], num_heads=[1, 2], window_size=4)
        ),
        "stages.1.blocks.0.hook_resid_post",
    ),
    "resnet": (
        lambda: tf.ResNetModel(
            tf.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
        ),
        "stages.1.blocks.0.hook_resid_post",
    ),
}


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """Tall and wide dark images with a bright block somewhere in the middle of two thirds of them, and its masks."""
    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    rows = []
    for k in range(N):
        shape = (128, 72) if k % 2 else (76, 136)
        name = f"patient{k // 2:03d}/view{k % 2}.png"
        pixels = rng.integers(20, 40, shape, dtype=np.uint8)
        if present := k % 3 > 0:
            top, left = (int(rng.integers(0, side - 30)) for side in shape)
            mask = np.zeros(shape, np.uint8)
            mask[top : top + 30, left : left + 30] = 255
            pixels[mask > 0] = 220
            _save(folder / "masks" / "block" / name, mask)
        _save(folder / "images" / name, pixels)
        rows.append((name, int(present), "train" if k < N // 2 else "test"))
    pd.DataFrame(rows, columns=["path", "block", "split"]).to_csv(folder / "labels.csv", index=False)
    table = read_table(folder / "labels.csv", root=folder / "images", label_columns=["block"])
    return table, read_regions(folder / "masks", table), folder


def _save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def encoder_of(model, family, fit, mean=0.5, **more):
    preprocessing = {"mode": "L", "size": SIDE, "fit": fit, "resample": "bilinear", "mean": [mean], "std": [0.25]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HookedVisionEncoder.from_module(
            model(),
            {"name": f"tiny-{family}", "description": "for tests", "licence": "MIT", "family": family,
             "source": {"format": "module"},
             "preprocessing": preprocessing, **more},
        )  # fmt: skip


def reader_of_brightness(encoder, store, table, hook):
    """A latent that reads a cell's own brightness off the hook, by least squares on the encoder's pixels."""
    info = store.hooks[hook]
    pixels = encoder.preprocess([table.image_path(k) for k in range(len(table))])[:, 0]
    cells = nn.functional.adaptive_avg_pool2d(pixels, info.grid).flatten().double()
    rows = store.rows_of(hook, np.arange(len(table)))[:, info.n_prefix :].flatten(0, 1).double()
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.double)], dim=1)
    gram = rows.T @ rows + 1e-3 * torch.eye(rows.shape[1], dtype=torch.double)
    weights = torch.linalg.solve(gram, rows.T @ cells).float()
    return relu_sae(hook, weights[None, :-1], b_enc=weights[-1:])


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("family", MODELS)
def test_a_latent_of_one_cell_hits_the_region_that_covers_it(blocks, family, fit, tmp_path):
    table, regions, _ = blocks
    model, hook = MODELS[family]
    encoder = encoder_of(model, family, fit)
    store = extract(encoder, table, [hook], tmp_path / "store", workers=0, progress=False)
    latent = Latents.of(reader_of_brightness(encoder, store, table, hook), "reader")
    images = LabelledImages.of(store, table).held_out()
    shown = images.rows("report")[images.labels[images.rows("report"), 0] == 1]

    source = StoredMaps(store, images)
    maps = np.concatenate([grids[:, 0] for _, (grids,) in source.batches(hook, [(latent, [0])], shown)])
    cells, pixels = source.cells(hook), encoder.preprocessor.shape
    finer = figures.bilinear(maps, pixels)

    def covers(framed_as, shape):
        config = {**encoder.preprocessing, "fit": framed_as}
        return Places(images, regions, type(encoder.preprocessor).from_config(config)).covers(shown, "block", shape)

    seen = covers(fit, cells).max((1, 2)) == 1
    assert seen.sum() >= 10
    assert figures.pointing(maps, covers(fit, cells))[seen].mean() > 0.9
    assert figures.pointing(finer, covers(fit, pixels))[seen].mean() > 0.9
    precision = {other: figures.average_precision(maps, covers(other, cells))[seen] for other in FITS}
    for other in set(FITS) - {fit}:
        found = np.nan_to_num(precision[other]).mean()  # nan where the region would be cut off
        assert found < precision[fit].mean() - 0.1, "regions lie where the image does"


class Linear(nn.Module):
    """The sum of weighted pixels: of which gradient and occlusion are known by formula."""

    def __init__(self):
        super().__init__()
        self.start = nn.Identity()
        self.weight = nn.Parameter(torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) / SIDE)

    def forward(self, pixels):
        return torch.einsum("b c r k, d c r k -> b d", self.start(pixels), self.weight)


def linear_encoder(fit):
    hooks = [{"name": "hook_start", "path": "start", "layout": "map"}]
    return encoder_of(Linear, "custom", fit, mean=0.1, hooks=hooks)  # of about the dark images' grey


@pytest.fixture(scope="module")
def linear(blocks, tmp_path_factory):
    table, *_ = blocks
    encoder = linear_encoder("pad")
    store = extract(encoder, table, ["hook_embedding"], tmp_path_factory.mktemp("linear") / "store", workers=0,
                    progress=False)  # fmt: skip
    return encoder, store


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_of_a_linear_encoder_maps_are_those_of_the_formula(blocks, linear, method):
    table, *_ = blocks
    encoder, store = linear
    images = LabelledImages.of(store, table)
    source = AttributedMaps.of(encoder, store, images, method, stride=16, progress=False)
    # 2 x0 - x1 + 100: it fires on all images, so that nothing is cut off.
    latent = Latents.of(relu_sae("hook_embedding", torch.tensor([[1.0, 1.0], [2.0, -1.0]]), b_enc=100.0), "sums")
    neurons = Neurons.of("hook_embedding", 2)
    rows = np.array([0, 7, 30])
    (_, (of_latent, of_neurons)), *rest = source.batches("hook_embedding", [(latent, [1]), (neurons, [0, 3])], rows)
    assert not rest and of_latent.shape == (3, 1, 4, 4) and of_neurons.shape == (3, 2, 4, 4)
    pixels = encoder.preprocess([table.image_path(k) for k in rows]).double().numpy()
    weight = encoder.vision_model.weight.detach().double().numpy()
    for maps, direction in ((of_latent[:, 0], [2, -1]), (of_neurons[:, 0], [1, 0]), (of_neurons[:, 1], [0, -1])):
        parts = (pixels * np.tensordot(direction, weight, 1)).sum(1)
        cells = parts.reshape(3, 4, 16, 4, 16).sum((2, 4))
        if method == "occlusion":
            padded = np.pad(cells, ((0, 0), (1, 1), (1, 1)))
            windows = sum(padded[:, r : r + 5, c : c + 5] for r in (0, 1) for c in (0, 1))
            cells = sum(windows[:, r : r + 4, c : c + 4] for r in (0, 1) for c in (0, 1)) / 4
        np.testing.assert_allclose(maps, cells, atol=1e-3)


@pytest.mark.parametrize("maps", ["gradient", "occlusion"])
def test_units_without_positions_are_localised_over_pixels(blocks, linear, maps):
    table, regions, _ = blocks
    encoder, store = linear
    with torch.no_grad():
        before = encoder.vision_model.weight.clone()
        encoder.vision_model.weight[0] = 1 / SIDE  # brightness, wherever it is
    try:
        sae = relu_sae(
            "hook_embedding", torch.tensor([[1.0, 0.0]]), b_enc=1000.0, encoder_sha256=encoder.weights_sha256
        )
        again = extract(encoder, table, ["hook_embedding"], store.path.parent / f"bright-{maps}", workers=0,
                        progress=False)  # fmt: skip
        found = score_regions(again, sae, table, regions, maps=maps, encoder=encoder, stride=8,
                              progress=False)  # fmt: skip
    finally:
        with torch.no_grad():
            encoder.vision_model.weight.copy_(before)
    best = found.units[0].best("block")
    assert found.maps == maps and found.stride == 8
    assert best.figures["pointing"].mean > 0.6 and best.figures["average_precision"].mean > 0.7
    assert best.figures["pointing"].gain > 0.2


def test_what_attribution_cannot_be_made_of_is_refused_in_words(blocks, linear):
    table, regions, _ = blocks
    encoder, store = linear
    images = LabelledImages.of(store, table)
    with pytest.raises(MedSAEError, match="stride of 30 pixels does not divide"):
        AttributedMaps.of(encoder, store, images, "gradient", stride=30)
    other = linear_encoder("crop")
    with pytest.raises(MedSAEError, match="prepared otherwise"):
        AttributedMaps.of(other, store, images, "gradient")
    with pytest.raises(MedSAEError, match="for maps by gradient or occlusion"):
        sae = relu_sae("hook_embedding", torch.eye(2), encoder_sha256=encoder.weights_sha256)
        score_regions(store, sae, table, regions, encoder=encoder, progress=False)


@pytest.mark.parametrize(("shape", "stride"), [((224, 224), 16), ((518, 518), 37), ((96, 96), 16), ((8, 8), 8)])
def test_the_default_stride_divides_the_input(shape, stride):
    assert default_stride(shape) == stride
