"""Units: what fires at a hook. The latents of an SAE, of a baseline that stands in for one, or the raw neurons."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float

from medsae_plugin.errors import MedSAEError
from medsae_plugin.sae_folders import sae_sha256
from medsae_plugin.training.baseline_folders import BaselineKind

if TYPE_CHECKING:
    from sae_lens import SAE

    from medsae_plugin.store.reader import ActivationStore

Kind = Literal["sae", "untrained", "neurons", BaselineKind]
_ELSEWHERE = ("metadata", "device", "dtype")  # of an SAE's config: what its latents do not hang on


def as_folder_name(name: str) -> str:
    """A name of units as one path component."""
    return name.replace("/", "--").replace(" ", "-")


@runtime_checkable
class Place(Protocol):
    """Where units may stand: an `ActivationStore` or a `HookedVisionEncoder`."""

    @property
    def title(self) -> str: ...

    @property
    def encoder_name(self) -> str: ...

    @property
    def weights_sha256(self) -> str: ...

    @property
    def preprocessing(self) -> Mapping[str, Any]: ...

    def width_at(self, hook: str) -> int | None:
        """d of a hook; None where there is no such hook."""


@dataclass(frozen=True)
class Units:
    """What is scored, named and compared: `n` units that fire at a hook of width `d_in`.

    This class knows them by their description alone, as a file of sums does; `Latents` and `Neurons` fire.

    name: tells them apart within an evaluation. architecture, sae_sha256: None for neurons.
    encoder, encoder_sha256: the encoder that they were made for, by name and by its weights; None where it is not
        known, and for neurons, which are of whatever encoder is there.
    baseline_of: the name of the SAE that they stand beside; None for an SAE, and for neurons, which are the hook's.
    """

    name: str
    kind: Kind
    hook: str
    d_in: int
    n: int
    architecture: str | None = None
    sae_sha256: str | None = None
    encoder: str | None = None
    encoder_sha256: str | None = None
    baseline_of: str | None = None

    def encode(self, rows: Float[torch.Tensor, "rows d_in"]) -> Float[torch.Tensor, "rows n"]:
        """Every unit's activation on each row.

        Raises:
            MedSAEError: only the units' sums are known.
        """
        raise MedSAEError(f"{self.name} is known by its sums alone, so it cannot be computed on activations")

    def directions(self) -> Float[torch.Tensor, "n d_in"]:
        """What each unit writes into the hook: decoder directions, or plus and minus each axis.

        Raises:
            MedSAEError: only the units' sums are known.
        """
        raise MedSAEError(f"{self.name} is known by its sums alone, so it has no directions here")

    def rows_from(self, store: ActivationStore) -> ActivationStore:
        """Where their rows are read, of the images of a store: there, but for those of another encoder."""
        return store

    @property
    def config(self) -> dict[str, Any] | None:
        """What an SAE's latents hang on beside its weights, such as k and the normalisation; None of what is no SAE."""
        return None

    @property
    def preprocessing(self) -> Mapping[str, Any] | None:
        """How the images were prepared that they were made for; None where that is not known."""
        return None

    def label(self, unit: int) -> int | str | None:
        """A unit as tables and files show it: its number; for the negative of neuron j, "-j"; None for none (-1)."""
        return unit if unit >= 0 else None

    def index(self, label: int | str | None) -> int:
        """The unit of a label, -1 for None: what `label` says, backwards.

        Raises:
            MedSAEError: there is no such unit.
        """
        if label is None:
            return -1
        unit = self._index(str(label))
        if not 0 <= unit < self.n:
            raise MedSAEError(f"{self.name} has units {self.label(0)} to {self.label(self.n - 1)}, and no {label!r}")
        return unit

    def _index(self, label: str) -> int:
        return int(label) if label.isdecimal() else -1

    @property
    def folder_name(self) -> str:
        """Of their latent matrix, within an evaluation's `latents/`."""
        return as_folder_name(self.name)

    def check_fits(self, place: Place, strict: bool | None = None) -> None:
        """Raise unless these units stand at a hook of this store or encoder.

        Args:
            strict: of the encoder that they were made for. None refuses another one, and warns where that cannot be
                told; True refuses both; False warns of both.

        Raises:
            MedSAEError: no such hook there, another width, or they were made for other weights or for images that were
                prepared otherwise.
        """
        self.check_shape(place)
        self._check_encoder(place, strict)
        self._check_preprocessing(place, strict)

    def check_shape(self, place: Place) -> None:
        """Raise unless this store or encoder has their hook, of their width, whatever its weights.

        Raises:
            MedSAEError: it has not.
        """
        width = place.width_at(self.hook)
        if width is None:
            raise MedSAEError(f"{self.name} stands at hook {self.hook!r}, which {place.title} does not have")
        if width != self.d_in:
            raise MedSAEError(f"{self.name} takes {self.d_in} dimensions; {place.title} has {width} at {self.hook}")

    def _check_encoder(self, place: Place, strict: bool | None) -> None:
        """Compare encoders by their weights, else by their names."""
        mine, theirs, name = self.encoder_sha256, place.weights_sha256, place.encoder_name
        if mine and theirs:
            if mine == theirs:
                return
            said = f"was trained on encoder weights {mine[:12]}..., those of {name} here are {theirs[:12]}..."
            refuse = strict is not False
        elif self.encoder and self.encoder != name:
            said = f"is an SAE of the encoder {self.encoder}, and this is {name}; if they are the same, say so in "
            said += "metadata.model_name of its cfg.json"
            refuse = strict is not False
        elif self.kind == "sae":
            lacks = "it does not say on which weights it was trained" if theirs else "these weights have no checksum"
            said = f"is {'not ' if strict else ''}taken for an SAE of this {name}, unchecked: {lacks}"
            refuse = bool(strict)
        else:
            return
        self._refuse_or_warn(said, refuse, strict)

    def _check_preprocessing(self, place: Place, strict: bool | None) -> None:
        """One encoder sees other pictures where they are padded, cropped or stretched; compared where both say how."""
        mine, theirs = self.preprocessing, place.preprocessing
        if not mine or not theirs:
            return
        if others := [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]:
            how = ", ".join(f"{key} {mine.get(key)!r}, here {theirs.get(key)!r}" for key in others)
            said = f"was trained on images that were prepared otherwise than those of {place.title} ({how})"
            self._refuse_or_warn(said, strict is not False, strict)

    def _refuse_or_warn(self, said: str, refuse: bool, strict: bool | None) -> None:
        if refuse:
            raise MedSAEError(f"{self.name} {said}")
        meaning = "; its latents may mean nothing here" if strict is False else ""
        warnings.warn(f"{self.name} {said}{meaning}", stacklevel=4)

    def fits(self, place: Place) -> bool:
        """Whether these units stand at a hook of this store or encoder; `check_fits` says why not."""
        try:
            self.check_fits(place)
        except MedSAEError:
            return False
        return True


