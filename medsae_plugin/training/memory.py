"""What an SAE remembers of the patients that it was trained on: their store's split, and salted digests of them.

The hash of the split goes into the SAE's metadata, and so into what is published. The digests lie in a file of their
own, which stays where the SAE was trained: whoever has them can try names, and patients' numbers are short enough to be
tried through. A salt an SAE keeps one list of digests from serving for many SAEs, and no more than that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from medsae_plugin.errors import MedSAEError

DIGESTS = "patients.safetensors"
SPLIT_SHA256, SPLIT_SEED = "split_sha256", "split_seed"
_BYTES = 8  # two of a million patients share a digest once in thirty million


@dataclass(frozen=True)
class TrainingPatients:
    """Salted digests of the patients that an SAE was trained on, ascending."""

    salt: str
    digests: UInt64[np.ndarray, " patients"]

    @classmethod
    def of(cls, patients: Iterable[str], *salt: object) -> TrainingPatients:
        """Those of these patients; the salt is made from what tells this SAE from others, so that runs repeat."""
        made = hashlib.sha256("\0".join(map(str, salt)).encode()).hexdigest()[:32]
        return cls(made, np.unique(_digests(sorted(set(patients)), made)))

    @classmethod
    def load(cls, folder: str | Path) -> TrainingPatients | None:
        """Those in an SAE's folder; None where it has none.

        Raises:
            MedSAEError: a damaged file.
        """
        file = Path(folder) / DIGESTS
        if not file.is_file():
            return None
        try:
            with safe_open(file, "np") as tensors:
                return cls((tensors.metadata() or {})["salt"], tensors.get_tensor("digests"))
        except (SafetensorError, OSError, KeyError) as error:
            raise MedSAEError(
                f"{file} is damaged ({error}); without it, it is not known whether its SAE has seen a patient. Delete "
                "it to go on so, or train again"
            ) from None

    def save(self, folder: str | Path) -> None:
        """Write them into an SAE's folder."""
        save_file({"digests": self.digests}, Path(folder) / DIGESTS, metadata={"salt": self.salt})

    def among(self, patients: Sequence[str]) -> Bool[np.ndarray, " patients"]:
        """Whether each of these patients is one of them."""
        return np.isin(_digests(patients, self.salt), self.digests)


def _digests(patients: Sequence[str], salt: str) -> UInt64[np.ndarray, " patients"]:
    of = {
        patient: hashlib.blake2b(patient.encode(), key=bytes.fromhex(salt), digest_size=_BYTES).digest()
        for patient in set(patients)
    }
    return np.frombuffer(b"".join(of[patient] for patient in patients), dtype="<u8").astype(np.uint64)
