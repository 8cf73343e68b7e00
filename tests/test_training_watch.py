"""What a training shows and logs on the way, beside figures that are computed here from its parts."""

import os
import pty
import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import wandb
from helpers.planted import planted_rows, reading_weights, relu_sae, write_store
from wandb.sdk.lib import runid

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.scores import MeanTopR
from medsae_plugin.store import ActivationStore
from medsae_plugin.training import SAESpec, TrainingConfig, train_saes

HOOK, D, FEATURES = "hook_embedding", 16, 24
CONFIG = TrainingConfig(2560, batch_size=64, lr=1e-3, validate_every=20)
ONE = [SAESpec("one", HOOK, "topk", 2, options={"k": 3})]
TWO = [*ONE, SAESpec("two", HOOK, "standard", 2, "expected_average_only_in", {"l1_coefficient": 0.5})]


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> tuple[ActivationStore, ImageTable, np.ndarray]:
    """A store, a table of a label a planted feature, and the codes."""
    rows, codes = planted_rows(600, D, FEATURES)
    store = write_store(tmp_path_factory.mktemp("case") / "store", {HOOK: rows})
    names = tuple(f"feature{c}" for c in range(FEATURES))
    return store, ImageTable(store.path, store.images, (codes > 0).astype(np.float32), names), codes


def test_the_mean_top_r_is_chosen_on_train_and_measured_on_val(case):
    """Latents that read the codes off, but that on `val` a latent of another feature fires in place of the first."""
    store, table, codes = case
    sae = relu_sae(HOOK, **reading_weights(D, FEATURES))
    with torch.no_grad():
        got = MeanTopR(store, table)(HOOK, sae.encode)
        latents = sae.encode(store.image_rows(HOOK, slice(None))).double().numpy()
    split = store.images["split"].to_numpy()
    rs = []
    for c in range(FEATURES):
        present = codes[:, c] > 0
        both = {s: (latents[split == s], present[split == s]) for s in ("train", "val")}
        if 0 < both["val"][1].mean() < 1:
            r = {s: [np.corrcoef(a, y)[0, 1] if a.std() else 0.0 for a in x.T] for s, (x, y) in both.items()}
            fires = (both["train"][0] > 0).sum(0) >= 10
            rs.append(r["val"][int(np.where(fires, r["train"], -2).argmax())])
    assert got == pytest.approx(np.mean(rs), abs=1e-9)
    with pytest.raises(MedSAEError, match="no labels"):
        MeanTopR(store, ImageTable(store.path, store.images, np.zeros((600, 0), np.float32), ()))


def test_positions_count_by_their_maximum(tmp_path):
    rows, codes = planted_rows(1200, D, FEATURES)
    store = write_store(tmp_path / "store", {HOOK: rows.reshape(300, 4, D)})
    names = tuple(f"feature{c}" for c in range(FEATURES))
    labels = (codes.reshape(300, 4, FEATURES).max(1) > 0).astype(np.float32)
    pooled = write_store(tmp_path / "pooled", {HOOK: codes.reshape(300, 4, FEATURES).max(1).astype(np.float32)})
    table = ImageTable(store.path, store.images, labels, names)
    sae = relu_sae(HOOK, **reading_weights(D, FEATURES))
    with torch.no_grad():
        read = MeanTopR(store, table)(HOOK, sae.encode)
    assert read == pytest.approx(MeanTopR(pooled, table)(HOOK, lambda x: (x - 0.5).clamp(min=0)), abs=0.02)


def test_the_history_has_the_mean_loss_since_the_point_before_and_mean_top_r(case, tmp_path):
    store, table, _ = case
    folders = train_saes(store, TWO, CONFIG, tmp_path / "o", top_r=MeanTopR(store, table), progress=False)
    finer = TrainingConfig(2560, batch_size=64, lr=1e-3, validate_every=10)
    fine = train_saes(store, TWO, finer, tmp_path / "fine", progress=False)
    for name in folders:
        history, often = (pd.read_parquet(f[name] / "history.parquet") for f in (folders, fine))
        assert list(history["step"]) == [20, 40] and list(often["step"]) == [10, 20, 30, 40]
        assert list(history["rows"]) == [1280, 2560]
        assert history["mean_top_r"].between(-1, 1).all() and often["mean_top_r"].isna().all()
        means = often["loss"].to_numpy().reshape(2, 2).mean(1)
        np.testing.assert_allclose(history["loss"], means, rtol=1e-5)
        for key in ("explained_variance", "l0", "dead"):
            np.testing.assert_array_equal(history[key], often[key].iloc[1::2])


