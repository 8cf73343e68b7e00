"""Baselines: what each one's units are, against scikit-learn, scipy and plain arithmetic; held, kept, opened."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.planted import planted_rows, relu_sae, save_sae, write_store
from sae_lens import SAE
from scipy.optimize import nnls
from sklearn.decomposition import PCA

from medsae_plugin.cli import main
from medsae_plugin.errors import MedSAEError
from medsae_plugin.sae_folders import load_sae
from medsae_plugin.scores import open_units
from medsae_plugin.scores.baselines import nonnegative_weights
from medsae_plugin.training import SAESpec, TrainingConfig, train_saes
from medsae_plugin.training.baseline_folders import Note
from medsae_plugin.training.baselines import KINDS, Like, make_baselines
from medsae_plugin.training.decoders import within_cosine
from medsae_plugin.training.specs import build_sae

N, D, FEATURES, HOOK = 240, 10, 7, "hook_embedding"
CONFIG = TrainingConfig(total_training_samples=1_280, batch_size=64, lr=1e-2)
SPEC = SAESpec("mine", HOOK, "topk", expansion=2, options={"k": 3})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of rows above 0, an SAE that SAE-Lens trained over it, and every baseline that needs no image."""
    folder = tmp_path_factory.mktemp("baselines")
    rows, _ = planted_rows(N, D, FEATURES)
    store = write_store(folder / "store", {HOOK: rows})
    sae = train_saes(store, [SPEC], CONFIG, folder / "saes", progress=False)["mine"]
    said: list[str] = []
    paths = make_baselines(Like.of(sae, store, 5), folder / "baselines", progress=False, say=said.append)
    return folder, store, sae, paths, said


@pytest.fixture(scope="module")
def train(made):
    """The rows that baselines are made of, in the order of the images."""
    return torch.cat([rows for _, rows in made[1].image_batches(HOOK, "train")])


def units_of(made):
    _, store, sae, paths, _ = made
    return {one.kind: one for one in open_units(store, sae, baselines=list(paths.values()))}


def test_each_has_as_many_units_and_is_linked_with_its_sae(made):
    folder, store, sae, paths, said = made
    assert list(paths) == [kind for kind in KINDS if kind != "random-encoder"]
    assert said == ["random-encoder is not made: it reads the images again: give their folder (--images)"]
    units = units_of(made)
    assert list(units) == ["sae", "untrained", *paths, "neurons"]
    for kind, path in paths.items():
        assert units[kind].baseline_of == "mine" and units[kind].name == f"{kind} mine"
        note = Note.open(path)
        assert (note.of, note.of_sha256) == ("mine", units["sae"].sae_sha256)
        assert units[kind].n == note.n == 2 * D and note.rows == store.n_rows(HOOK, "train")
    for kind in set(paths) - {"k-means", "nmf"}:  # the others are SAEs, to load as any
        assert SAE.load_from_disk(paths[kind]).cfg.d_sae == 2 * D
    with pytest.raises(MedSAEError, match="a second baseline pca of mine"):
        open_units(store, sae, baselines=[folder / "baselines", _copied(paths["pca"], folder / "copy")])
    other = save_sae(folder / "other", relu_sae(HOOK, torch.eye(D), encoder_sha256="0" * 64))
    with pytest.raises(MedSAEError, match=r"is a baseline of the SAE mine with weights .*not scored here.*other"):
        open_units(store, other, baselines=[paths["pca"]])
    with pytest.raises(MedSAEError, match="holds no baseline"):
        open_units(store, sae, baselines=[folder / "store"])


def _copied(path: Path, to: Path) -> Path:
    to.mkdir()
    for file in path.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_linear_ones_are_relu_of_what_a_direction_reads_off_the_centred_row(made, train):
    units, centred = units_of(made), train - train.mean(0)
    signs = np.abs(PCA().fit_transform(train.double().numpy()))
    pca = units["pca"].encode(train).numpy()
    assert np.abs(pca[:, :D] + pca[:, D:] - signs).max() < 1e-4 and (pca[:, :D] * pca[:, D:] == 0).all()
    for kind in ("random", "rows"):
        sae = load_sae(made[3][kind])
        read = sae.W_enc.detach()
        torch.testing.assert_close(read.norm(dim=0), torch.ones(2 * D))
        expected = torch.relu(centred @ read)
        torch.testing.assert_close(units[kind].encode(train), expected, atol=1e-4, rtol=1e-4)
    along = (centred / centred.norm(dim=1, keepdim=True)) @ load_sae(made[3]["rows"]).W_enc.detach()
    torch.testing.assert_close(along.max(0).values, torch.ones(2 * D), atol=1e-4, rtol=0)  # each is a training row


