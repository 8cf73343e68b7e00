"""What is named: the latents of an SAE, or the raw neurons of a hook, over the images of a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from medsae_plugin.evaluation.candidates import checked_hook
from medsae_plugin.evaluation.latents import LatentMatrix, latent_matrix
from medsae_plugin.naming.evidence import LabelShare, label_shares
from medsae_plugin.naming.images import ImageData
from medsae_plugin.sae_folders import load_sae

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.activations import ActivationStore
    from medsae_plugin.data.tables import ImageTable

Kind = Literal["latent", "neuron"]


@dataclass(frozen=True)
class Subject:
    """Units that fire, at a hook: an SAE's latents, or signed neurons (`sae` is None), each a column of `matrix`.

    A neuron has no preferred sign, so both are units: 0..d-1 are the activations, d..2d-1 their negatives.
    """

    store: ActivationStore
    sae: SAE[Any] | None
    hook: str
    matrix: LatentMatrix
    data: ImageData

    @property
    def kind(self) -> Kind:
        return "neuron" if self.sae is None else "latent"

    def label(self, unit: int) -> str:
        """A latent's index, or a neuron's; for the negative of neuron j, "-j"."""
        d = self.store.hooks[self.hook].d
        return f"-{unit - d}" if self.sae is None and unit >= d else str(unit)

    def unit(self, label: str) -> int:
        """The column of a label."""
        if label.startswith("-"):
            return int(label[1:]) + self.store.hooks[self.hook].d
        return int(label)

    def directions(self) -> Float[torch.Tensor, "units d"]:
        """What each unit writes: an SAE's decoder directions, or plus and minus each axis."""
        if self.sae is None:
            axes = torch.eye(self.store.hooks[self.hook].d)
            return torch.cat([axes, -axes])
        return self.sae.W_dec.detach().float().cpu()

    @torch.no_grad()
    def encode(self, rows: Float[torch.Tensor, "rows d"], unit: int) -> Float[torch.Tensor, " rows"]:
        """One unit's activation on each row."""
        if self.sae is None:
            d = rows.shape[-1]
            return rows[:, unit] if unit < d else -rows[:, unit - d]
        return self.sae.encode(rows.to(self.sae.device))[:, unit].float().cpu()

    def column(self, unit: int, rows: np.ndarray) -> Float[np.ndarray, " rows"]:
        """One unit's image-level activation on these rows of the matrix."""
        return self.matrix.column(unit)[rows]

    def label_shares(self, unit: int, rows: np.ndarray) -> list[LabelShare]:
        """How the labels of these rows' images go with one unit."""
        data = self.data
        return label_shares(self.column(unit, rows), data.labels[rows], data.label_names, data.patients[rows])


def open_subjects(
    store: ActivationStore, sae_path: str | Path, table: ImageTable, folder: Path, *, progress: bool
) -> tuple[Subject, Subject]:
    """The latents of the SAE in this folder, and the neurons of its hook; their matrices are made in `folder` once.

    Raises:
        MedSAEError: no SAE there, one that does not fit the store, a table without the store's images.
    """
    sae = load_sae(sae_path)
    hook = checked_hook(store, sae, Path(sae_path).name)
    subjects = []
    for name, units in (("latents", sae), ("neurons", None)):
        matrix = latent_matrix(store, units, folder / name, hook=hook, progress=progress)
        subjects.append(Subject(store, units, hook, matrix, ImageData.of(matrix.images, table)))
    return subjects[0], subjects[1]
