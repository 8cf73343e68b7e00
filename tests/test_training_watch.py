"""What a training shows and logs on the way, beside figures that are computed here from its parts."""

import os
import pty
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import wandb
from helpers.planted import planted_rows, reading_weights, relu_sae, write_store

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
def case(tmp_path_factory) -> tuple[ActivationStore, ImageTable]:
    """A store, a table of a label a planted feature."""
    rows, codes = planted_rows(600, D, FEATURES)
    store = write_store(tmp_path_factory.mktemp("case") / "store", {HOOK: rows})
    names = tuple(f"feature{c}" for c in range(FEATURES))
    return store, ImageTable(store.path, store.images, (codes > 0).astype(np.float32), names)


@pytest.mark.parametrize("positions", [1, 4])
def test_the_mean_top_r_is_chosen_on_train_and_measured_on_val(tmp_path, positions):
    """Of the maximum over an image's positions; a label that no image of `val` has is left out."""
    rows, codes = planted_rows(300 * positions, D, FEATURES)
    rows, codes = rows.reshape(300, positions, D), codes.reshape(300, positions, FEATURES).max(1)
    store = write_store(tmp_path / "store", {HOOK: rows if positions > 1 else rows[:, 0]})
    split = store.images["split"].to_numpy()
    codes[split == "val", 0] = 0
    names = tuple(f"feature{c}" for c in range(FEATURES))
    table = ImageTable(store.path, store.images, (codes > 0).astype(np.float32), names)
    sae = relu_sae(HOOK, **reading_weights(D, FEATURES))
    with torch.no_grad():
        got = MeanTopR(store, table)(HOOK, sae.encode)
        latents = sae.encode(torch.from_numpy(rows)).amax(1).double().numpy()
    rs = []
    for c in range(1, FEATURES):
        both = {s: (latents[split == s], codes[split == s, c] > 0) for s in ("train", "val")}
        assert 0 < both["val"][1].mean() < 1
        r = {s: [np.corrcoef(a, y)[0, 1] if a.std() else 0.0 for a in x.T] for s, (x, y) in both.items()}
        fires = (both["train"][0] > 0).sum(0) >= len(both["train"][0]) // 20
        rs.append(r["val"][int(np.where(fires, r["train"], -2).argmax())])
    assert got == pytest.approx(np.mean(rs), abs=1e-9)
    with pytest.raises(MedSAEError, match="no labels"):
        MeanTopR(store, ImageTable(store.path, store.images, np.zeros((300, 0), np.float32), ()))


def test_the_history_has_the_mean_loss_since_the_point_before_and_mean_top_r(case, tmp_path):
    store, table = case
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


@pytest.fixture
def wandb_here(tmp_path, monkeypatch):
    """Weights & Biases without an account, and with what it keeps in a process forgotten before and after."""
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    wandb.teardown()
    yield monkeypatch
    wandb.teardown()


def records(data: bytes) -> Iterator[bytes]:
    """The records of LevelDB's log format, after a header of seven bytes."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def logged(folder: Path) -> dict[str, dict[int, str]]:
    """What an offline run holds, by key and step."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[str, dict[int, str]] = {}
    for data in records(file.read_bytes()):
        items = {"/".join(i.nested_key) or i.key: i.value_json for i in Record.FromString(data).history.item}
        for key, value in items.items():
            found.setdefault(key, {})[int(items["_step"])] = value
    return found


@pytest.mark.parametrize("specs", [ONE, TWO])
def test_wandb_gets_what_sae_lens_logs_and_the_validation(case, tmp_path, wandb_here, specs):
    store, table = case
    top_r, config = MeanTopR(store, table), replace(CONFIG, n_checkpoints=1)
    folders = train_saes(store, specs, config, tmp_path / "o", top_r=top_r, wandb_project="p", progress=False)
    alone = train_saes(store, specs, CONFIG, tmp_path / "alone", top_r=top_r, progress=False)
    found = logged(tmp_path)
    for name, folder in folders.items():
        prefix = "" if len(specs) == 1 else f"{name}/"
        for key in ("losses/overall_loss", "metrics/explained_variance", "metrics/l0", "sparsity/dead_features"):
            assert list(found[prefix + key]) == [9, 19, 29, 39]
        history = pd.read_parquet(folder / "history.parquet")
        pd.testing.assert_frame_equal(history, pd.read_parquet(alone[name] / "history.parquet"))
        for column in ("mean_top_r", "explained_variance", "l0"):
            key = f"metrics/val_{column}"
            assert list(found[prefix + key]) == [19, 39]
            assert [float(x) for x in found[prefix + key].values()] == pytest.approx(list(history[column]))
        weights = "sae_weights.safetensors"
        assert (folder / weights).read_bytes() == (alone[name] / weights).read_bytes()


def test_wandb_that_does_not_start_is_told(case, tmp_path, wandb_here, capsys):
    (tmp_path / "r.yaml").write_text(
        "saes: [{name: one, hook: hook_embedding, architecture: topk, expansion: 2, options: {k: 3}}]\n"
        "training: {total_training_samples: 640, batch_size: 64}\n"
    )
    wandb_here.setenv("WANDB_MODE", "online")
    wandb_here.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb_here.delenv("WANDB_API_KEY", raising=False)
    out = ["--recipe", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "o"), "--quiet", "--wandb"]
    assert main(["train", str(case[0].path), *out]) == 1
    assert "Weights & Biases does not start" in capsys.readouterr().err
