"""Zero-shot scores of an encoder while units of a hook are silent: an SAE is spliced in with its error term."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medsae_plugin.causal.passes import PixelBatches
from medsae_plugin.causal.results import PromptSet
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.encoders import HookedVisionEncoder, ZeroShot
from medsae_plugin.encoders.splicing import output_hook
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores.cross_fitting import fold_of
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.scoring import HeldOut
from medsae_plugin.scores.units import Latents, Units
from medsae_plugin.selectivity.ablation import Sets


@dataclass(frozen=True)
class Silent:
    """Zero-shot scores of the images of `report` (nan for labels without prompts), unedited and with sets silent.

    after: of set s with k units, the place `s * len(ks) + i`. fires: where one of the set's units does.
    """

    before: Float[np.ndarray, "rows labels"]
    after: Float[np.ndarray, "sets rows labels"]
    fires: Bool[np.ndarray, "sets rows"]


@dataclass(frozen=True)
class Scorer:
    """An encoder with prompts, and the images of `report` in a table."""

    encoder: HookedVisionEncoder
    zero_shot: ZeroShot
    batches: PixelBatches

    @classmethod
    def of(
        cls,
        encoder: HookedVisionEncoder,
        zero_shot: ZeroShot,
        images: LabelledImages,
        table: ImageTable,
        **batches: Any,
    ) -> Scorer:
        """Raises MedSAEError where the prompts have none of the labels."""
        if not set(zero_shot.labels) & set(images.label_names):
            raise MedSAEError(
                f"the prompts {zero_shot.prompts.name} have none of the labels ({', '.join(images.label_names)})"
            )
        place = {path: i for i, path in enumerate(table.frame["path"])}
        rows = np.array([place[path] for path in images.frame["path"].to_numpy()[images.rows("report")]])
        return cls(encoder, zero_shot, PixelBatches(encoder, table.take(rows), **batches))

    @property
    def prompts(self) -> PromptSet:
        return PromptSet(name=self.zero_shot.prompts.name, source=self.zero_shot.prompts.source)

    @torch.no_grad()
    def silence(self, units: Units, held_out: HeldOut, sets: Sequence[Sets], ks: Sequence[int]) -> Silent:
        """Each set of each choice, by k, on the images that its choice reports on.

        A set that is silent on an image anyway changes nothing there, so no pass is spent on it.

        Raises:
            MedSAEError: units of another encoder; an image that cannot be read again.
        """
        units.check_fits(self.encoder)
        fold, masks = fold_of(held_out.images), _masks(units, sets, ks)
        labels = list(held_out.images.label_names)
        columns = [labels.index(name) for name in self.zero_shot.labels if name in labels]
        mine = [i for i, name in enumerate(self.zero_shot.labels) if name in labels]
        before = np.full((len(fold), len(labels)), np.nan, dtype=np.float32)
        after = np.full((masks.shape[1], *before.shape), np.nan, dtype=np.float32)
        fires = np.zeros(after.shape[:2], dtype=bool)
        with _standing(self.encoder, units):
            for rows, pixels in self.batches.run(f"zero-shot without units of {units.name}"):
                of_rows = masks[torch.from_numpy(fold[rows])]
                whole, changed, firing = self._batch(units, pixels, of_rows.to(pixels.device))
                before[np.ix_(rows, columns)] = whole[:, mine]
                after[np.ix_(range(len(after)), rows, columns)] = changed[..., mine].swapaxes(0, 1)
                fires[:, rows] = firing.T
        if self.batches.failures:
            row, why = next(iter(self.batches.failures.items()))
            path = self.batches.table.frame["path"].iloc[row]
            raise MedSAEError(f"{path} is in the store, and cannot be read now: {why}")
        return Silent(before, after, fires)

    def _batch(
        self, units: Units, pixels: Tensor, masks: Bool[Tensor, "images sets units"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        point = f"{output_hook(units.sae)}.hook_sae_acts_post" if isinstance(units, Latents) else units.hook
        seen: list[Tensor] = []

        def watch(activation: Tensor, hook: Any) -> None:
            seen.append((activation != 0).reshape(len(activation), -1, activation.shape[-1]).any(1))

        with self.encoder.hooks(fwd_hooks=[(point, watch)]):
            whole = self.zero_shot.scores(self.encoder(pixels))
        firing = (masks & seen[0][:, None]).any(-1)
        changed = whole[:, None].repeat(1, masks.shape[1], 1)
        image, which = firing.nonzero(as_tuple=True)
        size = self.batches.batch_size
        for i, s in zip(image.split(size), which.split(size), strict=True):
            with self.encoder.hooks(fwd_hooks=[(point, _silencing(masks[i, s]))]):
                changed[i, s] = self.zero_shot.scores(self.encoder(pixels[i]))
        return whole.cpu().numpy(), changed.cpu().numpy(), firing.cpu().numpy()


def _masks(units: Units, sets: Sequence[Sets], ks: Sequence[int]) -> Bool[Tensor, "folds sets units"]:
    """Which units each set of each choice silences; of neurons, which axes."""
    width = units.n if isinstance(units, Latents) else units.d_in
    masks = torch.zeros(len(sets), len(sets[0].all) * len(ks), width, dtype=torch.bool)
    for f, of_choice in enumerate(sets):
        for s, chosen in enumerate(of_choice.all):
            for i, k in enumerate(ks):
                masks[f, s * len(ks) + i, torch.from_numpy(chosen[:k] % width)] = True
    return masks


def _standing(encoder: HookedVisionEncoder, units: Units) -> AbstractContextManager[Any]:
    """An SAE spliced in, with what it does not reconstruct."""
    return encoder.saes([units.sae], use_error_term=True) if isinstance(units, Latents) else nullcontext()


def _silencing(masks: Bool[Tensor, "images units"]) -> Callable[[Tensor, Any], Tensor]:
    """A hook that silences units of each image, at every position."""

    def silence(activation: Tensor, hook: Any) -> Tensor:
        return activation.masked_fill(masks.reshape(len(masks), *[1] * (activation.ndim - 2), -1), 0)

    return silence
