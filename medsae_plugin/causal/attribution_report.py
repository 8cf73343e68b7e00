"""What an attribution says of each observation: its strongest latents, and what its top latent is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool
from scipy import sparse

from medsae_plugin.causal.attribution import Attribution
from medsae_plugin.causal.interventions import contrast_with_random
from medsae_plugin.data.splits import split_by_patient
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.metrics import pearson, top_latent
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.text import aligned

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable

N_STRONGEST = 5
_HALVES = {"select": 0.5, "report": 0.5}


def summarise_attribution(attribution: Attribution, table: ImageTable, seed: int = 0) -> dict[str, Any]:
    """Per observation that is both scored and labelled:

    - `agreement`: Spearman's correlation over live latents of gradient times activation and ablation.
    - `strongest`: the latents whose ablation lowers the score most on the images with the finding, in the mean.
    - `top`: the top latent, of the largest r with the label on half of the patients (drawn by `seed`), and on the
      images of the other half with the finding, how far ablating it lowers the score, and ablating a random other live
      latent; the difference, with the interval of 95 % over patients.

    What is undefined (no image with the finding, no latent that fires) is null.

    Args:
        table: the images that were attributed, `attribution.rows` of it.

    Raises:
        MedSAEError: no label of the table is scored, or fewer than two patients.
    """
    read = table.take(attribution.rows)
    labels = [label for label in attribution.labels if label in read.label_names]
    if not labels:
        raise MedSAEError("no label of the table is among the scored observations, so nothing can be said of any")
    y = read.labels[:, [read.label_names.index(label) for label in labels]].astype(np.float64)
    halves = np.array(split_by_patient(list(read.frame["patient"]), _HALVES, seed))
    select, report = halves == "select", halves == "report"
    r = _pearson(attribution, labels, y, select)
    agreement = attribution.agreement()
    patients = read.frame["patient"].to_numpy()
    observations = []
    for c, (label, latent) in enumerate(zip(labels, top_latent(r), strict=True)):
        present = y[:, c] == 1
        observations.append(
            {
                "label": label,
                "positives": int(present.sum()),
                "agreement": number(agreement[label]),
                "strongest": _strongest(attribution, label, present),
                "top": _top(attribution, label, int(latent), r[latent, c], patients, present & report, seed),
            }
        )
    return {
        "images": len(read),
        "patients": int(read.frame["patient"].nunique()),
        "latents": attribution.n_latents,
        "live_latents": len(attribution.live),
        "observations": observations,
    }


def _pearson(attribution: Attribution, labels: list[str], y: np.ndarray, images: Bool[np.ndarray, " images"]) -> Any:
    shape = (len(attribution.rows), attribution.n_latents)
    activations = sparse.csr_array((attribution.activation, (attribution.image, attribution.latent)), shape=shape)
    statistics = LatentStatistics(attribution.n_latents, labels)
    statistics.update(activations[np.flatnonzero(images)], y[images])
    return pearson(statistics)


def _strongest(attribution: Attribution, label: str, images: Bool[np.ndarray, " images"]) -> list[dict[str, Any]]:
    if not images.any():
        return []
    c = attribution.labels.index(label)
    ablation = attribution.mean(attribution.ablation, images)[:, c]
    gradient = attribution.mean(attribution.gradient, images)[:, c]
    order = np.argsort(-ablation, kind="stable")[:N_STRONGEST]
    return [
        {"latent": int(attribution.live[j]), "ablation": float(ablation[j]), "gradient": float(gradient[j])}
        for j in order
    ]


def _top(
    attribution: Attribution,
    label: str,
    latent: int,
    r: float,
    patients: np.ndarray,
    images: Bool[np.ndarray, " images"],
    seed: int,
) -> dict[str, Any] | None:
    if latent < 0 or not images.any() or set(attribution.live) <= {latent}:
        return None
    contrast = contrast_with_random(attribution, latent, label, patients, images, seed=seed)
    return {"latent": latent, "r": float(r), **{key: number(value) for key, value in contrast._asdict().items()}}


def format_attribution(report: Mapping[str, Any]) -> str:
    """The report as a table, a row an observation."""
    rows = [["observation", "+", "strongest latents", "top", "r", "its fall", "random", "difference", "95 %", "rho"]]
    for o in report["observations"]:
        top = o["top"]
        strongest = " ".join(str(s["latent"]) for s in o["strongest"][:3])
        row = [o["label"], str(o["positives"]), strongest or "-"]
        if top is None:
            row += ["-"] * 6
        else:
            bounds = "-" if top["low"] is None else f"[{top['low']:+.3f}, {top['high']:+.3f}]"
            numbers = [top["fall"], top["random_fall"], top["difference"]]
            row += [str(top["latent"]), f"{top['r']:.2f}", *[f"{x:+.3f}" for x in numbers], bounds]
        rows.append([*row, "-" if o["agreement"] is None else f"{o['agreement']:.2f}"])
    return "\n".join(
        [
            f"{report['images']} images of {report['patients']} patients; {report['live_latents']} of "
            f"{report['latents']} latents fire.",
            "strongest latents: those whose ablation lowers the zero-shot score most, on images with the finding.",
            "top: of the largest r with the label on half of the patients. its fall, random: how far the score falls",
            "when it is ablated, and when a random live latent is, on the other half's images with the finding.",
            "95 %: the interval of the difference, over patients.",
            "rho: Spearman over live latents, gradient times activation against ablation.",
            "",
            *aligned(rows, rule_after=(1,)),
        ]
    )
