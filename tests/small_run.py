"""A real run in seconds: planted activations at two layers, four SAEs trained by a sweep, compared, with images."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from planted import planted_rows, write_store

from medsae_plugin.activations import ActivationStore
from medsae_plugin.comparison import load_grid, sweep
from medsae_plugin.data.tables import ImageTable, read_table
from medsae_plugin.evaluation import Resampling
from medsae_plugin.evaluation.latents import sae_sha256

N, D, FEATURES, POSITIONS = 180, 16, 12, 4
NAMED = "embedding-seed0"
LABELS = ("Edema", "Fracture", "No <b>Finding</b>")
HOSTILE = {
    0: ("<script>alert(1)</script>", '</script><img src=x onerror="alert(2)">'),
    1: ("\"quotes\" & 'apostrophes'", "line\u2028separator"),
    2: ("right\u202eto left", "{{ 7 * 7 }} ${alert(3)}"),
}
RECIPE = """
saes:
  - hook: [stages.0.hook_resid_post, hook_embedding]
    architecture: topk
    expansion: 4
    options: {k: 3}
    seed: [0, 1]
training: {total_training_samples: 24_000, batch_size: 120, lr: 3.0e-3, validate_every: 40, n_checkpoints: 1}
"""


@dataclass(frozen=True)
class SmallRun:
    """Its store, images, table, sweep, and names of `NAMED`'s latents."""

    store: ActivationStore
    images: Path
    table: ImageTable
    sweep: Path
    names: Path


def make(folder: Path, memory: int = 2**30) -> SmallRun:
    rows, codes = planted_rows(N, D, FEATURES, seed=0)
    placed = np.random.default_rng(1).integers(0, POSITIONS, N)
    spatial = 3 + 0.05 * np.random.default_rng(2).normal(size=(N, POSITIONS, D)).astype(np.float32)
    spatial[np.arange(N), placed] = rows
    hooks = {"stages.0.hook_resid_post": spatial, "hook_embedding": rows}
    store = write_store(folder / "store", hooks)
    store = _with_preprocessing(store)
    frame = pd.DataFrame((codes[:, : len(LABELS)] > 0).astype(int), columns=list(LABELS))
    frame.insert(0, "Path", store.images["path"])
    images = folder / "images"
    images.mkdir()
    frame.to_csv(images / "labels.csv", index=False)
    for i, path in enumerate(store.images["path"]):
        (images / path).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (4, 4), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(images / path)
    (folder / "grid.yaml").write_text(RECIPE)
    table = read_table(images / "labels.csv")
    resampling = Resampling(20, 50, 0)
    recipe = load_grid(folder / "grid.yaml")
    sweep(store, recipe, table, folder / "sweep", memory=memory, resampling=resampling, progress=False)
    names = _names(folder, next((folder / "sweep").glob(f"passes/*/{NAMED}")))
    return SmallRun(store, images, table, folder / "sweep", names)


def _with_preprocessing(store: ActivationStore) -> ActivationStore:
    path = store.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["preprocessing"] = {
        "mode": "L", "size": 32, "fit": "pad", "resample": "bicubic", "mean": [0.5], "std": [0.5],
    }  # fmt: skip
    path.write_text(json.dumps(manifest))
    return ActivationStore(store.path)


def _names(folder: Path, sae: Path) -> Path:
    """What `medsae name` and `medsae name score` write, with names that a model should not have given."""
    from sae_lens import SAE

    sha = sae_sha256(SAE.load_from_disk(sae))
    units = [
        {"kind": "latent", "latent": str(j), "status": "named", "concept": concept, "description": description,
         "category": "devices", "similarity": None, "problem": "", "round": 0}
        for j, (concept, description) in HOSTILE.items()
    ]  # fmt: skip
    units.append({**units[0], "latent": "5", "status": "skipped", "concept": "", "description": ""})
    out = folder / "names"
    out.mkdir()
    (out / "names.json").write_text(json.dumps({"schema_version": 1, "made": {"sae_sha256": sha}, "names": units}))
    figures = {"balanced_accuracy": 0.75, "precision": 0.8, "recall": 0.7, "f1": 0.74}
    line = {"judge": "judge <i>one</i>", "condition": "latents", "latent": "0", "concept": HOSTILE[0][0], **figures}
    (out / "scores.json").write_text(json.dumps({"by_name": [line, {**line, "condition": "shuffled"}]}))
    return out
