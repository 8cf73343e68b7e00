"""Extraction beside the bare forward pass: `python benchmarks/extract.py`.

MedCLIP's Swin (random weights, 224 px) on grey JPEGs drawn here. Extraction decodes, computes, stores and checks; the
bare pass computes the same batches, already decoded, and stores nothing. Each figure is the best of interleaved runs,
since other work on the machine only ever slows one down.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medsae_plugin.data.tables import ImageTable, scan_folder
from medsae_plugin.encoders import HookedVisionEncoder, build_encoder, load_card
from medsae_plugin.store import extract

ONE_HOOK = ["hook_embedding"]
FIVE_HOOKS = [*(f"stages.{stage}.blocks.1.hook_resid_post" for stage in range(4)), "hook_embedding"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    encoder = build_encoder(load_card("medclip-swin")).to(args.device)
    with tempfile.TemporaryDirectory() as folder:
        table = draw_images(Path(folder) / "images", args.images)
        batches = decoded(encoder, table, args.batch_size)

        def extracting(hooks: list[str], positions: str) -> Callable[[int], None]:
            def run(repeat: int) -> None:
                out = Path(folder) / f"{len(hooks)}-{positions}-{repeat}"
                options = {} if args.workers is None else {"workers": args.workers}
                extract(
                    encoder,
                    table,
                    hooks,
                    out,
                    positions=positions,
                    batch_size=args.batch_size,
                    progress=False,
                    **options,
                )

            return run

        rows = {
            "bare forward": lambda _: bare_forward(encoder, batches),
            "extract, 1 hook": extracting(ONE_HOOK, "all"),
            "extract, 5 hooks, mean": extracting(FIVE_HOOKS, "mean"),
            "extract, 5 hooks, all positions": extracting(FIVE_HOOKS, "all"),
        }
        bare_forward(encoder, batches[:1])
        seconds: dict[str, list[float]] = {name: [] for name in rows}
        peak: dict[str, float] = {}
        for repeat in range(args.repeats):
            for name, run in rows.items():
                start = time.perf_counter()
                run(repeat)
                seconds[name].append(time.perf_counter() - start)
                peak.setdefault(name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    report({name: args.images / min(times) for name, times in seconds.items()}, peak, args)


def draw_images(root: Path, n: int) -> ImageTable:
    """Smooth noise of CheXpert-v1.0-small's size, as JPEG."""
    rng = np.random.default_rng(0)
    for i in range(n):
        path = root / f"patient{i:05d}" / "view1_frontal.jpg"
        path.parent.mkdir(parents=True)
        coarse = Image.fromarray(rng.integers(0, 256, (40, 48), dtype=np.uint8))
        coarse.resize((390, 320), Image.Resampling.BICUBIC).save(path, quality=90)
    return scan_folder(root)


def decoded(encoder: HookedVisionEncoder, table: ImageTable, batch_size: int) -> list[torch.Tensor]:
    paths = [table.image_path(i) for i in range(len(table))]
    return [encoder.preprocess(paths[i : i + batch_size]) for i in range(0, len(paths), batch_size)]


@torch.no_grad()
def bare_forward(encoder: HookedVisionEncoder, batches: list[torch.Tensor]) -> None:
    for batch in batches:
        encoder(batch).cpu()


def report(speed: dict[str, float], peak: dict[str, float], args: argparse.Namespace) -> None:
    bare, one = speed["bare forward"], speed["extract, 1 hook"]
    print(f"{args.images} images, batches of {args.batch_size}, {args.device}, {torch.get_num_threads()} threads\n")
    print(f"{'':<34}{'images/s':>9}{'of bare':>9}{'of 1 hook':>11}{'peak MiB':>10}")
    for name, value in speed.items():
        of_one = "" if name == "bare forward" else f"{value / one:.2f}"
        print(f"{name:<34}{value:>9.1f}{value / bare:>9.2f}{of_one:>11}{peak[name]:>10.0f}")
    print("\nPeak is of the main process, and includes what ran before it.")


if __name__ == "__main__":
    main()
