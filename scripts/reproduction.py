"""Runs docs/reproduction.md from its first to its last command on phantoms, and tells what each takes, and in full.

python scripts/reproduction.py --weights pytorch_model.bin --out runs/dry [--images 500] [--encoder CARD] [--passes 20]

Each command is run as it stands on the page; only its settings (`DATA=...`) are others, and the recipes are smaller:
fewer passes, and of each list of the sweep its first and last entry. Beside the time of each command stands what it
would be for CheXpert, where the work grows with images, with training steps or with the subset: of its processor time
the share that its progress bar tells of the whole, by as many as there are more. Run again in the same folder, less
`runs`, it takes the phantoms that are there.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from medsae_plugin.phantoms import generate
from medsae_plugin.scores.paper import PaperEvaluation
from medsae_plugin.training.recipes import SWEEPS, recipe_file

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "reproduction.md"
FULL_IMAGES, FULL_TRAINING, FULL_PASSES = 223_648, 223_414, 200  # train.csv and valid.csv; train.csv; of the recipes
FULL_SAES, FULL_SUBSET = 192, 1947
BARS = {"extract": "extracting", "train": "training", "score": "scoring"}
_SETTING = re.compile(r"(\w+)=(\S+)(?:\s+#.*)?")


@dataclass
class Ran:
    """A command as the shell had it; its seconds, those of processors, and its largest process's memory."""

    command: str
    seconds: float
    cpu: float
    gib: float
    output: str


def commands_of(page: str) -> tuple[dict[str, str], list[str]]:
    """The settings and the commands of a page's `sh` blocks, in order."""
    settings: dict[str, str] = {}
    commands: list[str] = []
    for block in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if match := _SETTING.fullmatch(line.strip()):
                settings[match[1]] = match[2]
            elif line.strip() and not line.startswith("#"):
                commands.append(" ".join(line.split()))
    return settings, commands


def as_chexpert(folder: Path, n: int, size: int) -> int:
    """Phantoms laid out as CheXpert is: `train`, `valid`, and their tables. How many images train."""
    if not (folder / "valid.csv").is_file():
        labels = pd.read_csv(generate(n, folder, seed=0, size=size))
        patients = labels["Path"].str.extract(r"images/(patient\d+)/")[0]
        rank = patients.rank(method="dense")
        for split, rows in (("valid", rank > 0.9 * rank.max()), ("train", rank <= 0.9 * rank.max())):
            (folder / split).mkdir()
            for patient in patients[rows].unique():
                (folder / "images" / patient).rename(folder / split / patient)
            there = labels[rows].copy()
            there["Path"] = there["Path"].str.replace("images", f"{folder.name}/{split}")
            there.to_csv(folder / f"{split}.csv", index=False)
    return len(pd.read_csv(folder / "train.csv"))


def smaller(recipe: Path, out: Path, passes: int, batch_size: int) -> int:
    """A recipe with fewer passes, and of each list its first and last entry; how many SAEs it has."""
    content: dict[str, Any] = yaml.safe_load(recipe.read_text("utf-8"))
    content["training"] |= {"epochs": passes, "batch_size": batch_size, "n_checkpoints": 0, "validate_every": 1000}
    count = 0
    for sae in content["saes"]:
        here = 1
        for fields in (sae, sae["options"]):
            for key, value in fields.items():
                if isinstance(value, list):
                    fields[key] = [value[0], value[-1]]
                    here *= 2
        count += here
    out.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return count


def run(command: str, settings: dict[str, str], folder: Path) -> Ran:
    """A command in a shell with these settings; what it prints is printed too."""
    print(f"\n$ {command}", flush=True)
    begun = time.perf_counter()
    log = folder / "last.log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, env={**os.environ, **settings}, stdout=file, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
    output = log.read_text("utf-8", errors="replace")
    print(re.sub(r"[^\n]*\r", "", output), flush=True)
    if status:
        raise SystemExit(f"failed: {command}")
    cpu = used.ru_utime + used.ru_stime
    return Ran(command, time.perf_counter() - begun, cpu, used.ru_maxrss / 2**20, output)


def on_bar(output: str, bar: str) -> float:
    """The seconds that the last state of each progress bar of this name tells, added up."""
    seconds, last = 0.0, 0.0
    for hours, minutes, rest in re.findall(rf"{bar}:[^\n\r]*\[(?:(\d+):)?(\d+):(\d+)<", output):
        now = 3600 * int(hours or 0) + 60 * int(minutes) + int(rest)
        seconds, last = (seconds + last, now) if now < last else (seconds, now)
    return seconds + last


def table(ran: list[Ran], growing: dict[str, list[tuple[str, float]]]) -> str:
    """What each command took, and what it would take in full: of those that grow, their bars with by how much."""
    lines = [f"{'command':<16}{'here':>9}{'processor':>12}{'memory':>11}{'in full':>20}"]
    for one in ran:
        name = " ".join(shlex.split(one.command)[:2])
        grown = sum(on_bar(one.output, bar) * factor for bar, factor in growing.get(name, []))
        full = f"{grown * one.cpu / one.seconds / 3600:,.1f} core hours" if name in growing else "as here"
        lines.append(
            f"{name.removeprefix('medsae '):<16}{one.seconds:>7.0f} s{one.cpu:>10.0f} s{one.gib:>7.2f} GiB{full:>20}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="MedCLIP's checkpoint, or one in its layout")
    parser.add_argument("--encoder", help="another card than the page's")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--size", type=int, default=390, help="of the phantoms, in pixels")
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=1024, help="of training")
    args = parser.parse_args()

    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    settings, commands = commands_of(PAGE.read_text("utf-8"))
    training = as_chexpert(out / settings["DATA"], args.images, args.size)
    smaller(recipe_file(settings["RECIPE"]), out / "recipe.yaml", args.passes, args.batch_size)
    swept = smaller(recipe_file(settings["GRID"], SWEEPS), out / "grid.yaml", args.passes, args.batch_size)
    ours = {"WEIGHTS": str(args.weights.resolve()), "RECIPE": "recipe.yaml", "GRID": "grid.yaml", "DEVICE": "cpu"}
    ours |= {"ENCODER": args.encoder} if args.encoder else {}
    ran = [run(command, {**settings, **ours}, out) for command in commands]

    steps = FULL_TRAINING * FULL_PASSES / (training * args.passes)
    subset = PaperEvaluation.open(out / "runs" / "paper").images
    growing = {
        "medsae extract": [(BARS["extract"], FULL_IMAGES / args.images)],
        "medsae train": [(BARS["train"], steps)],
        "medsae evaluate": [(BARS["score"], FULL_SUBSET / subset)],
        "medsae sweep": [
            (BARS["train"], steps * FULL_SAES / swept),
            (BARS["score"], FULL_SUBSET / subset * FULL_SAES / swept),
        ],
    }
    print(f"\n{args.images} images; {args.passes} passes over {training}; {swept} SAEs in the sweep")
    print(table(ran, growing))
    store = sum(file.stat().st_size for file in (out / "runs" / "store").rglob("*") if file.is_file())
    print(f"store: {store / 2**20:.1f} MiB here, {store * FULL_IMAGES / args.images / 2**30:.2f} GiB in full")
    sae = sum(file.stat().st_size for file in (out / "runs" / "saes" / "medsae").iterdir())
    print(f"an SAE: {sae / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
