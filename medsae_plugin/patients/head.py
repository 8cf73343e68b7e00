"""A concept head: the log-odds of each finding as a sum of parts, each of one latent's activation alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import sparse
from scipy.special import expit

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, writing
from medsae_plugin.patients.head_results import HeadReport
from medsae_plugin.scores.units import Units

WEIGHTS = "head.safetensors"
_KEYS = ("bias", "label", "latent", "knot", "slope")
Activations: TypeAlias = Float[np.ndarray, "images latents"] | sparse.sparray


@dataclass(frozen=True)
class ConceptHead:
    """log-odds of label c = bias[c] + the sum over its terms of slope x max(0, activation of the latent - knot).

    The terms of one latent are its part: a line through the origin where it has the knot 0 alone, else a curve of
    straight pieces. A silent latent adds exactly nothing, so that a prediction is the sum of what fires. After
    generalised additive models (Hastie and Tibshirani 1986) with a basis of hinges, and concept bottlenecks (Koh et al.
    2020, arXiv 2007.04612), whose concepts are latents here.

    Attributes:
        labels: the findings. bias: of each, float64.
        label, latent, knot, slope: `(terms,)`: which label a term is of, its latent's number, the activation where it
            begins, at least 0, and what it adds to the slope there.
        report: how it was made and what it tells on other patients.
    """

    bias: Float[np.ndarray, " labels"]
    label: Int[np.ndarray, " terms"]
    latent: Int[np.ndarray, " terms"]
    knot: Float[np.ndarray, " terms"]
    slope: Float[np.ndarray, " terms"]
    report: HeadReport

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(one.label for one in self.report.labels)

    def latents_of(self, label: str) -> list[int]:
        """The latents that have a part in a label's prediction, in ascending order."""
        return sorted({int(j) for j in self.latent[self.label == self._index(label)]})

    def log_odds(self, activations: Activations) -> Float[np.ndarray, "images labels"]:
        """Of image-level activations of all the SAE's latents, aggregated as `report.aggregate` says."""
        terms = self._terms(activations)
        members = np.zeros((len(self.label), len(self.bias)))
        members[np.arange(len(self.label)), self.label] = 1
        return self.bias + terms @ members

    def probabilities(self, activations: Activations) -> Float[np.ndarray, "images labels"]:
        return np.asarray(expit(self.log_odds(activations)))

    def parts(self, activations: Float[np.ndarray, " latents"], label: str) -> dict[int, float]:
        """What each latent adds to one image's log-odds of a label; with the bias they sum to `log_odds` exactly.

        Silent latents are left out, for their part is 0.
        """
        c = self._index(label)
        here = np.flatnonzero(self.label == c)
        terms = self._terms(activations[None])[0, here]
        found: dict[int, float] = {}
        for j, term in zip(self.latent[here].tolist(), terms.tolist(), strict=True):
            if activations[j] > 0:
                found[j] = found.get(j, 0.0) + term
        return found

    def curve(self, label: str, latent: int, at: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """What a latent adds to a label's log-odds, by its activation."""
        mine = (self.label == self._index(label)) & (self.latent == latent)
        return np.maximum(0, at[:, None] - self.knot[mine]) @ self.slope[mine]

    def without(self, latents: Collection[int]) -> ConceptHead:
        """The head as if these latents were silent: an intervention on concepts."""
        kept = ~np.isin(self.latent, list(latents))
        return replace(self, **{key: getattr(self, key)[kept] for key in _KEYS[1:]})

    def check_of(self, units: Units) -> None:
        """Raise unless it was fitted on these latents.

        Raises:
            MedSAEError: it was fitted on another SAE's.
        """
        if self.report.sae_sha256 != units.sae_sha256:
            raise MedSAEError(
                f"the head was fitted on the latents of {self.report.sae}, and {units.name} is another SAE (or another "
                "version of it); fit one on these latents (medsae head)"
            )

    def save(self, folder: str | Path) -> None:
        """Write `head.safetensors` and `head.json`."""
        folder = make_folder(Path(folder))
        with writing(folder / WEIGHTS):
            save_file({key: np.ascontiguousarray(getattr(self, key)) for key in _KEYS}, folder / WEIGHTS)
        self.report.save(folder)

    @classmethod
    def open(cls, folder: str | Path) -> ConceptHead:
        """The head in a folder.

        Raises:
            MedSAEError: there is none, a damaged one, or one whose two files do not belong together.
        """
        report, file = HeadReport.open(folder), Path(folder) / WEIGHTS
        try:
            found = load_file(file)
        except (OSError, SafetensorError) as error:
            raise MedSAEError(f"{file} cannot be read ({error}); medsae head writes it") from None
        sizes = {key: found[key].shape for key in _KEYS if key in found}
        terms = sizes.get("label")
        sound = len(sizes) == len(_KEYS) and all(len(s) == 1 and s == terms for k, s in sizes.items() if k != "bias")
        if not sound or sizes["bias"] != (len(report.labels),) or not _refers(found, len(report.labels), report.n):
            raise MedSAEError(f"{file} is not of the head that {HeadReport.FILE} beside it tells of; fit it again")
        return cls(**{key: found[key] for key in _KEYS}, report=report)

    def _terms(self, activations: Activations) -> Float[np.ndarray, "images terms"]:
        columns = activations[:, self.latent]
        dense = columns.toarray() if sparse.issparse(columns) else columns
        return np.maximum(0, dense.astype(np.float64) - self.knot) * self.slope

    def _index(self, label: str) -> int:
        if label not in self.labels:
            raise MedSAEError(f"the head has no label {label!r}; it has: {', '.join(self.labels)}")
        return self.labels.index(label)


def _refers(found: dict[str, np.ndarray], labels: int, latents: int) -> bool:
    """Whether terms name labels and latents that there are, and begin where latents can be."""
    inside = [((found[key] >= 0) & (found[key] < n)).all() for key, n in (("label", labels), ("latent", latents))]
    numbers = all(np.isfinite(found[key]).all() for key in ("bias", "knot", "slope"))
    return bool(all(inside) and numbers and (found["knot"] >= 0).all())
