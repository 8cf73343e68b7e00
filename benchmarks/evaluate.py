"""The whole table of an evaluation, beside the plain way of computing it; and alone at CheXpert's size.

    python benchmarks/evaluate.py                  # both, each size in a process of its own: about half an hour
    python benchmarks/evaluate.py --n 1000 --k 4096    # one size beside the plain way
    python benchmarks/evaluate.py --alone          # 224,316 images, 8,192 latents

Both sides start from the same synthetic activations, 32 of K latents active an image, 14 observations (a tenth unknown)
and embeddings of 512 dimensions. The plain way is dense: `corrcoef` over latents and labels, a loop over all pairs of
images for the monosemanticity score, a loop over latents with `kthvalue` for detection. Ours starts from the dense
activations too, writes the sparse matrix and computes the same scores and AUROC and average precision besides. The run
alone starts from the sparse matrix, and adds the permutation null (200) and intervals over patients.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from medsae_plugin.scores import declared  # noqa: F401, which declares the figures
from medsae_plugin.scores.images import ROLES, LabelledImages
from medsae_plugin.scores.matrix import LatentMatrix, LatentWriter, MatrixManifest
from medsae_plugin.scores.registry import METRICS
from medsae_plugin.scores.scoring import HeldOut, Resampling, Scored, sum_up
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.scores.units import Units
from medsae_plugin.store.layout import EncoderInfo

ACTIVE, LABELS, D, Q = 32, 14, 512, 0.3
CHEXPERT = 224_316
SIZES = [(n, k) for k in (4096, 8192) for n in (1000, 3000, 6000)]
BATCH = 4096


def sparse_batches(n: int, k: int, seed: int = 0):
    """Activations of 32 of k latents an image, commoner and rarer ones, batch by batch."""
    rng = np.random.default_rng(seed)
    share = rng.pareto(1.5, k) + 0.05
    share /= share.sum()
    for first in range(0, n, BATCH):
        rows = min(BATCH, n - first)
        latent = np.sort(rng.choice(k, size=(rows, ACTIVE), p=share), axis=1)
        value = rng.exponential(size=(rows, ACTIVE)).astype(np.float32) + 0.01
        batch = sparse.csr_array((value.ravel(), latent.ravel(), np.arange(rows + 1) * ACTIVE), shape=(rows, k))
        batch.sum_duplicates()
        yield batch


def labelled_images(n: int, select: float, seed: int = 1) -> LabelledImages:
    """Images with labels and embeddings, a share `select` of which have that role."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, np.nan], p=[0.75, 0.15, 0.1], size=(n, LABELS))
    patients = np.char.add("patient", np.sort(rng.integers(0, max(1, n * 3 // 10), n)).astype(str))
    splits = np.where(rng.permutation(n) < n * select, "select", "report")
    embeddings = rng.normal(size=(n, D)).astype(np.float32) + 0.3
    return LabelledImages(
        pd.DataFrame({"image_id": np.arange(n), "path": "", "patient": patients, "split": splits}),
        tuple(f"observation {c}" for c in range(LABELS)),
        labels,
        splits={role: role for role in ROLES},
        d_embedding=D,
        embeddings=lambda rows: embeddings[rows],
    )


def write(batches, n: int, k: int, folder: Path) -> LatentMatrix:
    writer = LatentWriter(folder, k)
    for batch in batches:
        writer.add(batch)
    images = pd.DataFrame({"image_id": np.arange(n), "path": "", "patient": "", "split": ""})
    made_up = dict(images_sha256="", positions="all", hook="h", aggregate="max", sae_sha256=None, sae_config=None)
    encoder = EncoderInfo(name="made up", weights_sha256="", dtype="float32")
    writer.finish(MatrixManifest(encoder=encoder, n_latents=k, n_images=n, **made_up), images)
    return LatentMatrix(folder)


def plain_way(activations: np.ndarray, labels: np.ndarray, embeddings: np.ndarray) -> dict[str, np.ndarray]:
    """As the reference's scripts: unmentioned as 0, everything dense, loops over pairs and over latents."""
    y = np.nan_to_num(labels)
    n, k = activations.shape
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef(np.concatenate([activations, y], axis=1).T)[:k, k:]
    share = np.abs(np.nan_to_num(r))
    share /= np.maximum(share.sum(1, keepdims=True), 1e-12)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(1)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosine = unit @ unit.T
    scaled = activations / np.maximum(activations.max(0), 1e-12)
    weighted, weights = np.zeros(k, np.float64), np.zeros(k, np.float64)
    for i in range(n):
        for j in range(i + 1, n):
            pair = scaled[i] * scaled[j]
            weighted += pair * cosine[i, j]
            weights += pair
    f1 = np.zeros((k, y.shape[1]))
    dense = torch.from_numpy(activations)
    for latent in range(k):
        positive = dense[:, latent][dense[:, latent] > 0]
        if len(positive) == 0:
            continue
        threshold = positive.kthvalue(max(1, math.ceil((1 - Q) * len(positive)))).values
        fires = (dense[:, latent] > threshold).numpy()
        for c in range(y.shape[1]):
            f1[latent, c] = 2 * (fires & (y[:, c] == 1)).sum() / max(1, fires.sum() + (y[:, c] == 1).sum())
    return {"r": r, "entropy": entropy, "monosemanticity": weighted / np.maximum(weights, 1e-12), "f1": f1}


def beside(n: int, k: int) -> dict[str, float]:
    """Seconds of both ways on the same activations, and how far their scores are apart."""
    images = labelled_images(n, select=0)
    labels = np.nan_to_num(images.labels)
    images = replace(images, labels=labels)
    dense = np.concatenate([batch.toarray() for batch in sparse_batches(n, k)])
    embeddings = images.embeddings(slice(0, n))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        batches = (dense[i : i + BATCH] for i in range(0, n, BATCH))
        matrix = write(batches, n, k, Path(folder))
        sums = sum_up(matrix, images)["report"]
        ours = figures(matrix, images, dict.fromkeys(ROLES, sums), Resampling(1, 1))
        seconds = time.perf_counter() - start
    memory = peak_gib()
    start = time.perf_counter()
    plain = plain_way(dense, labels, embeddings)
    theirs = time.perf_counter() - start
    apart = np.nanmax(np.abs(ours["r"] - plain["r"]))
    score = ours["monosemanticity"]
    apart = max(apart, np.nanmax(np.abs(np.where(np.isnan(score), np.nan, score - plain["monosemanticity"]))))
    assert ours["auroc"].shape == (k, LABELS)
    return {"ours_s": seconds, "plain_s": theirs, "ours_gib": memory, "plain_gib": peak_gib(), "apart": float(apart)}


def alone(n: int, k: int) -> dict[str, float]:
    """Seconds of the whole table, with null and intervals, from the sparse matrix."""
    images = labelled_images(n, select=0.7)
    with tempfile.TemporaryDirectory() as folder:
        matrix = write(sparse_batches(n, k), n, k, Path(folder))
        start = time.perf_counter()
        figures(matrix, images, sum_up(matrix, images), Resampling())
        return {"seconds": time.perf_counter() - start, "gib": peak_gib()}


def figures(
    matrix: LatentMatrix, images: LabelledImages, sums: dict[str, LatentStatistics], resampling: Resampling
) -> dict[str, Any]:
    """Every declared figure."""
    units = Units("synthetic", "sae", "hook", D, matrix.n_latents)
    scored = Scored(units, sums, matrix=matrix, held_out=HeldOut(images, Q, resampling))
    return {name: scored[name] for name in METRICS if scored.has(name)}


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_a_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, help="images")
    parser.add_argument("--k", type=int, default=8192, help="latents")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.json:
        print(json.dumps(alone(args.n, args.k) if args.alone else beside(args.n, args.k)))
        return
    if not args.alone:
        columns = (("images", 8), ("latents", 9), ("plain", 11), ("ours", 9), ("ratio", 8))
        columns += (("plain GiB", 11), ("ours GiB", 10), ("apart", 10))
        print("".join(name.rjust(width) for name, width in columns))
        for n, k in [(args.n, args.k)] if args.n else SIZES:
            r = in_a_process("--n", str(n), "--k", str(k))
            print(
                f"{n:>8,}{k:>9,}{r['plain_s']:>10.1f}s{r['ours_s']:>8.2f}s{r['plain_s'] / r['ours_s']:>7.0f}x"
                f"{r['plain_gib']:>11.2f}{r['ours_gib']:>10.2f}{r['apart']:>10.1e}",
                flush=True,
            )
    if args.alone or not args.n:
        n = args.n or CHEXPERT
        r = in_a_process("--alone", "--n", str(n), "--k", str(args.k))
        print(
            f"alone: {n:,} images, {args.k:,} latents, {LABELS} observations: {r['seconds']:.0f} s, {r['gib']:.2f} GiB"
        )


if __name__ == "__main__":
    main()
