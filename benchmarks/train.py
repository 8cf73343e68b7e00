"""Steps of a training beside those of its peers: `python benchmarks/train.py`, or `--quick`.

A top-k SAE on rows of planted features. SAE-Lens alone steps its trainer on rows in memory, normalised before; ours
reads a store from disk and normalises; dictionary_learning's trainer has the rows in memory too. All take
turns, a few steps each, and are told as time over SAE-Lens in fp32 in the same turn: the median of the turns, and the
quartiles. `explained` is the explained variance on rows of other images when all have made as many steps.
`auto` is what `medsae train --precision auto` takes here. Measurements on the validation split, which come every so
many steps, are told below the table; checkpoints (by the clock) and the line that is shown are not in it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens.training.sae_trainer import SAETrainer
from timing import interleaved, machine, ratio

from medsae_plugin.store import ActivationStore
from medsae_plugin.store.shuffle import ShuffledRows
from medsae_plugin.training import SAESpec, TrainingConfig
from medsae_plugin.training.checkpoints import Checkpoints
from medsae_plugin.training.normalization import CenterAndScale
from medsae_plugin.training.plan import Plan
from medsae_plugin.training.precision import in_precision
from medsae_plugin.training.run import _Run
from medsae_plugin.training.specs import build_sae
from medsae_plugin.training.watch import Watch

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from helpers.libraries import original
from helpers.planted import planted_rows, write_store

HOOK = "hook_embedding"
BASE = "SAE-Lens alone, fp32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--images", type=int, default=40_000, help="rows; six tenths are trained on")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--turn", type=int, default=10, help="steps in a turn (default: 10)")
    parser.add_argument("--quick", action="store_true", help="40 steps, in turns of 4")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.turn = 40, 4
    with tempfile.TemporaryDirectory() as folder:
        rows, _ = planted_rows(args.images, args.d, 2 * args.d)
        store = write_store(Path(folder) / "store", {HOOK: rows}, per_shard=4096)
        spec = SAESpec("a", HOOK, "topk", args.latents / args.d, options={"k": args.k})
        config = TrainingConfig(
            args.steps * args.batch_size, batch_size=args.batch_size, lr=1e-3, device=args.device, n_checkpoints=0
        )
        chosen, why = in_precision("auto", store, [spec], config, None)
        made = contenders(store, spec, config, chosen.autocast, Path(folder))
        print(
            f"{machine(args.device)}\nd = {args.d}, {args.latents:,} latents, k = {args.k}, batches of "
            f"{args.batch_size:,}, {args.steps} steps in turns of {args.turn}; auto: {why}\n"
        )
        seconds = interleaved({c.name: c.turn(args.turn) for c in made}, args.steps // args.turn)
        report(made, seconds, args.turn, store)


@dataclass
class Contender:
    """step: makes one. sae: of normalised rows. beside: what a training does beside steps."""

    name: str
    step: Callable[[], object]
    sae: torch.nn.Module
    beside: str = ""

    def turn(self, steps: int) -> Callable[[int], None]:
        def run(_: int) -> None:
            for _ in range(steps):
                self.step()

        return run


def contenders(
    store: ActivationStore, spec: SAESpec, config: TrainingConfig, auto: bool, folder: Path
) -> list[Contender]:
    bf16, sparse = replace(config, autocast=True), replace(spec, architecture="medsae_topk")
    auto_config = replace(config, autocast=auto)
    made = [lens(BASE, store, spec, config), lens("SAE-Lens alone, bf16", store, spec, bf16)]
    made += theirs(store, spec, config)
    for name, one, how in (
        ("ours, fp32", spec, config),
        ("ours, auto", spec, auto_config),
        ("ours, medsae_topk, fp32", sparse, config),
        ("ours, medsae_topk, auto", sparse, auto_config),
    ):
        made.append(ours(name, store, one, how, folder / name))
    return made


def in_memory(store: ActivationStore, config: TrainingConfig) -> Iterator[torch.Tensor]:
    """Batches of normalised rows, the same that a store's stream has, in an order that is drawn before."""
    rows = normalised(store, "train").to(config.device)
    order = ShuffledRows(len(rows), config.seed)
    steps = [torch.from_numpy(order.take(k * config.batch_size, config.batch_size)) for k in range(config.steps)]
    for chosen in steps:
        yield rows[chosen.to(rows.device)]


