"""The job of `medsae confounders`: latents chosen on `select`, and what they lean on, on `report`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse
from tqdm import tqdm

from medsae_plugin.confounding.leaning import leaning
from medsae_plugin.confounding.partial import Covariate
from medsae_plugin.confounding.results import Confounders, Leaning, LeaningUnits
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.image_means import image_means
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.logistic import fit_head
from medsae_plugin.scores.matrix import Aggregate, LatentMatrix
from medsae_plugin.scores.metrics import top_latent
from medsae_plugin.scores.models import Encoder
from medsae_plugin.scores.opening import open_units
from medsae_plugin.scores.protocols import kept_or_scratch, unit_matrices
from medsae_plugin.scores.scoring import least_firing
from medsae_plugin.scores.seen import check_held_out
from medsae_plugin.scores.summary import counts
from medsae_plugin.scores.units import Units
from medsae_plugin.statistics.correlation import pearson_of
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
    permutations: int = 200,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Confounders:
    """What the latents of SAEs lean on, beside the raw neurons and a probe of all neurons.

    Of each label the top latent on `select`, and of an SAE every latent whose r there is above the 95 % quantile of the
    null of the largest r; each is set beside each covariate on `report`.

    Args:
        covariates: names of `table.covariates`; none is all that it has.
        permutations: of the null. seed: of these, and of the halves of a probe's patients.

    Raises:
        MedSAEError: what `LabelledImages.held_out`, `open_units` and `check_held_out` refuse; a covariate that the
            table does not have, or none.
    """
    images = LabelledImages.of(store, table).held_out(select, report)
    given = _covariates(images, covariates)
    units = [u for u in open_units(store, saes, seed, device) if u.kind in ("sae", "neurons")]
    check_held_out(units, store, images)
    made = []
    with kept_or_scratch(out) as folder:
        matrices = unit_matrices(store, units, folder / "latents", aggregate, progress)
        for one, matrix in zip(tqdm(units, "covariates", disable=not progress), matrices, strict=True):
            found = _of_units(one, matrix, images, given, permutations, seed)
            made.append(LeaningUnits(name=one.name, kind=one.kind, hook=one.hook, leanings=list(found)))  # type: ignore[arg-type]
    for hook in dict.fromkeys(one.hook for one in units):
        probed = _of_probe(store, hook, images, given, seed)
        made.append(LeaningUnits(name=f"probe of {hook}", kind="probe", hook=hook, leanings=list(probed)))
    splits = counts(images)
    result = Confounders(
        encoder=Encoder.of(store),
        aggregate=aggregate,
        covariates=[c.name for c in given],
        units=made,
        select=splits["select"],
        report=splits["report"],
    )
    if out is not None:
        result.save(out)
    return result


def _covariates(images: LabelledImages, names: Sequence[str]) -> list[Covariate]:
    """Those of the images of `report`."""
    has = list(images.covariates.columns)
    missing = [name for name in names if name not in has]
    if missing or not has:
        what = f"no covariate {', '.join(map(repr, missing))}" if missing else "no covariates"
        raise MedSAEError(
            f"the table has {what}; it has: {', '.join(has) or 'none'} (medsae table shows what was read)"
        )
    rows = images.rows("report")
    return [Covariate.of(images.covariates[name].iloc[rows]) for name in dict.fromkeys(names or has)]


def _of_units(
    units: Units,
    matrix: LatentMatrix,
    images: LabelledImages,
    covariates: Sequence[Covariate],
    permutations: int,
    seed: int,
) -> Iterator[Leaning]:
    rows = images.rows("select")
    labels, patients = images.labels[rows], images.patients[rows]
    r, fired = [], []
    for _, block in matrix.blocks():
        chosen_on = sparse.csr_array(block)[rows]
        fired.append(np.asarray((chosen_on > 0).sum(0)).ravel())
        r.append(pearson_of(sparse.csr_array(chosen_on.T.astype(np.float64)), labels))
    on_select, eligible = np.concatenate(r), np.concatenate(fired) >= least_firing(len(rows))
    top = top_latent(on_select, eligible)
    above = np.zeros(on_select.shape, dtype=bool)
    if units.kind == "sae":
        blocks = (sparse.csc_array(sparse.csr_array(block)[rows]) for _, block in matrix.blocks())
        null = largest_null(blocks, labels, patients, permutations, seed)
        bound = np.where(np.isnan(null).all(0), np.inf, np.quantile(np.nan_to_num(null, nan=-1), LEVEL, axis=0))
        above = eligible[:, None] & (np.nan_to_num(on_select) > bound)
    for c in range(len(top)):
        others = [j for j in np.flatnonzero(above[:, c]).tolist() if j != top[c]]
        for j in [int(top[c])] * bool(top[c] >= 0) + others:
            a = matrix.column(j)[images.rows("report")]
            more = {"latent": units.label(j), "top": j == int(top[c])}
            yield from _beside(a, c, images, covariates, more)


def _of_probe(
    store: ActivationStore, hook: str, images: LabelledImages, covariates: Sequence[Covariate], seed: int
) -> Iterator[Leaning]:
    """Logistic regressions on all neurons, fitted on `select`: their log-odds as an activation."""
    x = np.concatenate([part for _, part in image_means(store, hook)])
    select = images.rows("select")
    half = images.halves(seed)[select]
    for c in range(len(images.label_names)):
        y = images.labels[select, c]
        known = ~np.isnan(y)
        if len(np.unique(y[known])) == 2:
            head = fit_head(x[select][known], y[known], half[known])
            yield from _beside(head(x[images.rows("report")]), c, images, covariates, {})


def _beside(
    a: Float[np.ndarray, " reported"],
    c: int,
    images: LabelledImages,
    covariates: Sequence[Covariate],
    more: dict[str, Any],
) -> Iterator[Leaning]:
    rows = images.rows("report")
    for covariate in covariates:
        found = leaning(a, images.labels[rows, c], images.patients[rows], covariate, images.label_names[c])
        yield found.model_copy(update=more)
