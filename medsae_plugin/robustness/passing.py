"""One pass of images and their perturbations through the encoder, into sums; kept on the way, to go on from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, replacing, writing
from medsae_plugin.robustness.perturbations import Variants
from medsae_plugin.robustness.sums import PerturbedSums, groups_of
from medsae_plugin.scores.images import LabelledImages
from medsae_plugin.scores.matrix import Aggregate
from medsae_plugin.scores.units import Units
from medsae_plugin.store.decoding import Request, decode, worker_deaths_explained
from medsae_plugin.store.positions import parse_positions

if TYPE_CHECKING:
    from medsae_plugin.encoders import HookedVisionEncoder
    from medsae_plugin.store.reader import ActivationStore

PARTIAL = "robustness-partial.safetensors"
_SAVE_SECONDS = 300.0
_OFF = 0.05  # of the variance between images: what precision of a store leaves is far less, another image far more


class Pass:
    """The images of `report`, in order, as far as they have been seen.

    Attributes:
        sums: of each units. tops: of each units the activations of each label's top unit, `(images, 1 + perturbations,
            labels)`, 0 where there is none. done: images seen.
    """

    def __init__(
        self,
        encoder: HookedVisionEncoder,
        store: ActivationStore,
        images: LabelledImages,
        variants: Variants,
        units: Sequence[Units],
        tops: Sequence[Int[np.ndarray, " labels"]],
        aggregate: Aggregate,
        batch_size: int,
    ) -> None:
        self._encoder, self._store, self._variants, self._units = encoder, store, variants, units
        self._which, self._aggregate, self._batch_size = tops, aggregate, batch_size
        rows, v = images.rows("report"), len(variants.names)
        self._root, self._frame = images.root, images.frame.iloc[rows]
        self._group = groups_of(images.patients[rows], variants.seed)
        self.n_images, self.n_groups, self.done = len(rows), int(self._group.max()) + 1, 0
        self.sums = [PerturbedSums(self.n_groups, v, one.n) for one in units]
        self.tops = [np.zeros((len(rows), 1 + v, len(top)), np.float32) for top in tops]
        self._file: Path | None = None
        self._policy = parse_positions(store.manifest["positions"])

    def go_on_from(self, folder: Path | None) -> None:
        """Keep what is summed up in this folder, and take what is there of the same pass.

        Raises:
            MedSAEError: what is there is damaged.
        """
        if folder is None:
            return
        self._file = make_folder(folder) / PARTIAL
        if not self._file.is_file():
            return
        try:
            with safe_open(self._file, framework="pt") as kept:
                metadata, tensors = kept.metadata(), {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise MedSAEError(f"{self._file} is damaged ({error}); delete it, and the pass begins anew") from None
        if metadata.get("of") != self._what():
            return
        self.done = int(metadata["done"])
        for k, (sums, top) in enumerate(zip(self.sums, self.tops, strict=True)):
            sums.take({name: tensors[f"{k}/{name}"] for name in sums.tensors()})
            top[:] = tensors[f"{k}/top"].numpy()

    def batches(self, workers: int) -> Iterator[int]:
        """See the images that are left, and yield how many after each batch.

        Raises:
            MedSAEError: an image that cannot be read, or is not the one of the store; activations that are not finite.
        """
        paths, saved = self._frame["path"].tolist(), time.monotonic()
        starts = range(self.done, self.n_images, self._batch_size)
        requests = [Request(0, range(i, min(i + self._batch_size, self.n_images)), True) for i in starts]
        with worker_deaths_explained():
            for batch in decode(self._root, paths, self._variants, requests, workers):
                for place, reason in batch.failures:
                    raise MedSAEError(
                        f"{paths[place]} was read when its activations were stored, and cannot be now: {reason}"
                    )
                assert batch.arrays is not None
                self._see(np.array(batch.image_ids), batch.arrays)
                self.done += len(batch.image_ids)
                yield len(batch.image_ids)
                if self._file is not None and time.monotonic() - saved > _SAVE_SECONDS:
                    self._save(self._file)
                    saved = time.monotonic()

    def finish(self) -> None:
        """All is written elsewhere: remove what was kept to go on from."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _see(self, places: Int[np.ndarray, " images"], arrays: np.ndarray) -> None:
        encoder, n_variants = self._encoder, arrays.shape[1]
        flat = encoder.preprocessor.normalize(arrays.reshape(-1, *arrays.shape[2:]))
        hooks = list(dict.fromkeys(one.hook for one in self._units))
        ids = self._frame["image_id"].to_numpy()[places]
        activations = encoder.activations(flat.to(encoder.device, encoder.dtype), hooks)
        rows: dict[str, Float[Tensor, "images variants rows d"]] = {}
        for hook in hooks:
            chosen, _ = self._policy.select(
                activations[hook],
                encoder.hook_specs[hook],
                ids.repeat(n_variants).tolist(),
                self._store.manifest["seed"],
            )
            shape = {"variants": n_variants, "images": len(ids)}
            rows[hook] = rearrange(chosen.float(), "(images variants rows) d -> images variants rows d", **shape)
            if self.done == 0:
                self._check(rows[hook][:, 0], hook, ids)
        for one, sums, which, top in zip(self._units, self.sums, self._which, self.tops, strict=True):
            x = rows[one.hook]
            latents = one.encode(x.flatten(0, 2)).unflatten(0, x.shape[:3])
            fired = latents.amax(2) if self._aggregate == "max" else latents.mean(2)
            if not torch.isfinite(fired).all():
                raise MedSAEError(
                    f"{one.name}: activations hold nan or infinity; check the encoder's weights and the SAE"
                )
            sums.update(self._group[places], fired)
            top[places] = np.where(which >= 0, fired[:, :, np.maximum(which, 0)].float().cpu().numpy(), 0)

    def _check(self, rows: Float[Tensor, "images rows d"], hook: str, ids: Int[np.ndarray, " images"]) -> None:
        """Raises MedSAEError if the first images are others than those that the store was made of."""
        stored = self._store.rows_of(hook, ids)
        spread = float((stored - stored.mean(0)).square().sum())
        if spread > 0 and float((rows.cpu() - stored).square().sum()) > _OFF * spread:
            raise MedSAEError(
                f"the images in {self._root} give other activations at {hook} than {self._store.path} holds: they are "
                "not the images that it was made of (--root), or were prepared otherwise"
            )

    def _what(self) -> str:
        """All that the sums follow from, as one digest."""
        what = {
            "encoder": self._encoder.weights_sha256,
            "images": self._frame[["path", "image_id", "patient"]].astype(str).to_numpy().tolist(),
            "variants": [*self._variants.names, self._variants.seed],
            "aggregate": self._aggregate,
            "units": [
                [one.name, one.sae_sha256, which.tolist()] for one, which in zip(self._units, self._which, strict=True)
            ],
        }
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def _save(self, file: Path) -> None:
        tensors: dict[str, Tensor] = {}
        for k, (sums, top) in enumerate(zip(self.sums, self.tops, strict=True)):
            tensors |= {f"{k}/{name}": tensor for name, tensor in sums.tensors().items()}
            tensors[f"{k}/top"] = torch.from_numpy(top)
        with writing(file), replacing(file) as temporary:
            save_file(tensors, temporary, {"of": self._what(), "done": str(self.done)})
