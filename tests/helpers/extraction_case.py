"""A small real encoder and images for it, here and in processes that tests start and kill."""

import time
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medsae_plugin.data.tables import ImageTable, scan_folder
from medsae_plugin.encoders import EncoderCard, HookedVisionEncoder, build_encoder
from medsae_plugin.store import ActivationStore, extract

PREPROCESSING = {"mode": "L", "size": 32, "fit": "pad", "resample": "bicubic", "mean": [0.5], "std": [0.25]}
SWIN = {"image_size": 32, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
SPATIAL, EMBEDDING = "stages.1.blocks.0.hook_resid_post", "hook_embedding"


def tiny_encoder(family: str = "swin", seed: int = 0) -> HookedVisionEncoder:
    card = EncoderCard(
        name=f"tiny-{family}",
        description="random weights",
        licence="MIT",
        family=family,
        source={"format": "medsae", "path": "."},
        preprocessing=PREPROCESSING,
        vision=SWIN if family == "swin" else VIT,
        projection_dim=6,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build_encoder(card)
    encoder.weights_sha256 = f"{seed:064d}"
    return encoder


def make_images(root: Path, n: int, broken: Collection[int] = ()) -> ImageTable:
    """`n` noise images of three a patient, split by patient; the `broken` ones are text."""
    rng = np.random.default_rng(0)
    for i in range(n):
        path = root / f"patient{i // 3:05d}" / f"view{i % 3}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i in broken:
            path.write_text("not an image")
        else:
            Image.fromarray(rng.integers(0, 256, (30, 36), dtype=np.uint8)).save(path)
    return scan_folder(root).split_by_patient(seed=0, fractions={"train": 0.5, "val": 0.2, "test": 0.3})


def expected_activations(encoder: HookedVisionEncoder, table: ImageTable, hook: str, image: int) -> torch.Tensor:
    """One image's activations, from the image alone."""
    return encoder.activations(encoder.preprocess(table.image_path(image)), [hook])[hook][0]


def extract_slowly(root: Path, n: int, broken: tuple[int, ...], out: Path, log: Path, seconds: float) -> None:
    """In a process of its own: an extraction in shards of 6 images that notes every forward pass in `log`."""
    encoder = tiny_encoder()

    def note() -> None:
        time.sleep(seconds)
        with log.open("a") as file:
            file.write("pass\n")

    before_each_pass(encoder, note)
    table = scan_folder(root).split_by_patient(seed=0, fractions={"train": 0.5, "val": 0.2, "test": 0.3})
    assert len(table) == n
    store = extract(
        encoder,
        table,
        [SPATIAL, EMBEDDING],
        out,
        positions="sample:3",
        batch_size=4,
        images_per_shard=6,
        workers=1,
        progress=False,
    )
    assert isinstance(store, ActivationStore) and len(store.failures) == len(broken)


def before_each_pass(encoder: HookedVisionEncoder, action: Callable[[], None]) -> None:
    encoder.vision_model.register_forward_pre_hook(lambda module, args: action())
