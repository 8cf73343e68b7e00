"""The main job: SAEs scored against clinical labels, beside baselines and the raw neurons of the hook.

Three protocols share one way: units are opened, each gives a matrix of image-level activations, and figures follow.
`evaluate` holds patients out; `sites.site_statistics` keeps the sums alone, for sites to share;
`paper.evaluate_as_paper` follows MedSAE (arXiv 2510.26411), where nothing is held out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.scores.baselines import Baselines
from medsae_plugin.scores.cross_fitting import cross_fit
from medsae_plugin.scores.images import Folds, LabelledImages
from medsae_plugin.scores.judge import JudgeStore
from medsae_plugin.scores.matrix import Aggregate, LatentMatrix, latent_matrices
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.results import Evaluation
from medsae_plugin.scores.scoring import HeldOut, Resampling, Scored, sum_up
from medsae_plugin.scores.seen import check_held_out, seen_patients
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.units import Latents, Units
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.fidelity import FidelitySums
from medsae_plugin.training.validation import fidelity_on


def evaluate(
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    out: str | Path | None = None,
    *,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    home: str | None = None,
    q: float = 0.3,
    folds: Folds | None = None,
    leave_out_trained: bool | Collection[str] = False,
    resampling: Resampling | None = None,
    baselines: Baselines = (),
    judge: JudgeStore | None = None,
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
        home: another split of the hospital that `select` is of, where `report` is of another hospital (`elsewhere`):
            what top latents lose from there to here is given, and their figures on both together.
        folds: cross-fitting: choose on all folds but one, score on that one, in turn, instead of `select` and `report`;
            see `cross_fitting`.
        leave_out_trained: leave out patients that an SAE was trained on, where the store is split otherwise than the
            SAE's own, instead of refusing them; or which patients are to be left out for that.
        q: a latent detects where it exceeds the (1 - q) quantile of its positive activations.
        resampling: permutations of patients' labels, 200 by default, with their seed.
        baselines: folders of `medsae baselines`, whose units are scored beside their SAEs, or what `open_baselines`
            returned.
        judge: another encoder's store of the same images, by whose embeddings monosemanticity is given as well.
        device: where SAEs are computed.

    Returns:
        The evaluation; `print` it for its table.

    Raises:
        MedSAEError: what `LabelledImages.held_out` (of folds, `cross_fitted`), `open_units`, `JudgeStore` and
            `check_held_out` refuse.
    """
    resampling = resampling or Resampling()
    images = LabelledImages.of(store, table).with_roles(select, report, folds)
    units = open_units(store, saes, resampling.seed, device, baselines)
    if not isinstance(leave_out_trained, bool):
        images = images.without_reported(leave_out_trained)
    trained_on, seen = check_held_out(units, store, images, leave_out_trained is True)
    images = images.without_reported(trained_on)
    if judge is not None:
        judge.ids(images)
    there = None if home is None else _at_home(units, store, table, select, home)
    held_out = HeldOut(images, q, resampling, there if there is not None and len(there.rows("report")) else None)
    with kept_or_scratch(out) as folder:
        matrices = unit_matrices(store, units, folder / "latents", aggregate, progress)
        scored = [_scored(store, *both, held_out, judge) for both in zip(units, matrices, strict=True)]
        evaluation = Evaluation.of(
            scored,
            Encoder.of(store),
            aggregate,
            counts(images),
            q=q,
            home=None if there is None else counts(there)["report"],
            judge=None if judge is None else judge.told,
            resampling=asdict(resampling),
            images_without_labels=int(np.isnan(images.labels).all(1).sum()),
            unreadable_images=len(store.failures),
        )
    for name, words in seen.items():
        evaluation[name].held_out_from = words
    if out is not None:
        evaluation.save(out)
    return evaluation


def unit_matrices(
    store: ActivationStore, units: Sequence[Units], folder: Path, aggregate: Aggregate, progress: bool
) -> list[LatentMatrix]:
    """The latent matrix of each, in a folder of its name."""
    folders = [folder / one.folder_name for one in units]
    return latent_matrices(store, units, folders, aggregate=aggregate, progress=progress)


def _at_home(
    units: Sequence[Units], store: ActivationStore, table: ImageTable, select: str, home: str
) -> LabelledImages:
    """With the roles of `HeldOut.home`, without patients that an SAE was trained on."""
    images = LabelledImages.of(store, table).held_out(select, home)
    patients = sorted(set(images.patients[images.members == "report"]))
    saes = [one for one in units if isinstance(one, Latents) and one.kind == "sae"]
    return images.without_reported({p for one in saes for p in seen_patients(one, store, patients) or ()})


def _scored(
    store: ActivationStore, units: Units, matrix: LatentMatrix, held_out: HeldOut, judge: JudgeStore | None
) -> Scored:
    images = held_out.images
    fidelity = fidelity_of(store, units, images)
    judged = None if judge is None else judge.sums(matrix, images)
    if images.folds:
        return cross_fit(units, matrix, held_out, fidelity, judged)
    sums = sum_up(matrix, images)
    return Scored(units, sums, fidelity=fidelity, matrix=matrix, held_out=held_out, judged=judged)


def fidelity_of(store: ActivationStore, units: Units, images: LabelledImages) -> FidelitySums | None:
    """How well an SAE reconstructs every row of `report`, labelled or not; None of what does not reconstruct."""
    if not isinstance(units, Latents):
        return None
    ids = images.frame["image_id"].to_numpy()[images.members == "report"]
    return fidelity_on(units.rows_from(store), units.sae, units.hook, ids)


@contextmanager
def kept_or_scratch(out: str | Path | None) -> Iterator[Path]:
    """The folder `out`, or one that is gone afterwards."""
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
