"""The job of `medsae confounders`: latents chosen on `select`, and what they lean on, on `report`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy import sparse
from tqdm import tqdm

from medsae_plugin.confounding.covariates import Covariate
from medsae_plugin.confounding.leaning import LabelBeside
from medsae_plugin.confounding.results import Confounders, Leaning, LeaningUnits
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.cross_fitting import cross_fit, fold_of
from medsae_plugin.scores.images import Folds, LabelledImages
from medsae_plugin.scores.matrix import Aggregate, LatentMatrix
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.probes import ceiling_logits
from medsae_plugin.scores.protocols import kept_or_scratch, unit_matrices
from medsae_plugin.scores.scoring import HeldOut, Resampling, Scored, sum_up
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.units import Units
from medsae_plugin.statistics.permutation import largest_null
from medsae_plugin.store.reader import ActivationStore

LEVEL = 0.95  # of the null of the largest r, on `select`


def score_confounders(
    store: ActivationStore,
    saes: Any,
    table: ImageTable,
    covariates: Sequence[str] = (),
    out: str | Path | None = None,
    *,
    aggregate: Aggregate = "max",
    select: str = "train",
    report: str = "test",
    folds: Folds | None = None,
    leave_out_trained: bool = False,
    permutations: int = 200,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Confounders:
    """What the latents of SAEs lean on, beside the raw neurons and a probe of all neurons.

    Of each label the top latent on `select`, and of an SAE every latent whose r there is above the 95 % quantile of the
    null of the largest r; each is set beside each covariate, and all of them at once, on `report`. With folds top
    latents alone: one that is above the null on all folds' others was chosen on every image.

    Args:
        covariates: names of `table.covariates`; none is all that it has.
        folds, leave_out_trained: as of `evaluate`.
        permutations: of the null. seed: of these, and of the halves of a probe's patients.

    Raises:
        MedSAEError: what `LabelledImages.held_out` (of folds, `cross_fitted`), `open_units` and `check_held_out`
            refuse; a covariate that the table does not have; none that an image of `report` has.
    """
    images = LabelledImages.of(store, table).with_roles(select, report, folds).without_embeddings()
    units = [u for u in open_units(store, saes, seed, device) if u.kind in ("sae", "neurons")]
    images = images.without_reported(check_held_out(units, store, images, leave_out_trained)[0])
    given, lacking = _covariates(images, covariates)
    held_out = HeldOut(images, resampling=Resampling(permutations, seed=seed))
    beside = _labels_beside(held_out, given)
    made = []
    with kept_or_scratch(out) as folder:
        matrices = unit_matrices(store, units, folder / "latents", aggregate, progress)
        for one, matrix in zip(tqdm(units, "covariates", disable=not progress), matrices, strict=True):
            found = list(_of_units(_scored(one, matrix, held_out), matrix, held_out, beside))
            made.append(LeaningUnits(name=one.name, kind=one.kind, hook=one.hook, leanings=found))  # type: ignore[arg-type]
    for hook in dict.fromkeys(one.hook for one in units):
        logits = ceiling_logits(store, hook, held_out, seed)
        told = [c for c in range(len(beside)) if not np.isnan(logits[:, c]).any()]
        found = [leaning for c in told for leaning in beside[c].leanings(logits[:, c])]
        made.append(LeaningUnits(name=f"probe of {hook}", kind="probe", hook=hook, leanings=found))
    splits = counts(images)
    result = Confounders(
        encoder=Encoder.of(store),
        aggregate=aggregate,
        covariates=[c.name for c in given],
        lacking=lacking,
        units=made,
        select=splits["select"],
        report=splits["report"],
    )
    if out is not None:
        result.save(out)
    return result


def _covariates(images: LabelledImages, names: Sequence[str]) -> tuple[list[Covariate], dict[str, str]]:
    """Those of the images of `report`; and why some are left out."""
    has = list(images.covariates.columns)
    missing = [name for name in names if name not in has]
    if missing or not has:
        what = f"no covariate {', '.join(map(repr, missing))}" if missing else "no covariates"
        raise MedSAEError(
            f"the table has {what}; it has: {', '.join(has) or 'none'} (medsae table shows what was read)"
        )
    rows, split = images.rows("report"), images.splits["report"]
    every = [Covariate.of(images.covariates[name].iloc[rows]) for name in dict.fromkeys(names or has)]
    lacking = {one.name: f"left out, since no image of {split} has it" for one in every if not one.known.any()}
    if len(lacking) == len(every):
        raise MedSAEError(f"no image of {split} has {' or '.join(lacking)}; there are: {', '.join(has)}")
    return [one for one in every if one.name not in lacking], lacking


def _labels_beside(held_out: HeldOut, covariates: Sequence[Covariate]) -> list[LabelBeside]:
    fold = fold_of(held_out.images)
    names = held_out.images.label_names
    return [
        LabelBeside(name, y, held_out.patients, covariates, fold)
        for name, y in zip(names, held_out.labels.T, strict=True)
    ]


def _scored(units: Units, matrix: LatentMatrix, held_out: HeldOut) -> Scored:
    if held_out.images.folds:
        return cross_fit(units, matrix, held_out)
    return Scored(units, sum_up(matrix, held_out.images), matrix=matrix, held_out=held_out)


def _of_units(
    scored: Scored, matrix: LatentMatrix, held_out: HeldOut, beside: Sequence[LabelBeside]
) -> Iterator[Leaning]:
    """The top unit of each label, then, of an SAE that was chosen once, the others above the null."""
    in_folds, above = scored.folds_of_top, _above_null(scored, matrix, held_out)
    for c, label in enumerate(beside):
        top = int(scored.top[c])
        if top < 0:
            continue
        more = {"latent": scored.units.label(top), "chosen_in": None if in_folds is None else int(in_folds[c])}
        why = scored.no_interval[c] if held_out.images.folds else None
        for one in label.leanings(scored.top_activations[:, c], scored.firing[:, c], why):
            yield one.model_copy(update=more)
        for j in np.setdiff1d(np.flatnonzero(above[:, c]), [top]).tolist():
            a = matrix.column(j)[held_out.report]
            for one in label.leanings(a, a > 0):
                yield one.model_copy(update={"latent": scored.units.label(j), "top": False})


def _above_null(scored: Scored, matrix: LatentMatrix, held_out: HeldOut) -> Bool[np.ndarray, "units labels"]:
    """Whether a latent's r on `select` is above what the largest of all reaches there when labels are shuffled."""
    images, drawn = held_out.images, held_out.resampling
    if scored.units.kind != "sae" or images.folds:
        return np.zeros((scored.units.n, len(scored.label_names)), dtype=bool)
    rows = images.rows("select")
    blocks = (sparse.csc_array(sparse.csr_array(block)[rows]) for _, block in matrix.blocks())
    null = largest_null(blocks, images.labels[rows], images.patients[rows], drawn.n_permutations, drawn.seed)
    bound = np.where(np.isnan(null).all(0), np.inf, np.quantile(np.nan_to_num(null, nan=-1), LEVEL, axis=0))
    return scored.eligible[:, None] & (np.nan_to_num(scored["r_select"]) > bound)
