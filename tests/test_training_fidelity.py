"""Fidelity sums against a plain float64 computation on all rows at once."""

import numpy as np
import pytest
import torch

from medsae_plugin.training.fidelity import FidelitySums


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=g) + 1e4  # an offset that eats float32 sums
    latents = torch.relu(torch.randn(300, 7, generator=g) - torch.linspace(-1, 3, 7))
    latents[:, 6] = 0
    return x, latents, x + 0.3 * torch.randn(300, 5, generator=g)


def brute(x: np.ndarray, latents: np.ndarray, x_hat: np.ndarray) -> dict[str, float]:
    x, x_hat = x.astype(np.float64), x_hat.astype(np.float64)
    fires = (latents != 0).mean(0)
    return {
        "explained_variance": 1 - ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum(),
        "mse": ((x - x_hat) ** 2).mean(),
        "cosine": np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(x, x_hat, strict=True)]),
        "l0": (latents != 0).sum(1).mean(),
        "dead": (fires == 0).mean(),
        "dense": (fires > 0.1).mean(),
    }


def test_batches_and_merges_give_the_figures_of_all_rows(rows):
    parts = [FidelitySums(5, 7) for _ in range(3)]
    for start in range(0, 300, 40):
        parts[start // 40 % 3].update(*(t[start : start + 40] for t in rows))
    whole = parts[2]
    whole.merge(parts[0])
    whole.merge(FidelitySums(5, 7))
    whole.merge(parts[1])
    expected = brute(*(t.numpy() for t in rows))
    assert whole.n == 300
    for name, value in whole.figures().items():
        assert value == pytest.approx(expected[name], rel=1e-9), name


def test_undefined_figures_are_nan():
    empty = FidelitySums(5, 7)
    assert all(np.isnan(v) for v in empty.figures().values())
    constant = FidelitySums(2, 1)
    constant.update(torch.ones(4, 2), torch.ones(4, 1), torch.ones(4, 2))
    assert np.isnan(constant.figures()["explained_variance"]) and constant.figures()["mse"] == 0
