"""Fixtures for every test."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import torch
from helpers import next_transformer_lens  # noqa: F401  so that SAE-Lens can be imported after it
from helpers.hub_server import Client, Hub, running_hub

if TYPE_CHECKING:
    from helpers.naming_case import PhantomCase
    from helpers.small_run import SmallRun

    from medsae_plugin import ActivationStore, HookedVisionEncoder, ImageTable

# One thread, here and in the processes that tests start, unless the environment says otherwise: more only slow such
# small models down. All take as many, since sums are rounded in another order with each number of threads.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference values and real radiographs, beside the checkout or at MEDSAE_SHARED."""
    path = Path(os.environ.get("MEDSAE_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no reference data at {path} (set MEDSAE_SHARED)")
    return path


@pytest.fixture(scope="session")
def phantom_case(tmp_path_factory: pytest.TempPathFactory) -> "PhantomCase":
    """Phantoms with a latent for each finding; see `naming_case`."""
    from helpers.naming_case import make_case

    return make_case(tmp_path_factory.mktemp("phantom-case"))


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
def hub() -> Iterator[Hub]:
    """A Hub on loopback; tests take repositories of their own in it."""
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def client(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A process with a home of its own that runs code against that Hub."""
    client = Client(hub, tmp_path_factory.mktemp("home"))
    yield client
    client.close()


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> "SmallRun":
    """A sweep's output with its store, images and names; not to be written to."""
    from helpers import small_run

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


class DemoSAEs(NamedTuple):
    """Phantoms, the demo encoder, its activations of them, and an SAE on each of two hooks of it, by name.

    `embedding` has a latent for each finding, in the order of the prompts: its direction, encoder's and decoder's, is
    the one along which the finding's zero-shot score grows. As many more latents have directions at right angles to all
    of those. `patches`, at the last stage, has latents of random directions.
    """

    labels: Path
    table: "ImageTable"
    encoder: "HookedVisionEncoder"
    store: "ActivationStore"
    folders: dict[str, Path]

    def split(self, name: str) -> "ImageTable":
        return self.table.take(np.flatnonzero(self.table.frame["split"] == name))


@pytest.fixture(scope="session")
def demo_saes(tmp_path_factory: pytest.TempPathFactory) -> DemoSAEs:
    """SAEs of the demo encoder that nothing was trained for: every latent's direction and threshold is set."""
    from helpers.planted import in_a_gap, relu_sae, save_sae

    import medsae_plugin as medsae
    from medsae_plugin.data.prompts import load_prompts
    from medsae_plugin.encoders import ZeroShot
    from medsae_plugin.phantoms import generate

    folder = tmp_path_factory.mktemp("demo-saes")
    labels = generate(180, folder / "phantoms", seed=0, size=96, workers=0)
    table = medsae.read_table(labels).split_by_patient(seed=0, fractions={"train": 0.5, "test": 0.5})
    encoder = medsae.HookedVisionEncoder.from_pretrained("phantom-swin")
    hooks = {"embedding": "hook_embedding", "patches": "stages.2.blocks.3.hook_resid_post"}
    store = medsae.extract(encoder, table, [*hooks.values()], folder / "store", workers=0, progress=False)

    zero_shot = ZeroShot(encoder, load_prompts("phantoms"))
    findings = (zero_shot.stated - zero_shot.denied).double().numpy()
    random = np.random.default_rng(0).normal(size=(2, len(findings), findings.shape[1]))
    others = random[0] - random[0] @ np.linalg.pinv(findings) @ findings
    folders = {}
    for name, directions in {"embedding": np.concatenate([findings, others]), "patches": random[1]}.items():
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        rows = store.rows_of(hooks[name], np.arange(len(table))).double().flatten(0, 1).numpy()
        thresholds = [in_a_gap(along) for along in (rows @ directions.T).T]
        weights = [torch.from_numpy(x).float() for x in (directions, -np.array(thresholds), rows.mean(0))]
        sae = relu_sae(hooks[name], weights[0], b_enc=weights[1], b_dec=weights[2])
        folders[name] = save_sae(folder / "saes" / name, sae)
    return DemoSAEs(labels, table, encoder, store, folders)
