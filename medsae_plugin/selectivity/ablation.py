"""The units that carry a concept, and what they add to a probe: x - sum_j a_j d_j moves a logit by - sum_j a_j d_j . w.

A probe reads an image's mean over positions and is linear, so an ablation at every position, with what the SAE does not
reconstruct kept, moves its log-odds by exactly that, with the mean of a_j over positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from medsae_plugin.scores.matrix import LatentMatrix
from medsae_plugin.scores.metrics import pearson
from medsae_plugin.scores.scoring import HeldOut, least_firing, sum_up
from medsae_plugin.scores.units import Latents, Neurons, Units
from medsae_plugin.selectivity.concepts import Concept
from medsae_plugin.store.reader import ActivationStore

if TYPE_CHECKING:
    from sae_lens import SAE

DRAWS = 10  # of as many live units at random
_CHUNK_ELEMENTS = 2**23


@dataclass(frozen=True)
class Sets:
    """Of one choice: the units of each concept, best first, and orders of the live units drawn at random."""

    of_concept: list[Int[np.ndarray, " units"]]
    drawn: list[Int[np.ndarray, " units"]]
    live: int

    @classmethod
    def each_of(
        cls, units: Units, matrix: LatentMatrix, held_out: HeldOut, concepts: Sequence[Concept], most: int, seed: int
    ) -> list[Sets]:
        """One, or one a fold: `most` units of each at most.

        A unit carries a concept by its largest r, on `select`, with one of the concept's labels, if that is above 0; it
        can be chosen where it fires on enough images there. Of the two units of a neuron one can be.
        """
        made = []
        for part in held_out.images.folds or (held_out.images,):
            select = sum_up(matrix, part)["select"]
            r = np.where((select.fired >= least_firing(select.n_images))[:, None], pearson(select), np.nan)
            live = _one_each(units, np.flatnonzero(select.fired >= least_firing(select.n_images)))
            rng = np.random.default_rng(seed)
            drawn = [rng.permutation(live)[:most] for _ in range(DRAWS)]
            made.append(cls([_carrying(units, r[:, c.columns], most) for c in concepts], drawn, len(live)))
        return made

    @property
    def all(self) -> list[Int[np.ndarray, " units"]]:
        """Those of the concepts, then those drawn."""
        return [*self.of_concept, *self.drawn]


def _carrying(units: Units, r: Float[np.ndarray, "units columns"], most: int) -> Int[np.ndarray, " chosen"]:
    strength = np.where(np.isnan(r), -np.inf, r).max(1)
    order = np.argsort(-strength, kind="stable")
    return _one_each(units, order[strength[order] > 0])[:most]


def _one_each(units: Units, chosen: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " fewer"]:
    """Without the second unit of a neuron: silencing either takes the neuron's whole activation away."""
    if not isinstance(units, Neurons):
        return chosen
    _, first = np.unique(chosen % units.d_in, return_index=True)
    return chosen[np.sort(first)]


@dataclass(frozen=True)
class Written:
    """What some units write into the hook on the images of `report`, mean over positions.

    units: ascending. amount: times `directions` it is what each adds. fires: on some position.
    """

    units: Int[np.ndarray, " units"]
    amount: Float[np.ndarray, "rows units"]
    fires: Bool[np.ndarray, "rows units"]
    directions: Float[np.ndarray, "units d"]

    @classmethod
    def by(cls, store: ActivationStore, units: Units, held_out: HeldOut, which: Int[np.ndarray, " units"]) -> Written:
        """Of these units, from one pass over the hook's rows of `report`."""
        ids = held_out.images.frame["image_id"].to_numpy()[held_out.report]
        parts = [
            (part.amount[:, which], part.fires[:, which]) for part in written_by_image(store, units, ids, rest=False)
        ]
        amount, fires = (np.concatenate(one) for one in zip(*parts, strict=True))
        return cls(which, amount, fires, written_directions(units)[which])

    def moves(
        self, chosen: Int[np.ndarray, " chosen"], rows: Int[np.ndarray, " some"], weights: Float[np.ndarray, "d labels"]
    ) -> Float[np.ndarray, "some labels"]:
        """How the probes' log-odds of some rows move where these units are silent."""
        at = np.searchsorted(self.units, chosen)
        return -self.amount[np.ix_(rows, at)] @ (self.directions[at] @ weights)

    def any_fires(
        self, chosen: Int[np.ndarray, " chosen"], rows: Int[np.ndarray, " some"]
    ) -> Bool[np.ndarray, " some"]:
        """Where one of these units fires."""
        return self.fires[np.ix_(rows, np.searchsorted(self.units, chosen))].any(1)


class Part(NamedTuple):
    """What all units write into the hook on some images, mean over positions.

    amount: times `written_directions` it is what each adds. fires: on some position. rest: what they leave of the
    activations, a bias aside; None where it was not asked for.
    """

    amount: Float[np.ndarray, "images units"]
    fires: Bool[np.ndarray, "images units"]
    rest: Float[np.ndarray, "images d"] | None


def written_by_image(
    store: ActivationStore, units: Units, ids: Int[np.ndarray, " images"], rest: bool
) -> Iterator[Part]:
    """Of these images of a store, in their order, some at a time. `rest` is of SAEs."""
    per_image = store.hooks[units.hook].rows_per_image
    step = max(1, _CHUNK_ELEMENTS // (units.n * per_image))
    for first in range(0, len(ids), step):
        yield _part(units, store.rows_of(units.hook, ids[first : first + step]), rest)


@torch.no_grad()
def _part(units: Units, rows: Float[torch.Tensor, "images position d"], rest: bool) -> Part:
    a = units.encode(rows.flatten(0, 1))
    scale, left = 1.0, None
    if isinstance(units, Latents):
        scale = _scale_of_rows(units.sae)
        if rest:
            left = (rows - units.sae.decode(a).cpu().unflatten(0, rows.shape[:2])).double().mean(1).numpy()
    amount = (a * scale).double().unflatten(0, rows.shape[:2]).mean(1)
    return Part(amount.cpu().numpy(), (a != 0).unflatten(0, rows.shape[:2]).any(1).cpu().numpy(), left)


def _scale_of_rows(sae: SAE[Any]) -> Any:
    """What SAE-Lens multiplies a decoded row by, where the SAE normalises each row; of the rows encoded last."""
    if sae.cfg.normalize_activations == "layer_norm":
        return sae.ln_std
    return 1 / sae.x_norm_coeff if sae.cfg.normalize_activations == "constant_norm_rescale" else 1.0


def written_directions(units: Units) -> Float[np.ndarray, "units d"]:
    """What an activation of 1 writes."""
    written = units.directions().double().numpy()
    if isinstance(units, Latents) and getattr(units.sae.cfg, "rescale_acts_by_decoder_norm", False):
        written = written / np.linalg.norm(written, axis=1, keepdims=True)
    return written
