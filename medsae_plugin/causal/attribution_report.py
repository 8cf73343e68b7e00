"""What an attribution says of each observation: its strongest latents, and what its top latent is worth."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from medsae_plugin.causal.attribution import Attribution
from medsae_plugin.causal.interventions import contrast_with_random
from medsae_plugin.causal.results import PromptSet
from medsae_plugin.data.splits import folds_by_patient
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.metrics import pearson, top_latent
from medsae_plugin.scores.models import Encoder, Figures, Result
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.sums import LatentStatistics
from medsae_plugin.text import aligned, fixed

N_STRONGEST = 5


class StrongLatent(Figures):
    """How far a latent's ablation lowers an observation's score on images with the finding, and its estimate."""

    latent: int
    ablation: float
    gradient: float


class TopLatent(Figures):
    """The latent of the largest r, and how far ablating it lowers the score; see `interventions.Contrast`.

    With folds: the latent that most folds chose, and r its mean over them; the falls are of each fold's own.
    no_interval: why the difference has no interval; None where it has one.
    """

    latent: int
    r: float
    images: int
    patients: int
    fall: float | None
    random_fall: float | None
    difference: float | None
    low: float | None
    high: float | None
    no_interval: str | None = None


class Attributed(Figures):
    """One observation.

    agreement: Spearman's correlation over live latents of gradient times activation and ablation.
    strongest: the latents whose ablation lowers the score most on the images with the finding, in the mean.
    top: the top latent, of the largest r with the label on half of the patients, and on the images of the other half
        with the finding, how far ablating it lowers the score, and ablating a random other live latent; the
        difference, with the interval of 95 % over patients (`statistics.bootstrap`).
    """

    label: str
    positives: int
    agreement: float | None
    strongest: list[StrongLatent]
    top: TopLatent | None


class AttributionReport(Result):
    """An attribution, observation by observation; `str()` is the table. What is undefined is None."""

    FILE: ClassVar[str] = "attribution.json"
    COMMAND: ClassVar[str] = "medsae attribute"

    encoder: Encoder | None = None
    sae: str = ""
    prompts: PromptSet | None = None
    unreadable_images: int = 0
    images: int
    patients: int
    latents: int
    live_latents: int
    folds: int | None = None
    observations: list[Attributed]

    @classmethod
    def of(
        cls, attribution: Attribution, table: ImageTable, seed: int = 0, folds: int | None = None
    ) -> AttributionReport:
        """Of every observation that is both scored and labelled.

        Args:
            table: the images that were attributed, `attribution.rows` of it.
            seed: of the halves or folds of the patients and the resamples.
            folds: choose top latents on all of so many folds of the patients but one, and ablate them on that one, in
                turn, so that all patients count; None chooses on one half and ablates on the other.

        Raises:
            MedSAEError: no label of the table is scored, or fewer patients than two, or than folds.
        """
        read = table.take(attribution.rows)
        return cls(
            encoder=attribution.encoder,
            sae=attribution.sae,
            prompts=attribution.prompts,
            unreadable_images=attribution.unreadable_images,
            images=len(read),
            patients=int(read.frame["patient"].nunique()),
            latents=attribution.n_latents,
            live_latents=len(attribution.live),
            folds=folds,
            observations=_observations(attribution, read, seed, folds),
        )

    def __str__(self) -> str:
        rows = [
            [
                "observation",
                "+",
                "strongest latents",
                "top",
                "r",
                "its fall",
                "random",
                "difference",
                "95 %",
                "n",
                "rho",
            ],
            *[_row(o) for o in self.observations],
        ]
        chosen_on, ablated_on = "half of the patients", "the other half's"
        if self.folds:
            chosen_on = f"all of {self.folds} folds of the patients but one, in turn (shown: the one of most folds)"
            ablated_on = "that fold's"
        return "\n".join(
            [
                f"{self.images} images of {self.patients} patients; {self.live_latents} of {self.latents} latents "
                "fire.",
                "strongest latents: those whose ablation lowers the zero-shot score most, on images with the finding.",
                f"top: of the largest r with the label on {chosen_on}. its fall, random: how far the score falls",
                f"when it is ablated, and when a random live latent is, on {ablated_on} images with the finding.",
                "95 %: the interval of the difference, over patients (n of them); -: none, and below why.",
                "rho: Spearman over live latents, gradient times activation against ablation.",
                "",
                *aligned(rows, rule_after=(1,)),
                *(f"no interval: {', '.join(labels)} ({why})" for why, labels in self._without_interval().items()),
            ]
        )

    def _without_interval(self) -> dict[str, list[str]]:
        """The observations whose difference has no interval, by the reason."""
        reasons: dict[str, list[str]] = {}
        for o in self.observations:
            if o.top is not None and o.top.no_interval:
                reasons.setdefault(o.top.no_interval, []).append(o.label)
        return reasons


def _row(o: Attributed) -> list[str]:
    cells = [o.label, str(o.positives), " ".join(str(s.latent) for s in o.strongest[:3]) or "-"]
    if (top := o.top) is None:
        cells += ["-"] * 7
    else:
        bounds = "-" if top.low is None else f"[{top.low:+.3f}, {top.high:+.3f}]"
        falls = [f"{x:+.3f}" for x in (top.fall, top.random_fall, top.difference)]
        cells += [str(top.latent), f"{top.r:.2f}", *falls, bounds, str(top.patients)]
    return [*cells, fixed(o.agreement)]


def _observations(attribution: Attribution, read: ImageTable, seed: int, folds: int | None) -> list[Attributed]:
    labels = [label for label in attribution.labels if label in read.label_names]
    if not labels:
        raise MedSAEError("no label of the table is among the scored observations, so nothing can be said of any")
    y = read.labels[:, [read.label_names.index(label) for label in labels]].astype(np.float64)
    patients = read.frame["patient"].to_numpy()
    fold = folds_by_patient(patients.tolist(), folds or 2, seed, y)
    reported = range(folds) if folds else (1,)
    r = {k: _pearson(attribution, labels, y, fold != k) for k in reported}
    tops = np.stack([top_latent(r[k]) for k in reported])
    of_image = np.full(y.shape, -1)
    for k, top in zip(reported, tops, strict=True):
        of_image[fold == k] = top
    agreement = attribution.agreement()
    observations = []
    for c, label in enumerate(labels):
        present = y[:, c] == 1
        chosen_r = [r[k][top, c] for k, top in zip(reported, tops[:, c], strict=True) if top >= 0]
        observations.append(
            Attributed(
                label=label,
                positives=int(present.sum()),
                agreement=number(agreement[label]),
                strongest=_strongest(attribution, label, present),
                top=_top(attribution, label, of_image[:, c], chosen_r, patients, present, seed),
            )
        )
    return observations


def _pearson(
    attribution: Attribution, labels: list[str], y: np.ndarray, images: Bool[np.ndarray, " images"]
) -> Float[np.ndarray, "latents labels"]:
    shape = (len(attribution.rows), attribution.n_latents)
    activations = sparse.csr_array((attribution.activation, (attribution.image, attribution.latent)), shape=shape)
    statistics = LatentStatistics(attribution.n_latents, labels)
    statistics.update(activations[np.flatnonzero(images)], y[images])
    return pearson(statistics)


def _strongest(attribution: Attribution, label: str, images: Bool[np.ndarray, " images"]) -> list[StrongLatent]:
    if not images.any():
        return []
    c = attribution.labels.index(label)
    ablation = attribution.mean(attribution.ablation, images)[:, c]
    gradient = attribution.mean(attribution.gradient, images)[:, c]
    order = np.argsort(-ablation, kind="stable")[:N_STRONGEST]
    return [
        StrongLatent(latent=int(attribution.live[j]), ablation=float(ablation[j]), gradient=float(gradient[j]))
        for j in order
    ]


def _top(
    attribution: Attribution,
    label: str,
    latents: Int[np.ndarray, " images"],
    r: list[float],
    patients: np.ndarray,
    present: Bool[np.ndarray, " images"],
    seed: int,
) -> TopLatent | None:
    """Of the images' top latents, -1 for an image that none is ablated on."""
    images = present & (latents >= 0)
    if not images.any() or any(set(attribution.live) <= {latent} for latent in set(latents[images].tolist())):
        return None
    contrast = contrast_with_random(attribution, latents, label, patients, images, seed=seed)
    falls = {name: number(getattr(contrast, name)) for name in ("fall", "random_fall", "difference", "low", "high")}
    often, counts = np.unique(latents[latents >= 0], return_counts=True)
    top = {"latent": int(often[counts.argmax()]), "r": float(np.mean(r)), "no_interval": contrast.no_interval}
    return TopLatent.model_validate({**top, **falls, "images": contrast.images, "patients": contrast.patients})
