"""Which differences between recipes are real: figures over the same patients, and over the seeds of a recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import t

from medsae_plugin.scores import metrics
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.statistics.intervals import LEVEL, variance
from medsae_plugin.statistics.jackknife import PatientJackknife
from medsae_plugin.statistics.multiple import benjamini_hochberg

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.store import ActivationStore

_BATCH_ROWS = 1024
_ROUNDING = 1e-6  # of figures that are made of float32 activations
BOTH, PATIENTS = "patients and seeds", "patients"


@dataclass(frozen=True)
class LeftOut:
    """The figures of an SAE (or of raw neurons), and what they are without each patient of `report`.

    points: the figures, by name, such as `mean_top_r`, and `r: LABEL` of each label. figures: `(patients,)`, by the
    same names. degrees: the degrees of freedom of each one's variance over patients. no_interval: why a figure has
    no interval over patients, by name; those that have one are not in it.
    """

    points: dict[str, float]
    figures: dict[str, Float[np.ndarray, " patients"]]
    degrees: dict[str, float]
    no_interval: dict[str, str]


@dataclass(frozen=True)
class Replicates:
    """SAEs of one layer and recipe that differ in their seed alone, as places among the compared; or one alone.

    drawn: whether chance enters into what they are, as it does not into raw neurons.
    """

    name: str
    places: tuple[int, ...]
    drawn: bool = True


def tops_left_out(
    top_activations: Float[np.ndarray, "rows labels"],
    r: Float[np.ndarray, " labels"],
    images: LabelledImages,
    jackknife: PatientJackknife,
) -> dict[str, Float[np.ndarray, "patients *labels"]]:
    """Without each patient: `mean_top_r` and `mean_top_entropy`, the means over labels, and `r` of each label.

    The top latents are held fixed. Means are taken as in an evaluation: a label whose top latent is silent counts as
    r = 0, and is left out of entropy. A label whose r is undefined without some patient is held where it is on all, at
    `r`.

    Args:
        top_activations: of each label its top latent on the images of `report`; zeros where it has none.
    """
    labels = images.labels[images.rows("report")]
    columns, entropy = [], []
    for c, activations in enumerate(top_activations.T):
        with_all = jackknife.pearson(np.repeat(activations[:, None], labels.shape[1], axis=1), labels)
        columns.append(with_all[:, c])
        entropy.append(metrics.entropy(with_all))
    found, entropies = np.stack(columns, axis=1), np.stack(entropy, axis=1)
    varies = (np.nansum(labels, axis=0) > 0) & ((labels == 0).sum(0) > 0)
    held = np.where(np.isnan(found).any(0), np.nan_to_num(r), found)
    known = varies & ~np.isnan(entropies).any(0)
    nothing = np.full(jackknife.n_patients, np.nan)
    return {
        "mean_top_r": held[:, varies].mean(1) if varies.any() else nothing,
        "mean_top_entropy": entropies[:, known].mean(1) if known.any() else nothing,
        "r": found,
    }


@torch.no_grad()
def explained_variance(
    store: ActivationStore, sae: SAE[Any], hook: str, images: LabelledImages, jackknife: PatientJackknife
) -> Float[np.ndarray, " patients"]:
    """The SAE's explained variance on raw activations without each patient.

    The variance is taken about the mean of all rows of `report`, so that sums of images suffice.
    """
    report = images.rows("report")
    per_image = store.hooks[hook].rows_per_image
    batch = max(1, _BATCH_ROWS // per_image)
    mean = torch.zeros(store.hooks[hook].d, dtype=torch.float64)
    for x in _runs(store, hook, report, batch):
        mean += x.double().sum(0) / (len(report) * per_image)
    errors, scatters = [], []
    for x in _runs(store, hook, report, batch):
        x_hat = sae.decode(sae.encode(x.to(sae.device))).cpu()
        errors.append((x - x_hat).double().square().view(-1, per_image * x.shape[-1]).sum(1))
        scatters.append((x.double() - mean).square().view(-1, per_image * x.shape[-1]).sum(1))
    error, scatter = (jackknife.sums(torch.cat(parts).numpy()) for parts in (errors, scatters))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scatter > 0, 1 - error / scatter, np.nan)


def _runs(store: ActivationStore, hook: str, rows: np.ndarray, batch: int) -> Any:
    """The activations of these images in order; images that follow each other are read at once."""
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        for first in range(0, len(run), batch):
            part = run[first : first + batch]
            yield store.image_rows(hook, slice(int(part[0]), int(part[-1]) + 1))


def differences(found: Sequence[LeftOut], pairs: Sequence[tuple[Replicates, Replicates]]) -> pd.DataFrame:
    """Every figure of one recipe less that of another, means over their seeds, with 95% interval and p value.

    The variance is that over patients, the jackknife's of the difference, and where both recipes have two seeds or
    more also that over seeds: of each recipe the variance of the figure between its seeds, over their number. The
    interval is Student's t with Satterthwaite's (1946) degrees of freedom. With one seed it is of patients only, and
    `over` says so. p is two-sided, of Student's t of no more degrees of freedom than the seeds have, for the far tail,
    on which `fdr` (Benjamini and Hochberg's over all rows) depends, does not forgive a variance that few seeds give too
    small by chance. `no_interval` says why there is none.

    Args:
        found: of every compared one.
    """
    rows = []
    for a, b in pairs:
        over = BOTH if all(len(x.places) > 1 or not x.drawn for x in (a, b)) else PATIENTS
        names = [n for n in found[a.places[0]].figures if n in found[b.places[0]].figures]
        for name in names:
            figure, _, label = name.partition(": ")
            known = {"a": a.name, "b": b.name, "figure": figure, "label": label}
            rows.append({**known, **_difference(found, a, b, name, over == BOTH), "over": over})
    columns = ["a", "b", "figure", "label", "difference", "low", "high", "p", "no_interval", "over"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(fdr=benjamini_hochberg(frame["p"].to_numpy(dtype=np.float64)))


def _difference(found: Sequence[LeftOut], a: Replicates, b: Replicates, name: str, seeds: bool) -> dict[str, Any]:
    sides = [[found[k] for k in x.places] for x in (a, b)]
    points = [np.array([one.points[name] for one in side]) for side in sides]
    difference = float(points[0].mean() - points[1].mean())
    nothing = {"difference": difference, "low": math.nan, "high": math.nan, "p": math.nan}
    if why := next((one.no_interval[name] for side in sides for one in side if name in one.no_interval), None):
        return {**nothing, "no_interval": why}
    left_out = [np.mean([one.figures[name] for one in side], axis=0) for side in sides]
    of_patients = variance(left_out[0] - left_out[1]), min(one.degrees[name] for side in sides for one in side)
    of_seeds = [(float(x.var(ddof=1)) / len(x), len(x) - 1.0) for x in points if seeds and len(x) > 1]
    error, df = combined([of_patients, *of_seeds])
    if math.isnan(difference) or math.isnan(error):
        return {**nothing, "no_interval": "the figure is undefined without one of the patients"}
    half = float(t.ppf((1 + LEVEL) / 2, df)) * error
    p = float(2 * t.sf(abs(difference) / error, min(df, sum(d for _, d in of_seeds) or df)))
    return {"difference": difference, "low": difference - half, "high": difference + half, "p": p, "no_interval": None}


def combined(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The standard error of what has independent parts of variance, each with its degrees of freedom, and its own
    (Satterthwaite 1946, Biometrics Bulletin 2:110)."""
    total = sum(v for v, _ in parts) + _ROUNDING**2
    return math.sqrt(total), total**2 / max(sum(v**2 / df for v, df in parts), 1e-300)
