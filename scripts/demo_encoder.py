"""The demo encoder: a small Swin and a small BERT, trained contrastively on phantoms and short findings sentences.

python scripts/demo_encoder.py --out pretrained/phantom-swin   # trains, with seed 0; a quarter of an hour
python scripts/demo_encoder.py --evaluate 1000                 # zero-shot AUROC of the bundled one
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from medsae_plugin.data.prompts import PHANTOMS, load_prompts
from medsae_plugin.encoders import EncoderCard, HookedVisionEncoder, build_encoder, load_card, save_encoder
from medsae_plugin.encoders.tokenizing import TOKENIZER
from medsae_plugin.encoders.zero_shot import ZeroShot
from medsae_plugin.phantoms import FINDINGS, Case, draw_case, sample_case
from medsae_plugin.phantoms.cases import DEVICES, MILDEST, OPACITIES
from medsae_plugin.phantoms.generate import sample_rows
from medsae_plugin.phantoms.sentences import SENTENCES
from medsae_plugin.scores.ranking import aurocs

CARD = "phantom-swin"
NAMES = tuple(SENTENCES)
TOKENS = "hook_final_norm"
THREADS = 1  # of training, whose sums are rounded in another order with each number of threads
WORKERS = 2  # that draw
# A part of the picture shows a finding if its mask covers more than this share of it.
SHOWN = 0.06
EVALUATION_SEED = 20_000_000
EVALUATION_SIZE = 224


@dataclass(frozen=True)
class Examples:
    """Drawn phantoms: images (n, size, size) uint8, labels (n, 14) and cover (n, 14, rows, columns), float32."""

    images: np.ndarray
    labels: Tensor
    cover: Tensor


def training_case(index: int, seed: int) -> Case:
    """A case in which every finding is equally likely, so that rare ones are learnt as well as common ones."""
    rng = np.random.default_rng([seed, index])
    severities = {name: float(rng.uniform(MILDEST, 1)) for name in FINDINGS}
    present = {name for name in FINDINGS if name != "Lung Opacity" and rng.random() < 0.2}
    if rng.random() < 0.2:
        present = {DEVICES} if rng.random() < 0.25 else set()
    implied = [severities[name] for name in OPACITIES if name in present]
    if implied or (present - {DEVICES} and rng.random() < 0.2):
        present.add("Lung Opacity")
        severities["Lung Opacity"] = max(implied, default=severities["Lung Opacity"])
    findings = {name: severities[name] for name in FINDINGS if name in present}
    # sample_case's own findings are drawn from the projection; only what a patient is stays.
    return dataclasses.replace(sample_case(int(rng.integers(2**31))), findings=findings)


def draw_examples(card: EncoderCard, n: int, seed: int, *, workers: int = WORKERS) -> Examples:
    """Draw `n` training cases at the card's size, with the share of each last-stage cell that a finding covers."""
    size = card.preprocessing["size"]
    grid = size // card.vision["patch_size"] // 2 ** (len(card.vision["depths"]) - 1)
    example = partial(_example, size=size, grid=grid, seed=seed)
    if workers:
        with get_context("spawn").Pool(workers) as pool:
            drawn = list(tqdm(pool.imap(example, range(n), chunksize=32), total=n, desc="phantoms", unit="image"))
    else:
        drawn = [example(index) for index in range(n)]
    images, labels, cover = map(np.stack, zip(*drawn, strict=True))
    return Examples(images, torch.from_numpy(labels), torch.from_numpy(cover))


