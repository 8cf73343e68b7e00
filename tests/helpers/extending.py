"""A store of phantoms and an SAE, for tests that extend the package from outside it, and the command line there."""

import subprocess
import sys
from pathlib import Path

import medsae_plugin as medsae
from medsae_plugin.phantoms import generate

HOOK = "hook_embedding"


def prepare(folder: Path) -> None:
    """`cxr/labels.csv`, `store` and `saes/embedding`, an SAE of a few steps."""
    labels = generate(80, folder / "cxr", seed=0, size=64, workers=0)
    table = medsae.read_table(labels).split_by_patient(seed=0, fractions={"train": 0.4, "val": 0.3, "test": 0.3})
    encoder = medsae.HookedVisionEncoder.from_pretrained("phantom-swin")
    store = medsae.extract(encoder, table, [HOOK], folder / "store", workers=0, progress=False)
    spec = medsae.SAESpec(name="embedding", hook=HOOK, architecture="topk", expansion=2, options={"k": 8})
    config = medsae.TrainingConfig(total_training_samples=640, batch_size=32, lr=1e-3)
    medsae.train_saes(store, [spec], config, folder / "saes", progress=False)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`medsae` with these words, in the folder, in a process of its own: what it registers stays there."""
    command = [sys.executable, "-W", "ignore", "-m", "medsae_plugin", *words, "--quiet"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)
