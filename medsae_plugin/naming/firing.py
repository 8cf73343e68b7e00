"""What is named: units, over the labelled images of a store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.evidence import LabelShare, label_shares
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import LatentMatrix, latent_matrices
from medsae_plugin.scores.opening import open_latents
from medsae_plugin.scores.units import Latents, Neurons, Units
from medsae_plugin.statistics.score_test import PatientLabel
from medsae_plugin.store.reader import ActivationStore

Kind = Literal["latent", "neuron"]


@dataclass(frozen=True)
class Firing:
    """Units, each a column of `matrix`, on images, each a row of it."""

    store: ActivationStore
    units: Units
    matrix: LatentMatrix
    images: LabelledImages
    _by_patient: dict[bytes, list[PatientLabel]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def sae_folder(self) -> Path | None:
        """Where the SAE of these latents lies, if it was opened from a folder."""
        return self.units.folder if isinstance(self.units, Latents) else None

    @property
    def kind(self) -> Kind:
        return "neuron" if self.units.kind == "neurons" else "latent"

    def encode(self, rows: Float[torch.Tensor, "rows d"], unit: int) -> Float[torch.Tensor, " rows"]:
        """One unit's activation on each row."""
        return self.units.encode(rows)[:, unit].float().cpu()

    def column(self, unit: int, rows: np.ndarray) -> Float[np.ndarray, " rows"]:
        """One unit's image-level activation on these rows of the matrix."""
        return self.matrix.column(unit)[rows]

    def label_shares(self, unit: int, rows: np.ndarray) -> list[LabelShare]:
        """How the labels of these rows' images go with one unit."""
        images, labels = self.images, self.images.labels[rows]
        if (key := rows.tobytes()) not in self._by_patient:  # alike for every unit, and slower than the rest
            self._by_patient[key] = PatientLabel.each_of(labels, images.patient_codes[rows])
        return label_shares(self.column(unit, rows), labels, images.label_names, self._by_patient[key])


def open_firing(
    store: ActivationStore, sae: Any, table: ImageTable, folder: Path, *, device: str = "cpu", progress: bool
) -> tuple[Firing, Firing]:
    """The latents of an SAE (its folder, or itself), and the neurons of its hook; their matrices are made in `folder`
    once.

    Raises:
        MedSAEError: no SAE there, or several; one that does not fit the store, a table without the store's images.
    """
    opened = open_latents(sae, store, device)
    if len(opened) > 1:
        raise MedSAEError(f"names are of one SAE's latents, and there are {len(opened)}: {', '.join(opened)}")
    ((latents, _),) = opened.values()
    neurons = Neurons.of(latents.hook, latents.d_in)
    outs = [folder / "latents", folder / "neurons"]
    made = latent_matrices(store, [latents, neurons], outs, progress=progress)
    images = LabelledImages.of(made[0].images, table)
    one, other = (Firing(store, units, m, images) for units, m in zip((latents, neurons), made, strict=True))
    return one, other
