"""Extraction beside the bare forward pass in float32: `python benchmarks/extract.py`, or `--quick`.

Both of MedCLIP's encoders (random weights, 224 px) on grey JPEGs drawn here. Extraction decodes, computes, stores and
checks; the bare pass computes the same batches, already decoded, and stores nothing. All rows take turns and are told
as speed over the bare pass in the same turn: the median of the turns, and the quartiles. The hook is the last stage's,
at all positions. `auto` begins with the check of the first 32 images, which a long extraction does not notice; the
rows of bf16 are without it. Two processes share a store, each with half of the threads.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import interleaved, machine, ratio

from medsae_plugin.data.tables import ImageTable, scan_folder
from medsae_plugin.encoders import HookedVisionEncoder, build_encoder, load_card
from medsae_plugin.store import extract, plan_extraction

ENCODERS = {
    "medclip-swin": "stages.3.blocks.1.hook_resid_post",
    "medclip-resnet50": "stages.3.blocks.2.hook_resid_post",
}
FIVE_HOOKS = [*(f"stages.{stage}.blocks.1.hook_resid_post" for stage in range(4)), "hook_embedding"]
BARE = "bare forward, fp32"
SHARDS = 4  # for two processes to share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="64 images, one turn, fewer rows")
    args = parser.parse_args()
    if args.quick:
        args.images, args.repeats = 64, 1
    print(f"{machine(args.device)}\n{args.images} images, batches of {args.batch_size}, {args.repeats} turns")
    with tempfile.TemporaryDirectory() as folder:
        table = draw_images(Path(folder) / "images", args.images)
        for name, hook in ENCODERS.items():
            measure(name, hook, table, Path(folder) / name, args)


def measure(name: str, hook: str, table: ImageTable, folder: Path, args: argparse.Namespace) -> None:
    encoder = random_encoder(name, args.device)
    batches = decoded(encoder, table, args.batch_size)
    options = {} if args.workers is None else {"workers": args.workers}
    options |= {"batch_size": args.batch_size, "images_per_shard": max(args.batch_size, -(-args.images // SHARDS))}

    def extracting(hooks: str | list[str], positions: str = "all", precision: str = "fp32") -> Callable[[int], object]:
        def run(repeat: int) -> None:
            out = folder / f"{len(hooks)}-{positions}-{precision}-{repeat}"
            extract(encoder, table, hooks, out, positions=positions, precision=precision, progress=False, **options)

        return run

    chosen = plan_extraction(encoder, table, hook, folder / "none", precision="auto", **options).precision
    rows: dict[str, Callable[[int], object]] = {
        BARE: lambda _: bare_forward(encoder, batches),
        "extract, fp32": extracting(hook),
        "extract, bf16": extracting(hook, precision="bf16"),
        "extract, auto": extracting(hook, precision="auto"),
    }
    if not args.quick:
        rows["extract, fp32, 5 hooks, mean"] = extracting(FIVE_HOOKS, "mean")
        rows["extract, fp32, 5 hooks, all"] = extracting(FIVE_HOOKS)
    with ExitStack() as stack:
        two = [stack.enter_context(Sharing(name, table.root, args)) for _ in range(2)]
        for precision in ("bf16",) if args.quick else ("fp32", "bf16"):
            job = (hook, precision, options)
            rows[f"extract, {precision}, 2 processes"] = lambda repeat, job=job: together(two, folder, repeat, job)
        bare_forward(encoder, batches[:1])
        seconds = interleaved(rows, args.repeats)
    print(f"\n{name}, {hook}; auto: {chosen}")
    print(f"{'':<34}{'images/s':>9}{'of bare fp32':>14}{'quartiles':>16}")
    for row, taken in seconds.items():
        middle, low, high = (1 / x for x in ratio(taken, seconds[BARE]))
        print(f"{row:<34}{args.images / np.median(taken):>9.1f}{middle:>14.2f}{f'{high:.2f} to {low:.2f}':>16}")
    print(
        f"peak memory of the main process so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
    )


class Sharing:
    """A process with the encoder, that waits for extractions to share in."""

    def __init__(self, name: str, root: Path, args: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        threads = max(1, torch.get_num_threads() // 2)
        self.process = context.Process(target=share, args=(theirs, name, root, args.device, threads))

    def __enter__(self) -> Connection:
        self.process.start()
        assert self.pipe.recv() == "ready"
        return self.pipe

    def __exit__(self, *_: object) -> None:
        self.pipe.send(None)
        self.process.join()


def share(pipe: Connection, name: str, root: Path, device: str, threads: int) -> None:
    torch.set_num_threads(threads)
    encoder, table = random_encoder(name, device), scan_folder(root)
    pipe.send("ready")
    while (job := pipe.recv()) is not None:
        out, hook, precision, options = job
        extract(encoder, table, hook, out, precision=precision, progress=False, **options)
        pipe.send("done")


def together(pipes: list[Connection], folder: Path, repeat: int, job: tuple[str, str, dict[str, int]]) -> None:
    for pipe in pipes:
        pipe.send((folder / f"two-{job[1]}-{repeat}", *job))
    for pipe in pipes:
        assert pipe.recv() == "done"


def random_encoder(name: str, device: str) -> HookedVisionEncoder:
    torch.manual_seed(0)
    return build_encoder(load_card(name)).to(torch.device(device))


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


if __name__ == "__main__":
    main()
