"""Fixtures for every test."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from small_run import SmallRun

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference values and real radiographs, beside the checkout or at MEDSAE_SHARED."""
    path = Path(os.environ.get("MEDSAE_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no reference data at {path} (set MEDSAE_SHARED)")
    return path


@pytest.fixture(scope="session")
def golden_medclip(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Official-format checkpoints with the weights that the reference values were computed on.

    `golden_medclip("swin")` is the path of a `pytorch_model.bin`, drawn as the reference's README says.
    """
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            shapes = json.loads((shared / "golden" / f"medclip_{name}_state_dict.json").read_text())
            made[name] = tmp_path_factory.mktemp(f"medclip-{name}") / "pytorch_model.bin"
            torch.save(draw_weights(shapes), made[name])
        return made[name]

    return make


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> "SmallRun":
    """A sweep's output with its store, images and names; not to be written to."""
    import small_run

    return small_run.make(tmp_path_factory.mktemp("small-run"))


def draw_weights(shapes: dict[str, tuple[list[int], str]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key in sorted(shapes):
        shape, dtype = shapes[key]
        if not dtype.startswith("float"):
            state[key] = (
                torch.arange(shape[-1]).expand(shape)
                if key.endswith("position_ids")
                else torch.zeros(shape, dtype=torch.int64)
            )
            continue
        r = torch.randn(shape, generator=generator) * 0.02
        is_scale = key.endswith("weight") and any(s in key.lower() for s in ("norm", "bn", "downsample.1"))
        state[key] = 1 + r.abs() if key.endswith("running_var") or is_scale else r
    return state
