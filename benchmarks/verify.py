"""What training learns, over several seeds: each claim's figure with its spread, and whether its margin holds.

    python benchmarks/verify.py                # three seeds, about a minute each
    python benchmarks/verify.py --seeds 10     # seeds 0 to 9

A seed draws its own phantoms, patients' split, training data and initial weights. A claim is about the mean of its
figure over the seeds, since a short training does well or ill by luck; it fails where that mean is not above (or below)
its bound. Exits 1 where a claim fails. The figures differ a little from machine to machine, as sums are rounded in
other orders. Bounds are wide: what one seed more or less does must not break a claim.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sae_lens import SAE

import medsae_plugin as medsae
from medsae_plugin.causal import attribute, contrast_with_random, fidelity, load_saes
from medsae_plugin.causal.passes import PixelBatches
from medsae_plugin.data.prompts import load_prompts
from medsae_plugin.encoders import HookedVisionEncoder, ZeroShot, build_encoder
from medsae_plugin.encoders.cards import pretrained_folder
from medsae_plugin.phantoms import generate
from medsae_plugin.scores import Resampling, evaluate
from medsae_plugin.scores.ranking import aurocs

N_PHANTOMS, SIZE = 300, 96
HOOKS = {"embedding": "hook_embedding", "patches": "stages.2.blocks.3.hook_resid_post"}
TRAINING = medsae.TrainingConfig(total_training_samples=40_960, batch_size=256, lr=2e-3)
FEW = Resampling(n_permutations=9)
STANDS_FOR = 0.7  # the r with a finding, on training patients, of a latent that is said to stand for it


class Claim(NamedTuple):
    """Of the mean over seeds of a figure: it is above `bound`, or below it."""

    figure: str
    text: str
    above: bool
    bound: float

    def holds(self, values: np.ndarray) -> bool:
        return bool(values.mean() > self.bound if self.above else values.mean() < self.bound)


CLAIMS = (
    Claim("encoder", "phantom-swin: zero-shot AUROC on phantoms, mean over observations", True, 0.80),
    Claim("untrained encoder", "  an untrained one's", False, 0.65),
    Claim("recovered, embedding", "a trained SAE on the embedding keeps of that AUROC", True, 0.80),
    Claim("recovered, patches", "  one on the last stage's patches", True, 0.40),
    Claim("gain over neurons", "top latents' mean r on other patients, over the raw neurons'", True, -0.15),
    Claim("gain over untrained", "  over an untrained SAE's", True, -0.05),
    Claim("shuffled labels", "  with patients' labels shuffled, from 0", False, 0.12),
    Claim("stand for", f"findings that a latent stands for (r > {STANDS_FOR} on training patients)", True, 0.5),
    Claim("fall", "  ablating it lowers the finding's score by", True, 0.0),
    Claim("fall over random", "  more than ablating a random live latent, by", True, 0.0),
    Claim(
        "bundled, last block", "bundled SAEs: labels, of 14, that their top latent follows most, last block", True, 6.0
    ),
    Claim("bundled, embedding", "  embedding", True, 4.0),
    Claim("dictionary", "a planted dictionary's directions: mean cosine with the nearest learnt one", True, 0.90),
    Claim("chance dictionary", "  with the nearest untrained one", False, 0.70),
)


def figures_of(seed: int, folder: Path) -> dict[str, float]:
    """Every claim's figure for one seed."""
    labels = generate(N_PHANTOMS, folder / "phantoms", seed=1000 + seed, size=SIZE, progress=False)
    table = medsae.read_table(labels).split_by_patient(seed=seed, fractions={"train": 0.5, "test": 0.5})
    encoder = HookedVisionEncoder.from_pretrained("phantom-swin")
    store = medsae.extract(encoder, table, [*HOOKS.values()], folder / "store", seed=seed, progress=False)
    specs = [
        medsae.SAESpec("embedding", HOOKS["embedding"], "batchtopk", 8, options={"k": 8}, seed=seed),
        medsae.SAESpec("patches", HOOKS["patches"], "topk", 2, options={"k": 8}, seed=seed),
    ]
    folders = medsae.train_saes(store, specs, replace(TRAINING, seed=seed), folder / "saes", progress=False)
    test = table.take(np.flatnonzero(table.frame["split"] == "test"))
    return {
        **zero_shot_figures(encoder, test, seed),
        **fidelity_figures(encoder, folders, test),
        **score_figures(store, folders["embedding"], table, seed),
        **attribution_figures(encoder, folders["embedding"], store, table, test),
        **bundled_figures(store, table),
        **dictionary_figures(seed),
    }


def zero_shot_figures(encoder: HookedVisionEncoder, test: medsae.ImageTable, seed: int) -> dict[str, float]:
    torch.manual_seed(seed)
    blank = build_encoder(encoder.card)

    def mean_auroc(model: HookedVisionEncoder) -> float:
        scorer = ZeroShot(encoder, load_prompts("phantoms"))
        with torch.no_grad():
            batches = PixelBatches(model, test, progress=False).run("scoring")
            scores = torch.cat([scorer.scores(model(pixels)) for _, pixels in batches]).numpy()
        columns = [scorer.labels.index(label) for label in test.label_names]
        return float(np.nanmean(aurocs(scores[:, columns], test.labels)))

    return {"encoder": mean_auroc(encoder), "untrained encoder": mean_auroc(blank)}


def fidelity_figures(
    encoder: HookedVisionEncoder, folders: dict[str, Path], test: medsae.ImageTable
) -> dict[str, float]:
    found = fidelity(encoder, folders, test, progress=False)
    return {f"recovered, {name}": found[name].recovered.mean_auroc for name in folders}