def test_components_of_ica_are_uncorrelated_of_variance_1_and_give_the_rows_back(made, train):
    sae = load_sae(made[3]["ica"])
    both = sae.encode(train).detach()
    sources = (both[:, :D] - both[:, D:]).double().numpy()
    assert np.abs(np.cov(sources.T, bias=True) - np.eye(D)).max() < 1e-3
    torch.testing.assert_close(sae(train).detach(), train, atol=1e-3, rtol=0)


def test_a_centroid_fires_where_it_is_nearer_than_the_mean_centroid(made, train):
    k_means = units_of(made)["k-means"]
    distance = np.linalg.norm(train.numpy()[:, None] - k_means.directions().numpy()[None], axis=-1)
    expected = np.maximum(distance.mean(1, keepdims=True) - distance, 0)
    np.testing.assert_allclose(k_means.encode(train).numpy(), expected, atol=1e-5)
    nearest = distance.argmin(1)
    for j in range(k_means.n):  # at a minimum of k-means each centroid is the mean of what is nearest to it
        np.testing.assert_allclose(train.numpy()[nearest == j].mean(0), k_means.directions()[j], atol=1e-4)


def test_weights_of_nmf_are_those_of_nonnegative_least_squares(made, train):
    rng = np.random.default_rng(0)
    parts, rows = rng.random((5, 9)).astype(np.float32), rng.random((20, 9)).astype(np.float32)
    expected = np.stack([nnls(parts.T.astype(float), row.astype(float))[0] for row in rows])
    found = nonnegative_weights(torch.from_numpy(rows), torch.from_numpy(parts)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (expected == 0).any() and (found >= 0).all()
    nmf = units_of(made)["nmf"]  # more parts than dimensions: the weights are not unique, what they leave is
    weights, parts = nmf.encode(train).numpy(), nmf.directions().numpy()
    least = [nnls(parts.T.astype(float), row.astype(float))[1] for row in train.numpy()]
    np.testing.assert_allclose(np.linalg.norm(train.numpy() - weights @ parts, axis=1), least, atol=5e-3)
    assert (weights >= 0).all() and (parts >= 0).all()


def test_a_frozen_decoder_is_as_it_was_drawn_and_a_soft_one_within_its_cosine(made):
    folder, store, sae, paths, _ = made
    drawn = build_sae(store, replace(SPEC, seed=5), CONFIG).W_dec.detach()
    cosines = {
        kind: torch.nn.functional.cosine_similarity(load_sae(path).W_dec.detach(), drawn, dim=-1)
        for kind, path in paths.items()
        if kind.endswith("decoder")
    }
    assert cosines["frozen-decoder"].min() > 1 - 1e-5
    assert cosines["soft-frozen-decoder"].min() > 0.8 - 1e-4
    assert cosines["soft-frozen-decoder"].min() < 1 - 1e-4  # it was trained
    free = load_sae(train_saes(store, [replace(SPEC, seed=5)], CONFIG, folder / "free", progress=False)["mine"])
    assert not torch.equal(free.W_enc, load_sae(paths["frozen-decoder"]).W_enc)
    report = json.loads((paths["frozen-decoder"] / "training.json").read_text())
    assert report["sae"]["decoder"] == "frozen" and report["sae"]["options"]["k"] == 3
    mine = json.loads((sae / "training.json").read_text())
    assert report["training"] == mine["training"] and "decoder" not in mine["sae"]


def test_a_direction_is_turned_back_to_the_nearest_one_that_is_allowed():
    torch.manual_seed(0)
    drawn, rows = torch.randn(2, 400, 3)
    kept = within_cosine(rows, drawn, 0.8)
    before, after = (torch.nn.functional.cosine_similarity(x, drawn, dim=-1) for x in (rows, kept))
    near = before >= 0.8
    assert near.any() and torch.equal(kept[near], rows[near])
    torch.testing.assert_close(after[~near], torch.full((int((~near).sum()),), 0.8))
    torch.testing.assert_close(kept.norm(dim=-1), rows.norm(dim=-1))
    # Of many directions on the edge of the cone none is nearer to the row than this one.
    axis = drawn[0] / drawn[0].norm()
    across = torch.linalg.qr(torch.stack([axis, *torch.eye(3)[:2]]).T)[0][:, 1:]
    angle = torch.linspace(0, 2 * torch.pi, 721)
    edge = 0.8 * axis + 0.6 * (across @ torch.stack([angle.cos(), angle.sin()])).T
    row = -drawn[:1] + 0.3 * rows[:1]
    best = (edge @ row[0] / row.norm()).max()
    assert torch.nn.functional.cosine_similarity(within_cosine(row, drawn[:1], 0.8), row).item() > best - 1e-4


def test_the_same_command_makes_the_same_files_and_keeps_what_is_there(made, tmp_path, capsys):
    folder, store, sae, paths, _ = made
    command = ["baselines", str(store.path), "--like", str(sae), "--quiet", "--out"]
    kinds = ["--kinds", "random,ica,nmf,k-means,soft-frozen-decoder"]
    assert main([*command, str(tmp_path / "again"), "--seed", "5", *kinds]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == [
        "random", "soft-frozen-decoder", "ica", "nmf", "k-means"
    ]  # fmt: skip
    for kind in ("random", "ica", "nmf", "k-means", "soft-frozen-decoder"):
        files = {file.name: file.read_bytes() for file in paths[kind].iterdir()}
        assert {file.name: file.read_bytes() for file in (tmp_path / "again" / kind).iterdir()} == files
    before = {path: path.stat().st_mtime_ns for path in paths["k-means"].iterdir()}
    assert main([*command, str(folder / "baselines"), "--seed", "5", "--hook", HOOK]) == 0
    assert {path: path.stat().st_mtime_ns for path in paths["k-means"].iterdir()} == before
    for more, wrong in [
        (["--seed", "6"], r"random is a baseline of something else \(it differs in: seed\)"),
        (["--seed", "5", "--kinds", "lda"], "there is no baseline 'lda'; there are random, rows"),
        (["--seed", "5", "--kinds", "random-encoder"], "random-encoder cannot be made: it reads the images again"),
        (["--seed", "5", "--hook", "elsewhere"], f"stands at {HOOK}, not at elsewhere"),
        (["--seed", "5", "--encoder", "phantom-swin"], "needs --images too"),
    ]:
        assert main([*command, str(folder / "baselines"), *more]) == 1
        assert re.search(wrong, capsys.readouterr().err)


def test_rows_below_0_have_no_nmf_and_few_rows_fewer_units(tmp_path):
    rows, _ = planted_rows(60, D, FEATURES, offset=0.0)
    store = write_store(tmp_path / "store", {HOOK: rows})
    wide = torch.randn(80, D, generator=torch.Generator().manual_seed(0))
    sae = save_sae(tmp_path / "sae", relu_sae(HOOK, wide, encoder_sha256="0" * 64))
    like, said = Like.of(sae, store), []
    paths = make_baselines(like, tmp_path / "out", ("random", "rows", "pca", "k-means"), progress=False)
    assert {k: Note.open(p).n for k, p in paths.items()} == {"random": 80, "rows": 36, "pca": 20, "k-means": 36}
    with pytest.raises(MedSAEError, match=f"nmf cannot be made: rows of {HOOK} go down to -"):
        make_baselines(like, tmp_path / "out", ("nmf",), progress=False)
    # An SAE without a recipe gets TopK's, of as many latents and 32 active.
    frozen = make_baselines(like, tmp_path / "out", ("frozen-decoder",), progress=False, say=said.append)
    cfg = load_sae(frozen["frozen-decoder"]).cfg
    assert (cfg.architecture(), cfg.k, cfg.d_sae) == ("topk", 32, 80)


@pytest.mark.parametrize(
    ("file", "content", "wrong"),
    [
        ("baseline.json", "{}", "is not what medsae baselines writes"),
        ("baseline.json", "nonsense", "baseline.json"),
        ("units.safetensors", "nonsense", "is not a sound safetensors file"),
        ("units.safetensors", None, "is incomplete: there is no units.safetensors"),
    ],
)
def test_a_damaged_baseline_is_said(made, tmp_path, file, content, wrong):
    _, store, sae, paths, _ = made
    folder = _copied(paths["k-means"], tmp_path / "k-means")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(MedSAEError, match=wrong):
        open_units(store, sae, baselines=[folder])
