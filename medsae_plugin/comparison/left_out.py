"""The figures of a compared SAE, or of raw neurons, without each patient: what differences are made of."""

from __future__ import annotations

import numpy as np

from medsae_plugin.comparison.differences import LeftOut, explained_variance, tops_left_out
from medsae_plugin.comparison.entries import Compared
from medsae_plugin.scores.scoring import HeldOut
from medsae_plugin.scores.units import Latents
from medsae_plugin.statistics.intervals import LEAST_PATIENTS


def left_out(compared: Compared, held_out: HeldOut) -> LeftOut:
    """`mean_top_r`, `mean_top_entropy`, `explained_variance` of an SAE, and `r: LABEL` of each label."""
    scores, images, jackknife = compared.scores, held_out.images, held_out.jackknife
    points = {name: scores.value(name) for name in ("mean_top_r", "mean_top_entropy")}
    points |= {f"r: {o.label}": o.value("r") for o in scores.observations}
    r = np.array([o.value("r") for o in scores.observations], dtype=np.float64)
    tops = tops_left_out(compared.top_activations, r, images, jackknife)
    figures = {name: tops[name] for name in ("mean_top_r", "mean_top_entropy")}
    degrees, no_interval = dict[str, float](), dict[str, str]()
    shown = held_out.patients_showing
    of_label = np.maximum(shown.min(0) - 1, 1)
    for c, o in enumerate(scores.observations):
        figures[f"r: {o.label}"], degrees[f"r: {o.label}"] = tops["r"][:, c], float(of_label[c])
        if o.no_interval:
            no_interval[f"r: {o.label}"] = o.no_interval
    known = np.array([o.no_interval is None for o in scores.observations]) & (shown > 0).all(0)
    for name in ("mean_top_r", "mean_top_entropy"):
        degrees[name] = max(float(of_label[known].sum()), 1.0)
        if scores.no_interval:
            no_interval[name] = scores.no_interval
    if isinstance(compared.units, Latents):
        store, hook = compared.units.rows_from(compared.source.store), compared.hook
        points["explained_variance"] = scores.value("explained_variance")
        figures["explained_variance"] = explained_variance(store, compared.units.sae, hook, images, jackknife)
        degrees["explained_variance"] = float(max(jackknife.n_patients - 1, 1))
        if jackknife.n_patients < LEAST_PATIENTS:
            no_interval["explained_variance"] = f"fewer than {LEAST_PATIENTS} patients"
    known_points = {name: np.nan if value is None else float(value) for name, value in points.items()}
    return LeftOut(known_points, figures, degrees, no_interval)