def normalised(store: ActivationStore, split: str) -> torch.Tensor:
    rows = torch.cat([rows for _, rows in store.image_batches(HOOK, split, 4096)])
    return CenterAndScale.of(store, HOOK)(rows)


def lens(name: str, store: ActivationStore, spec: SAESpec, config: TrainingConfig) -> Contender:
    plan = Plan.of(store, [spec], config)
    sae = build_sae(store, plan.specs[0], plan.config)
    trainer: Any = SAETrainer(plan.config.for_sae_lens(""), sae, in_memory(store, config))
    return Contender(name, stepping(trainer), sae)


def ours(name: str, store: ActivationStore, spec: SAESpec, config: TrainingConfig, out: Path) -> Contender:
    """The very run of `train_saes`, stepped from outside as SAE-Lens's `fit` does."""
    plan = Plan.of(store, [spec], config)
    out.mkdir()
    watch = Watch(plan.config.steps, plan.config.batch_size, False)
    run = _Run(store, plan.specs, plan.config, out, Checkpoints(out, 5.0), watch, None, None)
    start = time.perf_counter()
    run.validation.measure(run.saes[spec.name], HOOK, run._scaled(plan.specs[0]))
    measured = f"{name}: a measurement on the validation split, each {config.validate_every:,} steps, takes"
    beside = f"{measured} {time.perf_counter() - start:.2f} s"
    return Contender(name, stepping(run.trainer), run.saes[spec.name], beside)


def stepping(trainer: Any) -> Callable[[], object]:
    """A step as in SAE-Lens's `fit`."""

    def step() -> None:
        trainer.maybe_reset_sparsity()
        trainer.step(next(trainer.data_provider))
        trainer._checkpoint_if_needed()
        trainer.n_training_steps += 1

    return step


def theirs(store: ActivationStore, spec: SAESpec, config: TrainingConfig) -> list[Contender]:
    """dictionary_learning's trainer, in fp32 and as its `trainSAE` does in autocast; none where it is not installed."""
    try:
        TopKTrainer = original("dictionary_learning.trainers.top_k", "dictionary-learning").TopKTrainer
    except pytest.skip.Exception as error:
        print(error, file=sys.stderr)
        return []
    d = store.hooks[HOOK].d
    made = []
    for name in ("fp32", "bf16"):
        trainer = TopKTrainer(
            config.steps, d, spec.width(d), spec.options["k"], layer=0, lm_name="", lr=config.lr,
            warmup_steps=config.steps // 20, decay_start=config.steps - config.steps // 5, seed=0, device=config.device,
        )  # fmt: skip
        made.append(their_steps(f"dictionary_learning, {name}", trainer, in_memory(store, config), name == "bf16"))
    return made


def their_steps(name: str, trainer: Any, batches: Iterator[torch.Tensor], autocast: bool) -> Contender:
    done = 0

    def step() -> None:
        nonlocal done
        batch = next(batches)
        around: AbstractContextManager[object] = (
            torch.autocast(batch.device.type, torch.bfloat16) if autocast else nullcontext()
        )
        with around:
            trainer.update(done, batch)
        done += 1

    return Contender(name, step, trainer.ae)


def report(made: list[Contender], seconds: dict[str, Any], turn: int, store: ActivationStore) -> None:
    x = normalised(store, "val")
    print(f"{'':<28}{'s a step':>10}{'of SAE-Lens fp32':>18}{'quartiles':>16}{'explained':>11}")
    for one in made:
        middle, low, high = ratio(seconds[one.name], seconds[BASE])
        taken = sorted(seconds[one.name])[len(seconds[one.name]) // 2] / turn
        with torch.no_grad():
            error = x - one.sae(x.to(next(one.sae.parameters()).device)).cpu()
        explained = 1 - error.square().sum() / (x - x.mean(0)).square().sum()
        print(f"{one.name:<28}{taken:>10.3f}{middle:>18.2f}{f'{low:.2f} to {high:.2f}':>16}{explained:>11.4f}")
    print("\n" + "\n".join(one.beside for one in made if one.beside))


if __name__ == "__main__":
    main()
