"""Checkpoints of other libraries into folders in SAE-Lens's format."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medsae_plugin._version import __version__
from medsae_plugin.encoders.checkpoints import read_checkpoint
from medsae_plugin.encoders.hooked import EMBEDDING, UNIT
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import refuse_other_content, replacing_folder
from medsae_plugin.release.foreign.format import Format, check_folds
from medsae_plugin.sae_folders import check_sound, load_errors, save_sae
from medsae_plugin.scores.units import Latents
from medsae_plugin.training.normalization import CenterAndScale

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.encoders import EncoderCard


@dataclass(frozen=True)
class Input:
    """What activations an SAE takes: scale (x - mean), with x the hook's as they are (`raw`) or of length 1 (`unit`).

    kind: None where it is not said. mean: (d,), in float64; None is 0.

    Raises:
        MedSAEError: another kind, a scale that is not above 0, a mean that is no vector of finite numbers.
    """

    kind: str | None = None
    mean: Float[Tensor, " d"] | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in (None, *INPUTS):
            raise MedSAEError(f"input {self.kind!r} is neither of {', '.join(INPUTS)}")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise MedSAEError(f"scale {self.scale} should be a number above 0")

    @classmethod
    def of(cls, kind: str | None, mean: str | Path | None, scale: float | None) -> Input:
        """With the mean in a file: `.npy`, or `.pt` or `.safetensors` of one tensor."""
        return cls(kind, None if mean is None else _read_vector(Path(mean)), 1.0 if scale is None else scale)

    @property
    def said(self) -> bool:
        return self != Input()

    def hook(self, named: str, card: EncoderCard, format: Format) -> str:
        """The hook whose activations the SAE takes, where it was trained on the one that is named.

        Raises:
            MedSAEError: what has to be said and is not, or a kind that the hook does not have.
        """
        if named == EMBEDDING and self.kind is None and card.source["format"] == "medclip":
            raise MedSAEError(
                f"say which: MedCLIP's own encode_image, and MedSAE's reference with it, gives embeddings of length "
                f"1, and {EMBEDDING} of {card.name} is not normalised. --input unit puts the SAE at {UNIT}, --input "
                "raw leaves it"
            )
        if format.unsaid and not self.said:
            raise MedSAEError(f"{format.unsaid}: say --input raw if it did not, else --mean FILE --scale S")
        if self.kind == "unit" and named not in (EMBEDDING, UNIT):
            raise MedSAEError(f"activations of length 1 are to be had at {UNIT}, not at {named}")
        if self.kind == "raw" and named == UNIT:
            raise MedSAEError(f"activations at {UNIT} are of length 1, and --input raw says that they are not")
        return UNIT if self.kind == "unit" else named

    def fold_into(self, sae: SAE[Any]) -> None:
        """Make an SAE of these inputs one of the hook's activations, in place, and note in its metadata what was done.

        Raises:
            MedSAEError: one that cannot take this in, or a mean of another width.
        """
        if self.kind is not None:
            sae.cfg.metadata.input = self.kind
        if self.mean is None and self.scale == 1:
            return
        if sae.cfg.metadata.get("folded") is not None:
            raise MedSAEError("the file holds a mean of its own, which is folded already; leave --mean and --scale out")
        check_folds(sae.cfg.architecture(), sae.cfg.normalize_activations)
        mean = torch.zeros(sae.cfg.d_in, dtype=torch.float64) if self.mean is None else self.mean
        if len(mean) != sae.cfg.d_in:
            raise MedSAEError(f"the mean has {len(mean)} dimensions, the SAE {sae.cfg.d_in}")
        CenterAndScale(mean, self.scale).fold_into(sae)
        sae.cfg.metadata.folded = {"mean_norm": round(float(mean.norm()), 6), "scale": self.scale}


INPUTS = ("unit", "raw")


def _read_vector(path: Path) -> Float[Tensor, " d"]:
    try:
        if path.suffix == ".npy":
            value = torch.from_numpy(np.load(path, allow_pickle=False))
        elif path.suffix == ".safetensors":
            (value,) = read_checkpoint(path).values()
        else:
            value = torch.load(path, map_location="cpu", weights_only=True)
        vector = torch.as_tensor(value).squeeze().double()
    except (MedSAEError, OSError):
        raise
    except Exception as error:  # of three readers, for files that are none of theirs, or hold something else
        raise MedSAEError(f"{path} holds no vector: {' '.join(str(error).split())[:200]}") from None
    if vector.ndim != 1 or not torch.isfinite(vector).all():
        raise MedSAEError(f"{path} should hold one vector of finite numbers; it is {tuple(vector.shape)}")
    return vector


def import_checkpoint(
    checkpoint: str | Path,
    format: str,
    encoder: str | Path,
    hook: str,
    out: str | Path,
    *,
    input: str | None = None,
    mean: str | Path | None = None,
    scale: float | None = None,
) -> SAE[Any]:
    """Write an SAE that another library saved to `out`, in SAE-Lens's format, and return it.

    It encodes and decodes as the original does. The encoder's checksum is the one that its card names, if any: that
    the SAE was trained on these weights is the caller's word.

    Args:
        checkpoint: the file of weights, or its folder.
        format: one of `medsae_plugin.release.formats.FORMATS`, or one that `register_format` was given.
        encoder: the card of the encoder, by name or path.
        hook: the hook point that the SAE stands at.
        input: what it was trained on: `raw`, the hook's activations, or `unit`, embeddings divided by their length,
            which puts it at `hook_embedding_unit`.
        mean, scale: it was trained on scale (x - mean); the mean in a file. Both are folded into the weights.

    Raises:
        MedSAEError: no such checkpoint or card, one that does not convert, a hook that the encoder does not have or
            that has another width, an input that has to be said and is not, or `out` is taken.
    """
    from sae_lens import SAE

    from medsae_plugin.encoders import load_card
    from medsae_plugin.release.formats import FORMATS

    if format not in FORMATS:
        raise MedSAEError(f"{format!r} is not one of the formats {', '.join(FORMATS)}")
    out = Path(out)
    refuse_other_content(out)
    card, taken = load_card(encoder), Input.of(input, mean, scale)
    hook = taken.hook(hook, card, FORMATS[format])
    with load_errors(checkpoint):
        sae: SAE[Any] = SAE.load_from_disk(checkpoint, converter=FORMATS[format].disk_loader)
    check_sound(sae, checkpoint)
    taken.fold_into(sae)
    metadata = sae.cfg.metadata
    metadata.model_name, metadata.hook_name, metadata.medsae_plugin_version = card.name, hook, __version__
    if card.source.get("sha256"):
        metadata.encoder_sha256 = card.source["sha256"]
    _check_hook(sae, card, str(checkpoint))
    with replacing_folder(out) as folder:
        save_sae(sae, folder)
    return sae


def _check_hook(sae: SAE[Any], card: EncoderCard, what: str) -> None:
    """Compare with the encoder's shapes, which its card gives without its weights."""
    from medsae_plugin.encoders import build_encoder

    if not card.vision or card.projection_dim is None:
        return  # the shapes come with the weights, and are compared when the SAE is spliced in
    encoder = build_encoder(dataclasses.replace(card, text=None))
    if (hook := sae.cfg.metadata.hook_name) not in encoder.hook_specs:
        raise MedSAEError(f"{card.name} has no hook point {hook!r}; it has {', '.join(encoder.hook_specs)}")
    Latents.of(sae, what).check_shape(encoder)