def _example(index: int, *, size: int, grid: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    phantom = draw_case(training_case(index, seed), size=size)
    cover = np.zeros((len(NAMES), grid, grid), np.float32)
    for name, mask in phantom.masks.items():
        cover[NAMES.index(name)] = mask.reshape(grid, size // grid, grid, size // grid).mean((1, 3))
    labels = np.array([name in phantom.findings for name in NAMES], np.float32)
    return phantom.image, labels, cover


def build_tokenizer() -> Tokenizer:
    """One token a word of the sentences; 0 is a word that is in none."""
    words = sorted({word for s in SENTENCES.values() for text in (*s.present, *s.absent) for word in text.split()})
    vocabulary = {"[UNK]": 0} | {word: i for i, word in enumerate(words, 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


class Contrast(nn.Module):
    """The contrastive losses, with their scales.

    A sentence matches every image of which it is true, MedCLIP's semantic matching (Wang et al. 2022, section 3.3): its
    target over the batch is uniform on those. An image is matched, observation by observation, with the sentence that
    states it against the one that denies it. The parts of the image are matched with the sentences in the same way
    (as the local contrast of GLoRIA, Huang et al. 2021), by the masks that phantoms come with.
    """

    def __init__(self, encoder: HookedVisionEncoder, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.encoder, self.tokenizer = encoder, tokenizer
        self.vision, self.text = nn.ModuleList([encoder.vision_model, encoder.projection_head]), encoder.text_tower
        self.logit_scale = nn.Parameter(torch.tensor(2.3))
        self.local_scale = nn.Parameter(torch.tensor(2.3))
        self.local_bias = nn.Parameter(torch.full((len(NAMES), 1), -1.0))

    def forward(self, pixels: Tensor, labels: Tensor, cover: Tensor, rng: np.random.Generator) -> Tensor:
        kept: list[Tensor] = []
        with self.encoder.hooks(fwd_hooks=[(TOKENS, lambda tokens, hook: kept.append(tokens))]):
            images = F.normalize(self.encoder(pixels), dim=-1)
        parts = F.normalize(self.encoder.projection_head(kept[0]), dim=-1)
        stated = self._embed([str(rng.choice(SENTENCES[name].present)) for name in NAMES])
        denied = self._embed([str(rng.choice(SENTENCES[name].absent)) for name in NAMES])
        logits = self.logit_scale.exp() * images @ torch.cat([stated, denied]).T
        true = torch.cat([labels, 1 - labels], dim=1)
        chosen = logits[:, : len(NAMES)] - logits[:, len(NAMES) :]
        to_text = F.binary_cross_entropy_with_logits(chosen, labels)
        targets = true / true.sum(0).clamp(min=1)
        to_image = -(targets * F.log_softmax(logits, dim=0)).sum(0)[true.any(0)].mean()
        local = self.local_scale.exp() * (parts @ (stated - denied).T).transpose(1, 2) + self.local_bias
        shown = (cover.flatten(2) > SHOWN).float()
        # No Finding, the first, is nowhere in particular; a finding shows in few parts.
        to_parts = F.binary_cross_entropy_with_logits(local[:, 1:], shown[:, 1:], pos_weight=torch.tensor(3.0))
        return to_text + 0.25 * to_image + 2 * to_parts

    def _embed(self, texts: Sequence[str]) -> Float[Tensor, "texts d"]:
        return F.normalize(self.text.encode([self.tokenizer.encode(text).ids for text in texts]), dim=-1)


def train(
    card: EncoderCard,
    out: str | Path,
    *,
    images: int = 9000,
    steps: int = 2000,
    batch_size: int = 64,
    lr: float = 2e-3,
    seed: int = 0,
    workers: int = WORKERS,
) -> HookedVisionEncoder:
    """Train an encoder of the card's shapes on phantoms and save it, in half precision, with its tokenizer.

    The same arguments give the same weights, on one kind of processor and with the same number of torch's threads.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 0])
    tokenizer, encoder = build_tokenizer(), build_encoder(card).train()
    contrast = Contrast(encoder, tokenizer)
    examples = draw_examples(card, images, seed, workers=workers)
    optimizer = torch.optim.AdamW(contrast.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    order = np.concatenate([rng.permutation(images) for _ in range(steps * batch_size // images + 1)])
    bar = tqdm(range(steps), desc="training", unit="step")
    for step in bar:
        rows = order[step * batch_size : (step + 1) * batch_size]
        pixels = encoder.preprocessor.normalize(examples.images[rows])
        gain, offset = torch.empty(2, len(rows), 1, 1, 1).uniform_(-1, 1)
        loss = contrast(pixels * (1 + 0.1 * gain) + 0.15 * offset, examples.labels[rows], examples.cover[rows], rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(contrast.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    encoder.logit_scale = float(contrast.logit_scale.detach())
    save_encoder(encoder.eval(), out, dtype=torch.float16)
    tokenizer.save(str(Path(out) / TOKENIZER))
    return encoder


@torch.no_grad()
def zero_shot_auroc(encoder: HookedVisionEncoder, n: int = 1000, seed: int = EVALUATION_SEED) -> dict[str, float]:
    """AUROC of each observation's zero-shot scores on `n` phantoms of natural prevalence, drawn at 224 pixels."""
    zero_shot = ZeroShot(encoder, load_prompts(PHANTOMS))
    scores, labels = [], []
    for row in sample_rows(n, seed):
        phantom = draw_case(row.case, size=EVALUATION_SIZE)
        scores.append(zero_shot.scores(encoder(encoder.preprocess(Image.fromarray(phantom.image))))[0].numpy())
        labels.append([float(name in phantom.findings) for name in NAMES])
    return dict(zip(NAMES, aurocs(np.array(scores), np.array(labels)), strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python scripts/demo_encoder.py")
    parser.add_argument("--out", type=Path, help="train and write the encoder to this folder")
    parser.add_argument("--evaluate", type=int, metavar="N", help="zero-shot AUROC on N fresh phantoms")
    parser.add_argument("--card", default=CARD, help="name or path of the card (default %(default)s)")
    parser.add_argument("--images", type=int, default=9000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.out is None and given.evaluate is None:
        parser.error("give --out, --evaluate, or both")
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    if given.out:
        train(load_card(given.card), given.out, images=given.images, steps=given.steps, seed=given.seed)
    if given.evaluate:
        by_name = zero_shot_auroc(HookedVisionEncoder.from_pretrained(given.card, weights=given.out), given.evaluate)
        rows = [*by_name.items(), ("mean", float(np.mean([*by_name.values()])))]
        sys.stdout.writelines(f"{name:<28}{value:.3f}\n" for name, value in rows)


if __name__ == "__main__":
    main()
