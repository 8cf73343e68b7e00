"""What `medsae localize` costs, with regions of findings and inside of one: `python benchmarks/localize.py`.

A store of random activations of the size of a ViT-S/16's at 224 pixels (196 positions, 384 wide), an SAE of 3,072
latents, one box an image. The part that grows with images is measured, of two sizes, and set against CheXpert's
224,316 images, of which `--shown` have a region of a finding, and all one to be inside of. Peak memory is the process's
own, at the end of each size.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from medsae_plugin import read_table
from medsae_plugin.data.regions import read_regions
from medsae_plugin.localisation.score import score_regions
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.protocols import unit_matrices

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from helpers.planted import made_up_images, relu_sae, save_sae, write_store

SIDE, D, LATENTS, PIXELS = 14, 384, 3072, 224
CHEXPERT = 224_316
PREPROCESSING = {"mode": "L", "size": PIXELS, "fit": "pad", "resample": "bilinear", "mean": [0.5], "std": [0.5]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300, help="of the larger size (default: 300)")
    parser.add_argument("--shown", type=float, default=0.1, help="share of images with a region (default: 0.1)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [args.images // 3, args.images]
    found = {}
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            found[n] = measured(Path(folder), n)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        told = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in found[n].items())
        print(f"{n} images: {told}; peak {peak:.2f} GiB", flush=True)
    few, many = sizes
    # Of three images in four there is a finding, and every other one is reported on.
    for what, part, share in (("findings", 3 / 4, args.shown), ("inside", 1 / 2, 1.0)):
        each = (found[many][what] - found[few][what]) / (many - few) / part
        hours = each * CHEXPERT * share / 3600
        print(f"{what}: {1000 * each:.0f} ms an image, an SAE with its untrained one and the neurons, one core; of "
              f"{CHEXPERT * share:,.0f} images {hours:.1f} h")  # fmt: skip


def measured(folder: Path, n: int) -> dict[str, float]:
    """Seconds that the latent matrices, regions of a finding and `inside` take, each alone."""
    rng = np.random.default_rng(0)
    images = made_up_images(n, 0).assign(split=["train" if k < n // 2 else "test" for k in range(n)])
    images["patient"] = [f"{split}{k // 2}" for k, split in enumerate(images["split"])]
    rows = rng.normal(size=(n, SIDE * SIDE, D)).astype(np.float32)
    store = write_store(folder / "store", {"h": rows}, images=images, preprocessing=PREPROCESSING)
    for name in images["path"]:
        top, left = rng.integers(0, PIXELS - 60, 2)
        mask = np.zeros((PIXELS, PIXELS), np.uint8)
        mask[top : top + 60, left : left + 60] = 255
        for path, pixels in ((folder / "images" / name, mask), (folder / "masks" / "spot" / name, mask)):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    labels = pd.DataFrame({"Path": images["path"], "spot": np.arange(n) % 4 > 0})
    labels.astype({"spot": int}).to_csv(folder / "labels.csv", index=False)
    table = read_table(folder / "labels.csv", root=folder / "images", label_columns=["spot"])
    (folder / "masks" / "lungs").symlink_to(folder / "masks" / "spot")
    spots, lungs = (read_regions(folder / "masks" / name, table) for name in ("spot", "lungs"))
    weights = torch.randn(LATENTS, D, generator=torch.Generator().manual_seed(0)) / D**0.5
    sae = save_sae(folder / "sae", relu_sae("h", weights, b_enc=-2.0, encoder_sha256="0" * 64))
    seconds = {}
    start = time.perf_counter()
    unit_matrices(store, open_units(store, sae), folder / "out" / "latents", "max", progress=False)
    seconds["latent matrices"] = time.perf_counter() - start
    start = time.perf_counter()
    score_regions(store, sae, table, spots, folder / "out", progress=False)
    seconds["findings"] = time.perf_counter() - start
    start = time.perf_counter()
    score_regions(store, sae, table, lungs, folder / "out", inside="lungs", progress=False)
    seconds["inside"] = time.perf_counter() - start
    return seconds


if __name__ == "__main__":
    main()
