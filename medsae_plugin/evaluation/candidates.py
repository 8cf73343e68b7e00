"""What an evaluation compares: SAEs' latents and, beside them, the raw neurons of the same hooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from medsae_plugin.errors import MedSAEError
from medsae_plugin.evaluation.metrics import entropy, pearson, top_latent
from medsae_plugin.evaluation.statistics import LatentStatistics
from medsae_plugin.training.fidelity import FidelitySums

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.activations import ActivationStore
    from medsae_plugin.data.tables import ImageTable

Aggregate = Literal["max", "mean"]


@dataclass
class Candidate:
    """What is scored: the latents of an SAE, or the raw neurons of a hook (`sae` is None), with its sums by split.

    A neuron has no preferred sign, so both are candidates: neurons 0..d-1 are the activations, d..2d-1 their negatives.
    """

    name: str
    hook: str
    d_in: int
    sae: SAE[Any] | None
    statistics: dict[str, LatentStatistics]
    fidelity: FidelitySums | None

    @property
    def kind(self) -> str:
        return "neurons" if self.sae is None else "sae"

    def label_scores(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """r on `select` and on `report`, `(latents, labels)`, the entropy on `report`, and each label's top latent."""
        r_select, r_report = (pearson(self.statistics[split]) for split in ("select", "report"))
        return r_select, r_report, entropy(r_report), top_latent(r_select)

    def update(self, split: str, rows: torch.Tensor, lengths: torch.Tensor, y: np.ndarray, how: Aggregate) -> None:
        """Add images of a split: their rows in order, how many rows each has, and their labels."""
        if self.sae is None:
            units = torch.cat([rows, -rows], dim=-1)
        else:
            units = self.sae.encode(rows)
            if self.fidelity is not None and split == "report":
                self.fidelity.update(rows, units, self.sae.decode(units))
        self.statistics[split].update(torch.segment_reduce(units, how, lengths=lengths), y)


def align_labels(store: ActivationStore, table: ImageTable) -> np.ndarray:
    """The table's labels in the order of the store's images, `(images, labels)`; nan where the table lacks an image.

    Raises:
        MedSAEError: the table has no label columns, or shares no image with the store.
    """
    if not table.label_names:
        raise MedSAEError("the table has no label columns, so there is nothing to score against")
    position = {path: i for i, path in enumerate(table.frame["path"])}
    found = np.array([position.get(path, -1) for path in store.images["path"]])
    if (found < 0).all():
        raise MedSAEError(
            f"no image of the store is in the table: the store has {store.images['path'].iloc[0]!r}, the table has "
            f"{table.frame['path'].iloc[0]!r}; give both the same image root"
        )
    labels = table.labels[found].astype(np.float64)
    labels[found < 0] = np.nan
    return labels


def load_candidates(store: ActivationStore, sae_paths: Sequence[str | Path], labels: Sequence[str]) -> list[Candidate]:
    """The SAEs in these folders, in SAE-Lens's format, followed by the raw neurons of each hook that they stand at.

    Raises:
        MedSAEError: a folder that holds no SAE, an SAE of a hook, a width or an encoder that the store does not have.
    """
    from sae_lens import SAE

    names = _distinct_names([Path(p) for p in sae_paths])
    candidates: list[Candidate] = []
    neurons: dict[str, Candidate] = {}
    for name, path in zip(names, sae_paths, strict=True):
        if not (Path(path) / "cfg.json").is_file():
            raise MedSAEError(f"{path} holds no SAE: there is no cfg.json in it")
        sae = SAE.load_from_disk(path)
        hook = checked_hook(store, sae, name)
        sums = FidelitySums(sae.cfg.d_in, sae.cfg.d_sae)
        candidates.append(Candidate(name, hook, sae.cfg.d_in, sae, _empty(sae.cfg.d_sae, labels), sums))
        d = store.hooks[hook].d
        neurons.setdefault(hook, Candidate(f"neurons of {hook}", hook, d, None, _empty(2 * d, labels), None))
    return candidates + list(neurons.values())


def _empty(n_latents: int, labels: Sequence[str]) -> dict[str, LatentStatistics]:
    return {split: LatentStatistics(n_latents, labels) for split in ("select", "report")}


def _distinct_names(paths: list[Path]) -> list[str]:
    resolved = [p.resolve() for p in paths]
    if len(set(resolved)) < len(resolved):
        raise MedSAEError("the same SAE is given twice")
    depth = 1
    while len({p.parts[-depth:] for p in resolved}) < len(resolved):
        depth += 1
    return ["/".join(p.parts[-depth:]) for p in resolved]


def checked_hook(store: ActivationStore, sae: SAE[Any], name: str) -> str:
    metadata = sae.cfg.metadata
    hook = metadata.get("hook_name")
    if hook not in store.hooks:
        raise MedSAEError(f"{name} stands at hook {hook!r}; the store has {', '.join(store.hooks)}")
    if sae.cfg.d_in != store.hooks[hook].d:
        raise MedSAEError(f"{name} takes {sae.cfg.d_in} dimensions; the store has {store.hooks[hook].d} at {hook}")
    trained_on, stored = metadata.get("encoder_sha256"), store.manifest["encoder"]["weights_sha256"]
    if trained_on and trained_on != stored:
        raise MedSAEError(
            f"{name} was trained on encoder weights {trained_on[:12]}..., the store was made with {stored[:12]}..."
        )
    return str(hook)