def test_sae_lens_normalisation_is_applied_where_it_is_not_folded_yet(case, tmp_path):
    """A learning rate of nothing: the SAE is the same at every point, before its scale is folded and after."""
    config = TrainingConfig(2560, batch_size=64, lr=1e-30, validate_every=20, n_batches_for_norm_estimate=3)
    folder = train_saes(case[0], TWO[1:], config, tmp_path / "o", progress=False)["two"]
    history = pd.read_parquet(folder / "history.parquet")
    np.testing.assert_allclose(history["explained_variance"], history["explained_variance"].iloc[0], rtol=1e-4)


@pytest.mark.parametrize("specs", [ONE, TWO])
@pytest.mark.parametrize("with_rich", [True, False])
def test_a_line_moves_on_a_terminal(case, tmp_path, monkeypatch, specs, with_rich):
    if with_rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    for name, value in {"COLUMNS": "240", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        train_saes(case[0], specs, CONFIG, tmp_path / "o")
        terminal.flush()
        shown = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert "training: step 40 of 40 (100%) [0:0" in shown and "rows/s" in shown
    for spec in specs[: None if with_rich else 1]:
        assert re.search(rf"{spec.name}: explained variance -?\d+\.\d{{3}}  L0 \d+\.\d  dead \d.*%  loss \d", shown)
    assert "Training SAE" not in shown


def test_plain_lines_where_there_is_no_terminal_and_none_when_quiet(case, tmp_path, capsys):
    train_saes(case[0], ONE, CONFIG, tmp_path / "told")
    err = capsys.readouterr().err
    assert err.startswith("training: step ") and err.count("\n") == 1 and "\r" not in err and "\x1b" not in err
    assert "one: explained variance " in err
    train_saes(case[0], ONE, CONFIG, tmp_path / "quiet", progress=False)
    assert capsys.readouterr().err == ""


def logged(folder) -> dict[str, dict[int, float]]:
    """What an offline run of wandb holds, by key and step."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    store, found = DataStore(), {}
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
        for key, value in items.items():
            found.setdefault(key, {})[int(items["_step"])] = value
    return found


@pytest.mark.parametrize("specs", [ONE, TWO])
def test_wandb_gets_what_sae_lens_logs_and_the_validation(case, tmp_path, monkeypatch, specs):
    assert runid and wandb.__version__
    store, table, _ = case
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    top_r = MeanTopR(store, table)
    folders = train_saes(store, specs, CONFIG, tmp_path / "o", top_r=top_r, wandb_project="p", progress=False)
    alone = train_saes(store, specs, CONFIG, tmp_path / "alone", top_r=top_r, progress=False)
    found = logged(tmp_path)
    for name, folder in folders.items():
        prefix = "" if len(specs) == 1 else f"{name}/"
        for key in ("losses/overall_loss", "metrics/explained_variance", "metrics/l0", "sparsity/dead_features"):
            assert list(found[prefix + key]) == [9, 19, 29, 39]
        history = pd.read_parquet(folder / "history.parquet")
        pd.testing.assert_frame_equal(history, pd.read_parquet(alone[name] / "history.parquet"))
        for key, column in {"metrics/val_mean_top_r": "mean_top_r", "metrics/val_explained_variance": "explained_variance"}.items():
            assert [float(x) for x in found[prefix + key].values()] == pytest.approx(list(history[column]))
        weights = "sae_weights.safetensors"
        assert (folder / weights).read_bytes() == (alone[name] / weights).read_bytes()


def test_wandb_that_does_not_start_is_told(case, tmp_path, monkeypatch, capsys):
    (tmp_path / "r.yaml").write_text(
        "saes: [{name: one, hook: hook_embedding, architecture: topk, expansion: 2, options: {k: 3}}]\n"
        "training: {total_training_samples: 640, batch_size: 64}\n"
    )
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    out = ["--recipe", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "o"), "--quiet", "--wandb"]
    assert main(["train", str(case[0].path), *out]) == 1
    assert "Weights & Biases does not start" in capsys.readouterr().err
