"""Baselines that `medsae baselines` made, opened as units that stand beside their SAEs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Float

from medsae_plugin.errors import MedSAEError
from medsae_plugin.sae_folders import load_sae
from medsae_plugin.scores.units import Latents, Place, Units
from medsae_plugin.store.reader import ActivationStore
from medsae_plugin.training.baseline_folders import (
    STORE,
    BaselineKind,
    Note,
    baseline_folders,
    parts_sha256,
    read_parts,
)

Baselines = Sequence[str | Path] | Mapping[str, list[Units]]
_STEPS = 2000
_ORDER = get_args(BaselineKind)


@dataclass(frozen=True)
class Parts(Units):
    """Units that are no SAE: centroids of k-means, components of NMF, `(n, d_in)`."""

    parts: Float[torch.Tensor, "n d_in"] = field(kw_only=True, repr=False, compare=False)

    def directions(self) -> Float[torch.Tensor, "n d_in"]:
        return self.parts


@dataclass(frozen=True)
class Centroids(Parts):
    """Of k-means, by the "triangle" activation of Coates, Lee and Ng 2011 (An Analysis of Single-Layer Networks in
    Unsupervised Feature Learning): how much nearer than the mean centroid a row is, 0 where it is not nearer."""

    def encode(self, rows: Float[torch.Tensor, "rows d_in"]) -> Float[torch.Tensor, "rows n"]:
        distance = torch.cdist(rows, self.parts, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.relu(distance.mean(-1, keepdim=True) - distance)


@dataclass(frozen=True)
class Components(Parts):
    """Of NMF: the weights at least 0 with which they add up to a row as nearly as they can."""

    def encode(self, rows: Float[torch.Tensor, "rows d_in"]) -> Float[torch.Tensor, "rows n"]:
        return nonnegative_weights(rows, self.parts)


def nonnegative_weights(
    rows: Float[torch.Tensor, "rows d_in"], parts: Float[torch.Tensor, "n d_in"]
) -> Float[torch.Tensor, "rows n"]:
    """The h >= 0 of the least ||x - h W||^2, each row by itself: projected gradient steps with Nesterov's momentum,
    begun anew where it leads uphill (O'Donoghue and Candes 2015)."""
    x, w = rows.double(), parts.double()
    gram, toward = w @ w.T, x @ w.T
    step = 1 / float(torch.linalg.eigvalsh(gram)[-1].clamp(min=1e-30))
    h = ahead = torch.zeros_like(toward)
    t = torch.ones(len(x), 1, dtype=torch.float64)
    for _ in range(_STEPS):
        new = torch.relu(ahead - step * (ahead @ gram - toward))
        uphill = ((ahead - new) * (new - h)).sum(-1, keepdim=True) > 0
        faster = torch.where(uphill, 1.0, (1 + (1 + 4 * t * t).sqrt()) / 2)
        ahead = new + torch.where(uphill, 0.0, (t - 1) / faster) * (new - h)
        done = float((new - h).abs().max()) <= 1e-10 * float(new.abs().max())
        h, t = new, faster
        if done:
            break
    return h.to(rows.dtype)


@dataclass(frozen=True)
class ElsewhereLatents(Latents):
    """Latents of the same images' activations in another encoder, which lie in a store of their own."""

    own: ActivationStore = field(kw_only=True, repr=False, compare=False)

    def rows_from(self, store: ActivationStore) -> ActivationStore:
        if not self.own.readable_images.equals(store.readable_images):
            raise MedSAEError(f"{self.name} is of other images than those of {store.path}; make it again")
        return self.own

    def check_fits(self, place: Place, strict: bool | None = None) -> None:
        super().check_fits(self.own, strict)
        self.check_shape(place)


def open_baselines(
    given: Baselines,
    saes: Mapping[str, Latents],
    store: ActivationStore,
    device: str = "cpu",
) -> dict[str, list[Units]]:
    """The baselines in these folders, by the name of the SAE that each stands beside.

    Args:
        given: folders that are baselines, or hold them. What this returned is taken as it is.
        saes: the SAEs that are scored, by name.

    Raises:
        MedSAEError: a baseline of none of these SAEs, two of one kind, a damaged one, or one that does not fit.
    """
    if isinstance(given, Mapping):
        return dict(given)
    by_weights = {latents.sae_sha256: name for name, latents in saes.items()}
    found: dict[str, list[Units]] = {}
    for folder in baseline_folders(given):
        note = Note.open(folder)
        name = by_weights.get(note.of_sha256)
        if name is None:
            raise MedSAEError(
                f"{folder} is a baseline of the SAE {note.of} with weights {note.of_sha256[:12]}..., which is not "
                f"scored here; there are {', '.join(saes)}"
            )
        one = _open(folder, note, name, device)
        if one.name in [other.name for other in found.get(name, [])]:
            raise MedSAEError(f"{folder} is a second baseline {note.kind} of {name}; give one")
        one.check_fits(store)
        found.setdefault(name, []).append(one)
    return {name: sorted(units, key=lambda one: _ORDER.index(one.kind)) for name, units in found.items()}


def _open(folder: Path, note: Note, name: str, device: str) -> Units:
    title = f"{note.kind} {name}"
    if note.kind in ("k-means", "nmf"):
        parts = read_parts(folder, note)
        return (Centroids if note.kind == "k-means" else Components)(
            title,
            note.kind,
            note.hook,
            note.d_in,
            note.n,
            note.kind,
            parts_sha256(note.kind, parts),
            note.encoder,
            note.encoder_sha256,
            name,
            parts=parts,
        )
    latents = Latents.of(load_sae(folder, device), title, note.kind, baseline_of=name)
    if note.kind != "random-encoder":
        return latents
    fields = {f: getattr(latents, f) for f in latents.__dataclass_fields__}
    return ElsewhereLatents(**fields, own=ActivationStore(folder / STORE))
