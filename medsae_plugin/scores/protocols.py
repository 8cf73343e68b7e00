"""The main job: SAEs scored against clinical labels, beside baselines and the raw neurons of the hook.

Three protocols share one way: units are opened, each gives a matrix of image-level activations, and figures follow.
`evaluate` holds patients out; `sites.site_statistics` keeps the sums alone, for sites to share;
`paper.evaluate_as_paper` follows MedSAE (arXiv 2510.26411), where nothing is held out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import Aggregate, LatentMatrix, latent_matrices
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.results import Evaluation
from medsae_plugin.scores.scoring import HeldOut, Resampling, Scored, sum_up
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.units import Latents, Units
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.fidelity import FidelitySums
from medsae_plugin.training.validation import fidelity_sums


def evaluate(
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    out: str | Path | None = None,
    *,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    q: float = 0.3,
    resampling: Resampling | None = None,
    baselines: Sequence[str | Path] = (),
    device: str = "cpu",
    progress: bool = True,
) -> Evaluation:
    """Score SAEs, untrained SAEs of their shape and the raw neurons beside them against the table's labels.

    The top latent of a label, and every detection threshold, are chosen on the images of the split `select`; all
    figures are those of the split `report`, whose patients are others. An image's activation at a spatial hook is the
    maximum (or the mean) over its positions. With `out`, `metrics.json` and `latents.parquet` are written there, and
    in `latents/` the sparse latent matrices, which a second evaluation of the same SAEs reuses.

    Args:
        saes: folders or SAEs, one or several, or what `train_saes` returned.
        q: a latent detects where it exceeds the (1 - q) quantile of its positive activations.
        resampling: permutations of patients' labels, 200 by default, with their seed.
        baselines: folders of `medsae baselines`, whose units are scored beside their SAEs.
        device: where SAEs are computed.

    Returns:
        The evaluation; `print` it for its table.

    Raises:
        MedSAEError: what `LabelledImages.held_out` and `open_units` refuse.
    """
    images = LabelledImages.of(store, table).held_out(select, report)
    held_out = HeldOut(images, q, resampling or Resampling())
    units = open_units(store, saes, held_out.resampling.seed, device, baselines)
    with kept_or_scratch(out) as folder:
        matrices = unit_matrices(store, units, folder / "latents", aggregate, progress)
        scored = [
            Scored(
                one,
                sum_up(matrix, images),
                fidelity=fidelity_of(store, one, report),
                matrix=matrix,
                held_out=held_out,
            )
            for one, matrix in zip(units, matrices, strict=True)
        ]
        evaluation = Evaluation.of(
            scored,
            store.manifest["encoder"],
            aggregate,
            counts(images),
            q=q,
            resampling=asdict(held_out.resampling),
            images_without_labels=int(np.isnan(images.labels).all(1).sum()),
            unreadable_images=len(store.failures),
        )
    if out is not None:
        evaluation.save(out)
    return evaluation


def unit_matrices(
    store: ActivationStore, units: Sequence[Units], folder: Path, aggregate: Aggregate, progress: bool
) -> list[LatentMatrix]:
    """The latent matrix of each, in a folder of its name."""
    folders = [folder / one.folder_name for one in units]
    return latent_matrices(store, units, folders, aggregate=aggregate, progress=progress)


def fidelity_of(store: ActivationStore, units: Units, split: str) -> FidelitySums | None:
    """How well an SAE reconstructs every row of a split; None of what does not reconstruct."""
    if not isinstance(units, Latents):
        return None
    return fidelity_sums(units.rows_from(store), units.sae, units.hook, split)


@contextmanager
def kept_or_scratch(out: str | Path | None) -> Iterator[Path]:
    """The folder `out`, or one that is gone afterwards."""
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
