"""Downstream fidelity: what zero-shot classification and retrieval keep when an SAE stands in for activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from medsae_plugin.causal.passes import PixelBatches, load_saes
from medsae_plugin.causal.results import Fidelity, Labelled, PromptSet, Spliced, TextCounts, ZeroShotFigures
from medsae_plugin.causal.retrieval import Texts, recall_at, texts_of
from medsae_plugin.data.prompts import Prompts
from medsae_plugin.encoders.splicing import output_hook
from medsae_plugin.encoders.zero_shot import ZeroShot
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.ranking import aurocs
from medsae_plugin.scores.registry import mean_known, number

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.encoders import HookedVisionEncoder

ORIGINAL, TOGETHER = "original", "all together"
RECALL_AT = (1, 5, 10)


def fidelity(
    encoder: HookedVisionEncoder,
    saes: Any,
    table: ImageTable,
    prompts: Prompts | None = None,
    *,
    batch_size: int = 32,
    workers: int | None = 0,
    progress: bool = True,
) -> Fidelity:
    """What the encoder's zero-shot findings and retrieval keep with an SAE spliced in (the vision counterpart of a
    language model's loss recovered).

    Each SAE is spliced in by itself, without the error term, and several of different hooks also all together. The
    encoder is measured as it is (original), with the SAE (spliced), and with the SAE's hook set to its mean over the
    images, position by position (ablated). `recovered = (spliced - ablated) / (original - ablated)`: 1 where nothing
    is lost, 0 where no more is left than without the image. It is None where the hook makes no difference.

    Args:
        saes: as to `open_latents`: folders or SAEs, one or several, or what `train_saes` returned. Folders are loaded
            to the encoder's device.
        table: its labels are scored where the prompts have them; its `report` column, if any, is what is retrieved.
        prompts: by default the package's for the encoder.

    Returns:
        Per observation the zero-shot AUROC, the mean over observations, and image-to-text recall@k (see
        `causal.retrieval`), for original, spliced, ablated, and what is recovered.

    Raises:
        MedSAEError: no SAE, no text tower, no label that the prompts know, an SAE that does not fit the encoder, no
            image that can be read.
    """
    named = load_saes(encoder, saes)
    prompts = prompts or encoder.card.own_prompts()
    labels = [label for label in table.label_names if label in prompts.sentences]
    if not labels:
        raise MedSAEError(
            f"the prompts {prompts.name} have none of the table's labels ({', '.join(table.label_names) or 'none'}); "
            f"they have {', '.join(prompts.sentences)}"
        )
    if encoder.acts_to_saes:
        raise MedSAEError(f"SAEs are spliced into {encoder.name} already; take them out with reset_saes() first")
    with encoder.saes(list(named.values())):
        pass  # refused now, not after the first pass
    groups, zero_shot = _groups(named), ZeroShot(encoder, prompts)
    batches = PixelBatches(encoder, table, batch_size=batch_size, workers=workers, progress=progress)
    embeddings = _all_embeddings(batches, groups)
    read = table.take(batches.read_rows)
    texts = texts_of(encoder, zero_shot, read)
    figures = {key: _figures(e, zero_shot, read, labels, texts) for key, e in embeddings.items()}
    return Fidelity(
        encoder=Encoder(name=encoder.name, weights_sha256=encoder.weights_sha256),
        prompts=PromptSet(name=prompts.name, source=prompts.source),
        images=len(read),
        patients=int(read.frame["patient"].nunique()),
        unreadable_images=len(batches.failures),
        labels_without_prompts=[label for label in table.label_names if label not in labels],
        texts=TextCounts(kind=texts.kind, texts=len(texts.embeddings), images=int((texts.own >= 0).sum())),
        observations=[_counts(read, label) for label in labels],
        original=figures[ORIGINAL, ""],
        candidates=[_spliced(name, group, figures) for name, group in groups.items()],
    )


class _MeanActivation:
    """The mean of a hook's activation over images, `(*position, d)`, and a hook that puts it in the place of any."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.n = 0

    def observe(self, activation: Tensor, hook: HookPoint) -> None:
        self.total = self.total + activation.cpu().double().sum(0)
        self.n += len(activation)

    def put(self, activation: Tensor, hook: HookPoint) -> Tensor:
        return torch.as_tensor(self.total / self.n).to(activation).expand_as(activation)


