"""Which differences between SAEs are real: figures in the same bootstrap resamples of the patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from medsae_plugin.scores import metrics
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.resampling import PatientBootstrap, interval

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.store import ActivationStore

_BATCH_ROWS = 1024


@dataclass(frozen=True)
class Resampled:
    """The figures of an SAE (or of raw neurons) in every resample of the patients of `report`.

    figures: `(resamples,)` by name, such as `mean_top_r`. by_label: `(resamples, labels)` by name: `r` and `entropy` of
    each label's top latent.
    """

    figures: dict[str, Float[np.ndarray, " resamples"]]
    by_label: dict[str, Float[np.ndarray, "resamples labels"]]


def resample(
    top_activations: Float[np.ndarray, "rows labels"],
    images: LabelledImages,
    bootstrap: PatientBootstrap,
    mean_top_entropy: float,
) -> Resampled:
    """r and entropy of the top latents, which are held fixed, in every resample.

    Means are taken as in an evaluation: a label whose top latent is silent counts as r = 0, and is left out of entropy.
    Resampling adds noise to every r, and noise adds to entropy, so the means of entropy lie above the figure itself;
    they are moved down by as much as their own mean does.

    Args:
        top_activations: of each label its top latent on the images of `report`; zeros where it has none.
        mean_top_entropy: the figure itself.
    """
    labels = images.labels[images.rows("report")]
    r, entropy = [], []
    for c, activations in enumerate(top_activations.T):
        with_all = bootstrap.pearson(np.repeat(activations[:, None], labels.shape[1], axis=1), labels)
        r.append(with_all[:, c])
        entropy.append(metrics.entropy(with_all))
    by_label = {"r": np.stack(r, axis=1), "entropy": np.stack(entropy, axis=1)}
    varies = (np.nansum(labels, axis=0) > 0) & ((labels == 0).sum(0) > 0)
    known = ~np.isnan(by_label["entropy"]).all(0)
    entropies = _row_means(by_label["entropy"][:, known])
    figures = {
        "mean_top_r": _row_means(np.nan_to_num(by_label["r"])[:, varies]),
        "mean_top_entropy": entropies - (np.nanmean(entropies) - mean_top_entropy if known.any() else 0),
    }
    return Resampled(figures, by_label)


@torch.no_grad()
def explained_variance(
    store: ActivationStore, sae: SAE[Any], hook: str, images: LabelledImages, bootstrap: PatientBootstrap
) -> Float[np.ndarray, " resamples"]:
    """The SAE's explained variance on raw activations in every resample.

    In a resample the variance is taken about the mean of all rows of `report`, so that sums of images suffice.
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
    error, scatter = (bootstrap.sums(torch.cat(parts).numpy()) for parts in (errors, scatters))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scatter > 0, 1 - error / scatter, np.nan)


def _runs(store: ActivationStore, hook: str, rows: np.ndarray, batch: int) -> Any:
    """The activations of these images in order; images that follow each other are read at once."""
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        for first in range(0, len(run), batch):
            part = run[first : first + batch]
            yield store.image_rows(hook, slice(int(part[0]), int(part[-1]) + 1))


def differences(
    names: Sequence[str],
    points: Sequence[dict[str, float]],
    resampled: Sequence[Resampled],
    label_names: Sequence[str],
    pairs: Sequence[tuple[int, int]],
) -> pd.DataFrame:
    """Every figure of one SAE less that of another, for each pair, with its 95% interval and p value.

    p is two-sided, twice the share of resamples on the rarer side of 0, and never 0; `fdr` is Benjamini and Hochberg's
    over all rows.

    Args:
        points: the figures themselves, by the names in `Resampled.figures`, and `r: LABEL` of each label.
        pairs: which, as places in `names`.
    """
    rows = []
    for a, b in pairs:
        for figure, label, in_a, in_b in _shared(resampled[a], resampled[b], label_names):
            key = f"{figure}: {label}" if label else figure
            change = in_a - in_b
            low, high = interval(change)
            rows.append(
                {
                    "a": names[a],
                    "b": names[b],
                    "figure": figure,
                    "label": label,
                    "difference": points[a].get(key, np.nan) - points[b].get(key, np.nan),
                    "low": float(low),
                    "high": float(high),
                    "p": two_sided_p(change),
                }
            )
    frame = pd.DataFrame(rows, columns=["a", "b", "figure", "label", "difference", "low", "high", "p"])
    return frame.assign(fdr=metrics.benjamini_hochberg(frame["p"].to_numpy(dtype=np.float64)))


def two_sided_p(change: Float[np.ndarray, " resamples"]) -> float:
    """min(1, 2 (1 + the resamples on the rarer side of 0) / (1 + resamples)); nan where a tenth are undefined."""
    known = change[~np.isnan(change)]
    if len(known) < 0.9 * len(change) or not len(known):
        return float("nan")
    rarer = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (1 + rarer) / (1 + len(known))))


def _shared(a: Resampled, b: Resampled, label_names: Sequence[str]) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    whole = [(name, "", a.figures[name], b.figures[name]) for name in a.figures if name in b.figures]
    by_label = [("r", label, a.by_label["r"][:, c], b.by_label["r"][:, c]) for c, label in enumerate(label_names)]
    return whole + by_label


def _row_means(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known.any(1), np.nansum(values, axis=1) / known.sum(1), np.nan)
