"""SAEs scored against clinical labels on held-out patients, beside the raw neurons of the same hook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from medsae_plugin.errors import MedSAEError
from medsae_plugin.evaluation.candidates import Aggregate, Candidate, align_labels, load_candidates
from medsae_plugin.evaluation.output import summarise, write

if TYPE_CHECKING:
    from medsae_plugin.activations import ActivationStore
    from medsae_plugin.data.tables import ImageTable

# Latents of one chunk of rows; bounds the memory of an evaluation at spatial hooks.
_CHUNK_ELEMENTS = 2**23


def evaluate_saes(
    store: ActivationStore,
    sae_paths: Sequence[str | Path],
    table: ImageTable,
    out: str | Path | None = None,
    *,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    progress: bool = True,
) -> dict[str, Any]:
    """Score SAEs and the raw neurons beside them against the table's labels.

    The top latent of a label is chosen on the images of the split `select`, and its figures are those of the split
    `report`, whose patients are others. An image's activation at a spatial hook is the maximum (or the mean) over its
    positions. With `out`, `metrics.json` and `latents.parquet` are written there.

    Returns:
        The contents of `metrics.json`: counts of images and patients, and for every candidate its fidelity and
        sparsity on `report`, the top latent of each label (`r`, `entropy`, and `r_same_split`, the optimistic figure
        of the latent chosen on `report` itself), and the means of these.

    Raises:
        MedSAEError: a split without images, a patient in both splits, and what `align_labels` and `load_candidates`
            refuse.
    """
    labels = align_labels(store, table)
    splits = {"select": select, "report": report}
    _check_splits(store, select, report)
    candidates = load_candidates(store, sae_paths, table.label_names)
    for hook in dict.fromkeys(c.hook for c in candidates):
        _accumulate(store, [c for c in candidates if c.hook == hook], labels, splits, aggregate, progress)
    metrics = summarise(store, candidates, splits, aggregate, labels)
    if out is not None:
        write(metrics, candidates, Path(out))
    return metrics


def _check_splits(store: ActivationStore, select: str, report: str) -> None:
    patients = {split: set(store.images.loc[store.images["split"] == split, "patient"]) for split in (select, report)}
    for split, members in patients.items():
        if not members:
            has = ", ".join(sorted(set(store.images["split"]) - {""})) or "none"
            raise MedSAEError(f"the store has no images in split {split!r} (it has: {has})")
    both = patients[select] & patients[report]
    if both:
        raise MedSAEError(
            f"{len(both)} patients are in both {select!r} and {report!r}, so nothing is held out; split by patient"
        )


@torch.no_grad()
def _accumulate(
    store: ActivationStore,
    candidates: list[Candidate],
    labels: np.ndarray,
    splits: dict[str, str],
    aggregate: Aggregate,
    progress: bool,
) -> None:
    hook = candidates[0].hook
    row_of_image = {image: i for i, image in enumerate(store.images["image_id"])}
    widest = max(c.statistics["report"].n_latents for c in candidates)
    batch_images = max(1, _CHUNK_ELEMENTS // (widest * store.hooks[hook].rows_per_image))
    for role, split in splits.items():
        batches = store.by_image(hook, split=split, batch_images=batch_images)
        for image_ids, rows, row_image in tqdm(batches, desc=f"{hook} ({split})", disable=not progress, leave=False):
            y = labels[[row_of_image[i] for i in image_ids]]
            lengths = torch.bincount(row_image, minlength=len(image_ids))
            for candidate in candidates:
                candidate.update(role, rows.float(), lengths, y, aggregate)