@dataclass(frozen=True)
class Latents(Units):
    """The latents of an SAE, trained or not. folder: that it was opened from, if any."""

    sae: SAE[Any] = field(kw_only=True, repr=False, compare=False)
    folder: Path | None = field(default=None, kw_only=True, repr=False, compare=False)

    @classmethod
    def of(cls, sae: SAE[Any], name: str, kind: Kind = "sae", baseline_of: str | None = None) -> Latents:
        """An SAE's, at the hook that its metadata name.

        Raises:
            MedSAEError: they name none.
        """
        metadata, cfg = sae.cfg.metadata, sae.cfg
        if (hook := metadata.get("hook_name")) is None:
            raise MedSAEError(f"{name} does not say which hook it stands at; add metadata.hook_name to its cfg.json")
        return cls(
            name,
            kind,
            str(hook),
            cfg.d_in,
            cfg.d_sae,
            cfg.architecture(),
            sae_sha256(sae),
            metadata.get("model_name"),
            metadata.get("encoder_sha256"),
            baseline_of,
            sae=sae,
        )

    @property
    def config(self) -> dict[str, Any]:
        return {k: v for k, v in self.sae.cfg.to_dict().items() if k not in _ELSEWHERE}

    @property
    def preprocessing(self) -> Mapping[str, Any] | None:
        return self.sae.cfg.metadata.get("preprocessing")

    @torch.no_grad()
    def encode(self, rows: Float[torch.Tensor, "rows d_in"]) -> Float[torch.Tensor, "rows n"]:
        return self.sae.encode(rows.to(self.sae.device))

    def directions(self) -> Float[torch.Tensor, "n d_in"]:
        return self.sae.W_dec.detach().float().cpu()


@dataclass(frozen=True)
class Neurons(Units):
    """The raw neurons of a hook. A neuron has no preferred sign, so each is two units: `d_in` activations, then their
    negatives."""

    @classmethod
    def of(cls, hook: str, d_in: int) -> Neurons:
        return cls(f"neurons of {hook}", "neurons", hook, d_in, 2 * d_in)

    def encode(self, rows: Float[torch.Tensor, "rows d_in"]) -> Float[torch.Tensor, "rows n"]:
        return torch.cat([rows, -rows], dim=-1)

    def directions(self) -> Float[torch.Tensor, "n d_in"]:
        axes = torch.eye(self.d_in)
        return torch.cat([axes, -axes])

    def label(self, unit: int) -> int | str | None:
        return f"-{unit - self.d_in}" if unit >= self.d_in else super().label(unit)

    def _index(self, label: str) -> int:
        if label.startswith("-"):
            j = super()._index(label[1:])
            return j + self.d_in if 0 <= j < self.d_in else -1
        j = super()._index(label)
        return j if j < self.d_in else -1


def described(units: Units) -> Units:
    """The same, known by their description alone, as files have it."""
    fields = {field.name: getattr(units, field.name) for field in dataclasses.fields(Units)}
    return (Neurons if units.kind == "neurons" else Units)(**fields)
