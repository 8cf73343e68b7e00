"""What the benchmarks share: interleaved runs, their medians and spread, and the kind of machine."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from medsae_plugin.machine import computes_in_bfloat16, cores


def interleaved(runs: Mapping[str, Callable[[int], object]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each run, by repeat: all run once, then all again, so that other work meets all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run(repeat)
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(taken) for name, taken in seconds.items()}


def ratio(seconds: np.ndarray, of: np.ndarray) -> tuple[float, float, float]:
    """The median over repeats of one run's time over another's in the same repeat, and the quartiles."""
    low, middle, high = np.percentile(seconds / of, [25, 50, 75])
    return middle, low, high


def machine(device: str = "cpu") -> str:
    """A line: the chip's name, cores and threads, torch, and whether the chip computes in bfloat16."""
    chip = torch.device(device)
    if chip.type == "cuda":
        name = torch.cuda.get_device_name(chip)
    else:
        listed = Path("/proc/cpuinfo")
        found = re.search(r"^model name\s*: (.+)$", listed.read_text(), flags=re.M) if listed.is_file() else None
        name = found[1] if found else platform.processor()
    has = "computes in" if computes_in_bfloat16(chip) else "does not compute in"
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    return f"{name}, {cores()} cores, {threads}; {device} {has} bfloat16"
