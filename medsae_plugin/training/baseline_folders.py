"""Folders of baselines: an SAE in SAE-Lens's format where a baseline is one, else its parts, and a note of what it is.

baseline.json           which kind, of which SAE, at which hook, from which seed and rows
units.safetensors       `parts (n, d_in)`: centroids of k-means, components of NMF; the others are SAEs
store/                  a random encoder's own activations of the same images
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict

from medsae_plugin.encoders.checkpoints import read_checkpoint
from medsae_plugin.errors import MedSAEError
from medsae_plugin.saved import Saved

NOTE, PARTS, STORE = "baseline.json", "units.safetensors", "store"
BaselineKind = Literal[
    "random", "rows", "frozen-decoder", "soft-frozen-decoder", "pca", "ica", "nmf", "k-means", "random-encoder"
]


class Note(Saved):
    """What a baseline is.

    of, of_sha256: the SAE that it stands beside: its name when this was made, and the hash of its weights.
    rows: how many rows of the training split it was made of; 0 for none. images_sha256: of the store's images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    FILE: ClassVar[str] = NOTE
    COMMAND: ClassVar[str] = "medsae baselines"

    kind: BaselineKind
    of: str
    of_sha256: str
    hook: str
    d_in: int
    n: int
    seed: int
    rows: int
    images_sha256: str
    encoder: str
    encoder_sha256: str
    schema_version: Literal[1] = 1


def baseline_folders(given: Sequence[str | Path]) -> list[Path]:
    """The baselines in folders: each is one, or holds some, or holds folders that do (of several SAEs).

    Raises:
        MedSAEError: one that holds none.
    """
    found: list[Path] = []
    for path in map(Path, given):
        here = [file.parent for depth in ("", "*/", "*/*/") for file in sorted(path.glob(f"{depth}{NOTE}"))]
        if not here:
            raise MedSAEError(f"{path} holds no baseline; medsae baselines makes them")
        found += here
    return list(dict.fromkeys(found))


def read_parts(folder: Path, note: Note) -> Float[torch.Tensor, "n d_in"]:
    """The parts of a baseline that is no SAE, float32.

    Raises:
        MedSAEError: they are missing, damaged, or of another shape than the note says.
    """
    file = folder / PARTS
    if not file.is_file():
        raise MedSAEError(f"{folder} is incomplete: there is no {PARTS} in it")
    parts = read_checkpoint(file).get("parts")
    if parts is None or parts.shape != (note.n, note.d_in) or not torch.isfinite(parts).all():
        raise MedSAEError(f"{file} does not hold {note.n} x {note.d_in} finite parts, as its {NOTE} says")
    return parts.float()


def parts_sha256(kind: str, parts: Float[torch.Tensor, "n d_in"]) -> str:
    """Of the parts and what is made of them."""
    return hashlib.sha256(kind.encode() + parts.float().numpy().tobytes()).hexdigest()
