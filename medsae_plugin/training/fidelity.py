"""How well an SAE reconstructs, and how sparsely: sums over rows that merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class FidelitySums:
    """Sums over activation rows, float64, from which every fidelity and sparsity figure follows.

    `update` takes a batch; `merge` adds the sums of other rows. The mean is followed with Chan's update, so a large
    common offset of the activations does not eat the variance.
    """

    d_in: int
    d_sae: int
    n: int = 0
    squared_error: float = 0.0
    cosine: float = 0.0
    mean: Tensor = field(init=False)  # (d_in,)
    scatter: float = 0.0  # sum of ||x - mean||^2
    fired: Tensor = field(init=False)  # (d_sae,) rows on which the latent is not zero

    def __post_init__(self) -> None:
        self.mean = torch.zeros(self.d_in, dtype=torch.float64)
        self.fired = torch.zeros(self.d_sae, dtype=torch.float64)

    def update(
        self, x: Float[Tensor, "rows d_in"], latents: Float[Tensor, "rows d_sae"], x_hat: Float[Tensor, "rows d_in"]
    ) -> None:
        """Add a batch: activations, their latents, and the reconstruction."""
        x, x_hat = x.detach().cpu().double(), x_hat.detach().cpu().double()
        batch = FidelitySums(self.d_in, self.d_sae)
        batch.n = len(x)
        batch.squared_error = float((x - x_hat).square().sum())
        batch.cosine = float(torch.nn.functional.cosine_similarity(x, x_hat, dim=-1).sum())
        if len(x):
            batch.mean = x.mean(0)
        batch.scatter = float((x - batch.mean).square().sum())
        batch.fired = (latents != 0).sum(0).double().cpu()
        self.merge(batch)

    def merge(self, other: FidelitySums) -> None:
        """Add the sums of other rows in place."""
        n = self.n + other.n
        if n == 0:
            return
        delta = other.mean - self.mean
        self.scatter += other.scatter + float(delta.square().sum()) * self.n * other.n / n
        self.mean = self.mean + delta * (other.n / n)
        self.squared_error += other.squared_error
        self.cosine += other.cosine
        self.fired = self.fired + other.fired
        self.n = n

    def state(self) -> dict[str, Tensor]:
        """Every sum, as tensors; `from_state` makes the same sums of them."""
        scalars = {"n": self.n, "squared_error": self.squared_error, "cosine": self.cosine, "scatter": self.scatter}
        return {name: torch.tensor(x, dtype=torch.float64) for name, x in scalars.items()} | {
            "mean": self.mean,
            "fired": self.fired,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> FidelitySums:
        """The sums whose `state` this is."""
        sums = cls(len(state["mean"]), len(state["fired"]), int(state["n"]))
        sums.squared_error, sums.cosine, sums.scatter = (
            float(state[k]) for k in ("squared_error", "cosine", "scatter")
        )
        sums.mean, sums.fired = state["mean"], state["fired"]
        return sums

    def figures(self) -> dict[str, float]:
        """The figures, all over the rows seen; nan where they are undefined (no rows, constant activations).

        - `explained_variance`: 1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2
        - `mse`: mean squared error per component; `cosine`: mean cosine of x and x_hat
        - `l0`: mean count of latents not zero; `dead`, `dense`: share of latents that fire on no row, on more than 10 %
        """
        nan = float("nan")
        if self.n == 0:
            return dict.fromkeys(("explained_variance", "mse", "cosine", "l0", "dead", "dense"), nan)
        return {
            "explained_variance": 1.0 - self.squared_error / self.scatter if self.scatter > 0 else nan,
            "mse": self.squared_error / (self.n * self.d_in),
            "cosine": self.cosine / self.n,
            "l0": float(self.fired.sum()) / self.n,
            "dead": float((self.fired == 0).double().mean()),
            "dense": float((self.fired > 0.1 * self.n).double().mean()),
        }
