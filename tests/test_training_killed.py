"""A training that is killed goes on to the same files."""

import filecmp
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers.planted import planted_rows, write_store

from medsae_plugin.training import SAESpec, TrainingConfig, train_saes

SPECS = [
    SAESpec("one", "hook_embedding", "batchtopk", 1, options={"k": 3}),
    SAESpec("two", "hook_embedding", "standard", 2, options={"l1_coefficient": 0.5}),
]
CONFIG = TrainingConfig(25_600, batch_size=64, lr=3e-3, lr_warm_up_steps=50, validate_every=50, n_checkpoints=12)

SLOWLY = """
import sys, time
from test_training_killed import CONFIG, SPECS
from medsae_plugin.store import ActivationStore
from medsae_plugin.training import train_saes

class Slow(ActivationStore):
    def batches(self, *args, **kwargs):
        for batch in super().batches(*args, **kwargs):
            time.sleep(0.01)
            yield batch

train_saes(Slow(sys.argv[1]), SPECS, CONFIG, sys.argv[2], resume=True, progress=False)
"""


def run_until(store: Path, out: Path, checkpoints: int) -> int:
    """Train in a process of its own and kill it once there are so many checkpoints; its exit status."""
    tests = Path(__file__).parent
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, store, out], cwd=tests, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if len(list((out / "checkpoints").glob("*"))) >= checkpoints:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    return process.wait(timeout=10)


def test_a_killed_training_goes_on_to_the_same_files(tmp_path):
    rows, _ = planted_rows(600, 16, 24)
    store = write_store(tmp_path / "store", {"hook_embedding": rows})
    assert run_until(store.path, tmp_path / "killed", checkpoints=3) == -signal.SIGKILL
    assert run_until(store.path, tmp_path / "killed", checkpoints=8) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "one").exists()
    resumed = train_saes(store, SPECS, CONFIG, tmp_path / "killed", resume=True, progress=False)
    whole = train_saes(store, SPECS, CONFIG, tmp_path / "whole", progress=False)
    for name in whole:
        for file in ("sae_weights.safetensors", "cfg.json", "training.json"):
            assert filecmp.cmp(whole[name] / file, resumed[name] / file, shallow=False), (name, file)