def score_figures(store: Any, sae: Path, table: medsae.ImageTable, seed: int) -> dict[str, float]:
    def mean_r(labelled: medsae.ImageTable) -> dict[str, float]:
        evaluation = evaluate(store, [sae], labelled, resampling=FEW, progress=False)
        return {c.kind: c.value("mean_top_r") for c in evaluation.candidates}

    patients, code = np.unique(table.frame["patient"].to_numpy(), return_inverse=True)
    first = np.array([np.flatnonzero(code == k)[0] for k in range(len(patients))])
    shuffled = np.random.default_rng(seed).permutation(len(patients))
    true, wrong = mean_r(table), mean_r(replace(table, labels=table.labels[first][shuffled][code]))
    return {
        "gain over neurons": true["sae"] - true["neurons"],
        "gain over untrained": true["sae"] - true["untrained"],
        "shuffled labels": abs(wrong["sae"]),
    }


def attribution_figures(
    encoder: HookedVisionEncoder, folder: Path, store: Any, table: medsae.ImageTable, test: medsae.ImageTable
) -> dict[str, float]:
    """Means over the findings that some latent stands for on training patients, of effects on test patients."""
    sae = load_saes(encoder, [folder])[folder.name]
    train = table.take(np.flatnonzero(table.frame["split"] == "train"))
    with torch.no_grad():
        x = torch.cat([rows for _, rows in store.image_batches(HOOKS["embedding"], split="train")])
        latents = sae.encode(x).double().numpy()
    attribution = attribute(
        encoder, sae, ZeroShot(encoder, load_prompts("phantoms")), PixelBatches(encoder, test, progress=False)
    )
    contrasts = []
    for label, y in zip(train.label_names, train.labels.T, strict=True):
        known = ~np.isnan(y)
        with np.errstate(invalid="ignore"):
            r = np.nan_to_num(np.corrcoef(latents[known].T, y[known])[-1, :-1])
        present = test.labels[:, test.label_names.index(label)] == 1
        if r.max() > STANDS_FOR and present.any():
            contrasts.append(
                contrast_with_random(attribution, int(r.argmax()), label, test.frame["patient"].to_numpy(), present)
            )
    return {
        "stand for": float(len(contrasts)),
        "fall": float(np.mean([c.fall for c in contrasts])) if contrasts else 0.0,
        "fall over random": float(np.mean([c.difference for c in contrasts])) if contrasts else 0.0,
    }


def bundled_figures(store: Any, table: medsae.ImageTable) -> dict[str, float]:
    names = {"last-block": "bundled, last block", "embedding": "bundled, embedding"}
    saes = [pretrained_folder() / "medsae-phantom" / name for name in names]
    evaluation = evaluate(store, saes, table, resampling=FEW, progress=False)
    right = {c.name: sum(o.follows == o.label for o in c.observations) for c in evaluation.candidates}
    return {figure: float(right[name]) for name, figure in names.items()}


def dictionary_figures(seed: int, d: int = 16, n: int = 24, rows: int = 2000) -> dict[str, float]:
    """SAE-Lens's trainer, as `train_saes` sets it up, over sparse sums of known directions."""
    from medsae_plugin.training.specs import build_sae

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from helpers.planted import dictionary, planted_rows, write_store

    with tempfile.TemporaryDirectory() as temporary:
        store = write_store(Path(temporary) / "store", {"h": planted_rows(rows, d, n, seed)[0]}, seed=seed)
        spec = medsae.SAESpec("a", "h", "topk", 2, options={"k": 3}, seed=seed)
        config = medsae.TrainingConfig(200_000, batch_size=128, lr=3e-3, seed=seed)
        untrained = build_sae(store, spec, config).W_dec.detach()
        folder = medsae.train_saes(store, [spec], config, Path(temporary) / "out", progress=False)["a"]
        learnt = SAE.load_from_disk(folder).W_dec.detach()

    def nearest(decoder: torch.Tensor) -> float:
        return float((dictionary(d, n, seed) @ torch.nn.functional.normalize(decoder, dim=1).numpy().T).max(1).mean())

    return {"dictionary": nearest(learnt), "chance dictionary": nearest(untrained)}


def summary(found: list[dict[str, float]]) -> tuple[str, bool]:
    """The table of claims, and whether all hold."""
    lines, sound = [f"{'':78} {'mean':>7} {'sd':>6} {'least':>7} {'most':>7}  claimed"], True
    for claim in CLAIMS:
        values = np.array([figures[claim.figure] for figures in found])
        holds = claim.holds(values)
        sound &= holds
        spread = f"{values.std(ddof=1):6.3f}" if len(values) > 1 else f"{'-':>6}"
        lines.append(
            f"{claim.text:78} {values.mean():7.3f} {spread} {values.min():7.3f} {values.max():7.3f}  "
            f"{'>' if claim.above else '<'} {claim.bound:g}{'' if holds else '  FAILS'}"
        )
    return "\n".join(lines), sound


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 (default: 3)")
    seeds = range(parser.parse_args(arguments).seeds)
    if not seeds:
        parser.error("--seeds should be at least 1")
    found = []
    for seed in seeds:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            found.append(figures_of(seed, Path(temporary)))
        values = ", ".join(f"{name} {value:.3f}" for name, value in found[-1].items())
        print(f"seed {seed} ({time.monotonic() - start:.0f} s): {values}", flush=True)
    text, sound = summary(found)
    print(f"\nOver {len(found)} seeds on {torch.get_num_threads()} threads, torch {torch.__version__}:\n{text}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
