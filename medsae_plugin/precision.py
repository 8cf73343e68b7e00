"""float32 or bfloat16: what is asked for, what was chosen, and how near the one is to the other."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float

from medsae_plugin.errors import MedSAEError
from medsae_plugin.machine import computes_in_bfloat16

AUTO, FP32, BF16 = "auto", "fp32", "bf16"
PRECISIONS = (AUTO, FP32, BF16)
LEAST_COSINE = 0.9995
"""Of every row in bfloat16 with the same in float32, for `auto` to take bfloat16."""
MOST_NOISE = 0.003
"""Share of the rows' variance that their error may be, for that as well. Rows of a large mean and small differences
have cosines near 1 whatever becomes of the differences, and those are what an SAE learns."""


@dataclass(frozen=True)
class Precision:
    """`fp32` or `bf16`, and in words why, where it was not simply asked for."""

    name: str
    why: str = ""

    def __str__(self) -> str:
        return f"computed in {self.name}" + (f" ({self.why})" if self.why else "")

    @classmethod
    def asked(cls, name: str, device: torch.device) -> Precision | None:
        """What needs no check: what is asked for by name, and `auto` on a chip without bfloat16. None: it needs one.

        Raises:
            MedSAEError: no such precision.
        """
        if name not in PRECISIONS:
            raise MedSAEError(f"precision {name!r}: use {', '.join(PRECISIONS)}")
        has = computes_in_bfloat16(device)
        if name != AUTO:
            return cls(name, "" if has or name == FP32 else f"emulated: no bfloat16 in this chip ({device})")
        return None if has else cls(FP32, f"auto: no bfloat16 in this chip ({device})")

    @classmethod
    def checked(cls, agreements: Collection[Agreement]) -> Precision:
        """What `auto` takes where rows in bfloat16 and in float32 agree so far."""
        rows = sum(one.rows for one in agreements)
        if not rows:
            return cls(FP32, "auto: there is nothing to check bf16 on")
        cosine, noise = min(one.cosine for one in agreements), max(one.noise for one in agreements)
        takes = cosine > LEAST_COSINE and noise < MOST_NOISE
        found = f"{rows:,} rows in bf16 have cosines of {cosine:.6f} or more with fp32, and {noise:.2g} of noise"
        wanted = f"{'above' if takes else 'auto wants above'} {LEAST_COSINE} and below {MOST_NOISE}"
        return cls(BF16 if takes else FP32, f"auto: {found}; {wanted}")


class Agreement:
    """How far rows in bfloat16 agree with the same in float32, over several batches of them.

    Attributes:
        rows: how many.
        cosine: the smallest of a row with the same row; 1 for rows that are equal, -1 where one is not finite.
    """

    def __init__(self) -> None:
        self.rows, self.cosine = 0, 1.0
        self._error = self._squares = 0.0
        self._sum: torch.Tensor | float = 0.0
        self._shift: torch.Tensor | None = None

    def add(self, exact: Float[torch.Tensor, "rows d"], coarse: Float[torch.Tensor, "rows d"]) -> None:
        """A batch."""
        exact, coarse = exact.double().cpu(), coarse.double().cpu()
        cosines = torch.nn.functional.cosine_similarity(exact, coarse, dim=1, eps=1e-30)
        cosines = torch.where((exact == coarse).all(1), 1.0, cosines)
        self.cosine = min(self.cosine, float(cosines.nan_to_num(nan=-1.0).min()))
        self._error += float((exact - coarse).square().sum())
        if self._shift is None:
            self._shift = exact.mean(0)  # near the mean, so that the difference of squares keeps its digits
        self._sum = self._sum + (exact - self._shift).sum(0)
        self._squares += float((exact - self._shift).square().sum())
        self.rows += len(exact)

    @property
    def noise(self) -> float:
        """The squared error as a share of the float32 rows' variance; infinite where they do not vary."""
        if not self._error:
            return 0.0
        variance = self._squares - float(torch.as_tensor(self._sum).square().sum()) / self.rows
        return self._error / variance if variance > 0 else math.inf
