"""Latent matrices on disk against dense arrays of the same latents."""

import json

import numpy as np
import pytest
from helpers.planted import matrix_manifest, planted_rows, write_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sae_lens import SAE
from scipy import sparse

from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores import matrix as module
from medsae_plugin.scores.matrix import LatentMatrix, LatentWriter, latent_matrix
from medsae_plugin.scores.units import Latents, Neurons
from medsae_plugin.training import SAESpec, TrainingConfig, train_saes

CONFIG = TrainingConfig(total_training_samples=2048, batch_size=128, lr=1e-3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rows = planted_rows(60 * 4, 8, 6)[0].reshape(60, 4, 8)
    return write_store(tmp_path_factory.mktemp("planted"), {"hook_tokens": rows, "hook_embedding": rows[:, 0]})


@pytest.fixture(scope="module")
def sae(store, tmp_path_factory):
    spec = SAESpec("s", "hook_tokens", "topk", expansion=3, options={"k": 3})
    return SAE.load_from_disk(train_saes(store, [spec], CONFIG, tmp_path_factory.mktemp("saes"), progress=False)["s"])


def rows_of(store, hook):
    return np.concatenate([rows.numpy() for _, rows in store.image_batches(hook)])


@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_a_matrix_holds_each_images_maximum_or_mean(store, sae, tmp_path, monkeypatch, aggregate):
    monkeypatch.setattr(module, "ROWS_PER_SHARD", 25)
    monkeypatch.setattr(module, "_BLOCK_NONZEROS", 100)
    matrix = latent_matrix(store, Latents.of(sae, "s"), tmp_path / "m", aggregate=aggregate, progress=False)
    encoded = np.concatenate([sae.encode(rows).detach().numpy() for _, rows in store.image_batches("hook_tokens")])
    expected = getattr(encoded.reshape(60, 4, 24), aggregate)(1)
    np.testing.assert_allclose(matrix.columns(0, 24).toarray(), expected, atol=1e-6)
    np.testing.assert_allclose(matrix.column(5), expected[:, 5], atol=1e-6)
    np.testing.assert_array_equal(matrix.counts, (expected != 0).sum(0))
    blocks = list(matrix.blocks())
    assert len(blocks) > 1 and len(list(matrix.shards())) == 3
    np.testing.assert_allclose(np.hstack([b.toarray() for _, b in blocks]), expected, atol=1e-6)
    for rows, part in matrix.shards():
        np.testing.assert_allclose(part.toarray(), expected[rows], atol=1e-6)
    assert list(matrix.images["path"]) == list(store.images["path"])


def test_neurons_are_there_with_both_signs(store, tmp_path):
    matrix = latent_matrix(store, Neurons.of("hook_tokens", 8), tmp_path / "n", progress=False)
    rows = rows_of(store, "hook_tokens").reshape(60, 4, 8)
    np.testing.assert_array_equal(matrix.columns(0, 16).toarray(), np.hstack([rows.max(1), (-rows).max(1)]))


def test_a_matrix_is_made_once_and_again_when_the_sae_changes(store, sae, tmp_path, monkeypatch):
    first = latent_matrix(store, Latents.of(sae, "s"), tmp_path / "m", progress=False)
    with monkeypatch.context() as patched:
        patched.setattr(type(sae), "encode", lambda *_: pytest.fail("encoded again"))
        assert latent_matrix(store, Latents.of(sae, "s"), tmp_path / "m", progress=False).manifest == first.manifest
    with np.errstate(all="ignore"):
        sae.b_enc.data += 1
        changed = latent_matrix(store, Latents.of(sae, "s"), tmp_path / "m", progress=False)
        sae.b_enc.data -= 1
    assert changed.manifest.sae_sha256 != first.manifest.sae_sha256


def test_other_folders_and_damage_are_told(store, sae, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(MedSAEError, match="holds no latent matrix"):
        latent_matrix(store, Latents.of(sae, "s"), tmp_path / "mine", progress=False)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    with pytest.raises(MedSAEError, match="holds no latent matrix"):
        LatentMatrix(tmp_path / "mine")
    matrix = latent_matrix(store, Latents.of(sae, "s"), tmp_path / "m", progress=False)
    shard = matrix.path / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(MedSAEError, match="damaged"):
        LatentMatrix(matrix.path)
    with pytest.raises(MedSAEError, match="stands at hook 'hook_nowhere'"):
        latent_matrix(store, Neurons.of("hook_nowhere", 8), tmp_path / "x", progress=False)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 9), max_size=8), seed=st.integers(0, 99))
def test_batches_of_any_size_give_the_same_files(tmp_path_factory, sizes, seed):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    dense = np.maximum(rng.normal(size=(n, 4)), 0).astype(np.float32)
    store = write_store(tmp_path_factory.mktemp("s"), {"h": np.zeros((max(n, 9), 2), np.float32)})
    folders = [tmp_path_factory.mktemp("m") for _ in range(2)]
    for folder, batches in zip(
        folders, (np.split(dense, np.cumsum(sizes)[:-1]) if sizes else [], [dense]), strict=True
    ):
        writer = LatentWriter(folder, 4)
        for batch in batches:
            writer.add(sparse.csr_array(batch))
        writer.finish(matrix_manifest(4, n), store.images.iloc[:n])
    for file in folders[0].iterdir():
        assert file.read_bytes() == (folders[1] / file.name).read_bytes()
    assert json.loads((folders[0] / "manifest.json").read_text())["n_images"] == n
    if n:
        np.testing.assert_array_equal(LatentMatrix(folders[0]).columns(0, 4).toarray(), dense)