def _groups(saes: Mapping[str, SAE[Any]]) -> dict[str, list[SAE[Any]]]:
    """Each SAE by itself, and all together where each stands at a hook of its own."""
    groups = {name: [sae] for name, sae in saes.items()}
    hooks = [hook for sae in saes.values() for hook in {sae.cfg.metadata.hook_name, output_hook(sae)}]
    if len(saes) > 1 and len(set(hooks)) == len(hooks):
        groups[TOGETHER] = list(saes.values())
    return groups


def _all_embeddings(
    batches: PixelBatches, groups: Mapping[str, list[SAE[Any]]]
) -> dict[tuple[str, str], Float[Tensor, "images d"]]:
    """The original image embeddings, and those of each group spliced and ablated."""
    encoder = batches.encoder
    means = {hook: _MeanActivation() for group in groups.values() for hook in map(output_hook, group)}
    observing = [(hook, mean.observe) for hook, mean in means.items()]
    original = _embeddings(batches, "original", {(ORIGINAL, ""): partial(encoder.hooks, fwd_hooks=observing)})
    contexts: dict[tuple[str, str], Callable[[], AbstractContextManager[Any]]] = {}
    for name, group in groups.items():
        silencing = [(hook, means[hook].put) for hook in map(output_hook, group)]
        contexts[name, "spliced"] = partial(encoder.saes, group, use_error_term=False)
        contexts[name, "ablated"] = partial(encoder.hooks, fwd_hooks=silencing)
    return original | _embeddings(batches, "spliced and ablated", contexts)


@torch.no_grad()
def _embeddings(
    batches: PixelBatches, what: str, contexts: Mapping[tuple[str, str], Callable[[], AbstractContextManager[Any]]]
) -> dict[tuple[str, str], Float[Tensor, "images d"]]:
    """Image embeddings within each context, from one reading of the images."""
    parts: dict[tuple[str, str], list[Tensor]] = {key: [] for key in contexts}
    for _, pixels in batches.run(what):
        for key, context in contexts.items():
            with context():
                parts[key].append(batches.encoder(pixels).float().cpu())
    return {key: torch.cat(p) for key, p in parts.items()}


def _figures(
    embeddings: Float[Tensor, "images d"], zero_shot: ZeroShot, table: ImageTable, labels: Sequence[str], texts: Texts
) -> ZeroShotFigures:
    columns = [zero_shot.labels.index(label) for label in labels]
    # Each different embedding once: a matrix product may round equal rows differently, and break their ties.
    different, place = embeddings.unique(dim=0, return_inverse=True)
    scores = zero_shot.scores(different.to(zero_shot.stated.device))[:, columns].cpu()[place].numpy()
    values = aurocs(scores, table.labels[:, [table.label_names.index(label) for label in labels]])
    recall = recall_at(embeddings, texts, RECALL_AT)
    return ZeroShotFigures(
        auroc={label: number(value) for label, value in zip(labels, values, strict=True)},
        mean_auroc=number(mean_known(values)),
        recall={str(k): number(value) for k, value in recall.items()},
    )


def _spliced(name: str, group: list[SAE[Any]], figures: Mapping[tuple[str, str], ZeroShotFigures]) -> Spliced:
    original, spliced, ablated = figures[ORIGINAL, ""], figures[name, "spliced"], figures[name, "ablated"]
    return Spliced(
        name=name,
        hooks=[output_hook(sae) for sae in group],
        spliced=spliced,
        ablated=ablated,
        recovered=ZeroShotFigures(
            auroc={k: _recovered(v, spliced.auroc[k], ablated.auroc[k]) for k, v in original.auroc.items()},
            mean_auroc=_recovered(original.mean_auroc, spliced.mean_auroc, ablated.mean_auroc),
            recall={k: _recovered(v, spliced.recall[k], ablated.recall[k]) for k, v in original.recall.items()},
        ),
    )


def _recovered(original: float | None, spliced: float | None, ablated: float | None) -> float | None:
    if original is None or spliced is None or ablated is None or original == ablated:
        return None
    return (spliced - ablated) / (original - ablated)


def _counts(table: ImageTable, label: str) -> Labelled:
    column = table.labels[:, table.label_names.index(label)]
    return Labelled(label=label, positives=int((column == 1).sum()), known=int((~np.isnan(column)).sum()))
