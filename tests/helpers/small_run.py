"""A sweep's output over planted activations at two layers, with images: four SAEs, compared.

Each is trained for a few steps, which writes what training writes, and then has its weights set (`set_weights`): its
latents read planted features off, whatever a short training would have learnt on this machine or that.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sae_lens import SAE

from helpers.planted import planted_rows, reading_weights, write_store
from medsae_plugin.comparison import load_grid, sweep
from medsae_plugin.data.tables import ImageTable, read_table
from medsae_plugin.naming.names import NamedUnit, Names
from medsae_plugin.naming.results import NameScores, TriedName
from medsae_plugin.scores import Resampling
from medsae_plugin.scores.units import sae_sha256
from medsae_plugin.store import ActivationStore
from medsae_plugin.training import Recipe

N, D, FEATURES, POSITIONS = 180, 16, 12, 4
OPTIONS = {"resampling": Resampling(20, 50, 0), "progress": False}
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
training: {total_training_samples: 2_400, batch_size: 120, lr: 3.0e-3, validate_every: 4, n_checkpoints: 1}
"""


@dataclass(frozen=True)
class SmallRun:
    """Its store, images, table, sweep, and names of `NAMED`'s latents."""

    store: ActivationStore
    images: Path
    table: ImageTable
    sweep: Path
    names: Path


def make(folder: Path) -> SmallRun:
    prepared = prepare(folder)
    sweep(*prepared, folder / "sweep", **OPTIONS)
    for seed, sae in enumerate(sorted((folder / "sweep" / "passes").glob("*/*/cfg.json"))):
        set_weights(sae.parent, seed)
    shutil.rmtree(folder / "sweep" / "comparison")
    sweep(*prepared, folder / "sweep", **OPTIONS)  # goes on with trained SAEs, to compare them
    store, _, table = prepared
    names = _names(folder, next((folder / "sweep").glob(f"passes/*/{NAMED}")))
    return SmallRun(store, folder / "images", table, folder / "sweep", names)


def prepare(folder: Path) -> tuple[ActivationStore, Recipe, ImageTable]:
    """What a sweep takes: a store, a recipe of four SAEs, and a table with images beside it."""
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
    return store, load_grid(folder / "grid.yaml"), read_table(images / "labels.csv", label_columns=LABELS)


def set_weights(folder: Path, seed: int) -> None:
    """Set the SAE in this folder: latents for the planted features, in an order of the seed, then ones that follow
    noise and ones that never fire."""
    sae = SAE.load_from_disk(folder)
    rng = np.random.default_rng(seed)
    idle, silent = sae.cfg.d_sae - FEATURES, sae.cfg.d_sae // 4
    noise = rng.normal(size=(idle, D))
    noise = torch.from_numpy(noise - noise.mean(1, keepdims=True)).float()  # at right angles to the common offset
    read = reading_weights(D, FEATURES)
    order, never = rng.permutation(FEATURES), torch.full((silent,), -9.0)
    with torch.no_grad():
        sae.W_enc.copy_(torch.cat([read["encoder"][order], 0.1 * noise]).T)
        sae.W_dec.copy_(torch.cat([read["decoder"][order], 0.1 * noise]))
        sae.b_enc.copy_(torch.cat([read["b_enc"][order], torch.full((idle - silent,), -0.1), never]))
        sae.b_dec.copy_(read["b_dec"])
    sae.cfg.apply_b_dec_to_input = False
    sae.save_model(folder)


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

    out = folder / "names"
    named = [
        NamedUnit(kind="latent", latent=str(j), status="named", concept=said, description=more, category="devices")
        for j, (said, more) in HOSTILE.items()
    ]
    units = (*named, NamedUnit(kind="latent", latent="5", status="skipped"))
    names = Names(made={"sae_sha256": sae_sha256(SAE.load_from_disk(sae)), "split": "train"}, units=units)
    names.save(out)
    counts = {"tp": 7, "fp": 2, "fn": 3, "tn": 8, "unanswered": 0}
    figures = {"balanced_accuracy": 0.75, "precision": 0.8, "recall": 0.7, "f1": 0.74, "p_value": 0.03}
    line = {"judge": "judge <i>one</i>", "condition": "latents", "latent": "0", "concept": HOSTILE[0][0], **counts}
    NameScores(
        names=names.made,
        split="test",
        trial="held-out",
        images_each=10,
        firing_quantile=0.3,
        seed=0,
        untested={},
        leak=None,
        judges=[],
        agreement=None,
        by_name=[TriedName(**{**line, **figures, "condition": said}) for said in ("latents", "shuffled")],
    ).save(out)
    return out
