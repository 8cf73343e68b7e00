"""Writing whole or not at all: on a full disk, on drives that cannot flush or change a mode, in any library's words."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.extraction_case import before_each_pass, make_images, tiny_encoder
from helpers.planted import planted_rows, write_store
from PIL import Image
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file as save_torch

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import read_json, replacing, replacing_folder, write_text
from medsae_plugin.store import extract
from medsae_plugin.training import SAESpec, TrainingConfig, train_saes

NOISE = np.random.default_rng(0).normal(size=(100, 100))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to let a file of this process grow beyond, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save_figure(path: Path) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure()
    figure.add_subplot().imshow(NOISE)
    try:
        figure.savefig(path, format="png")
    finally:
        pyplot.close(figure)


WRITERS: dict[str, Callable[[Path], object]] = {
    "safetensors of torch": lambda path: save_torch({"a": torch.tensor(NOISE)}, path),
    "safetensors of numpy": lambda path: save_numpy({"a": NOISE}, path),
    "torch": lambda path: torch.save({"a": torch.tensor(NOISE)}, path),
    "parquet": lambda path: pd.DataFrame(NOISE, columns=[str(i) for i in range(100)]).to_parquet(path),
    "csv": lambda path: pd.DataFrame(NOISE).to_csv(path),
    "text": lambda path: path.write_text("x" * 50_000),
    "picture": lambda path: Image.fromarray((NOISE * 50).astype(np.uint8)).save(path, format="PNG"),
    "figure": save_figure,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_an_error_in_words_and_leaves_what_was_there(tmp_path, kind):
    target = tmp_path / "result"
    target.write_text("as it was")
    with files_of_at_most(4096), pytest.raises(MedSAEError) as caught, replacing(target) as temporary:
        WRITERS[kind](temporary)
    assert str(caught.value).startswith(f"{target} cannot be written: "), str(caught.value)
    assert names(tmp_path) == ["result"] and target.read_text() == "as it was"
    in_words = pytest.raises(MedSAEError, match="cannot be written")
    with files_of_at_most(4096), in_words, replacing_folder(tmp_path / "folder") as folder:
        WRITERS[kind](folder / "result")
    assert names(tmp_path) == ["result"]
    with replacing(target) as temporary:
        WRITERS[kind](temporary)
    assert target.stat().st_size > 4096


def test_an_extraction_on_a_full_disk_keeps_its_shards_and_goes_on(tmp_path):
    encoder, table = tiny_encoder(), make_images(tmp_path / "images", 12)
    options = {"images_per_shard": 4, "batch_size": 4, "workers": 0, "progress": False}
    whole = extract(encoder, table, "hook_embedding", tmp_path / "whole", **options)
    out = tmp_path / "full"
    passes: list[int] = []

    def fill_the_disk() -> None:
        passes.append(1)
        if len(passes) == 3:
            soft = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (50, soft[1]))

    filled = tiny_encoder()
    before_each_pass(filled, fill_the_disk)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(MedSAEError, match=r"full cannot be written: .*make room.*Finished shards are kept"):
            extract(filled, table, "hook_embedding", out, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (out / "shard-00000.safetensors").exists()
    resumed = extract(encoder, table, "hook_embedding", out, **options)
    assert resumed.verify() == []
    assert (out / "SHA256SUMS").read_bytes() == (whole.path / "SHA256SUMS").read_bytes()


@pytest.mark.parametrize("n_checkpoints", [0, 2])
def test_a_training_on_a_full_disk_says_so_and_is_resumed(tmp_path, n_checkpoints):
    store = write_store(tmp_path / "store", {"hook_embedding": planted_rows(200, 32, 24)[0]})
    specs = [SAESpec("a", "hook_embedding", "topk", 4, options={"k": 3})]
    config = TrainingConfig(1280, batch_size=64, lr=1e-3, n_checkpoints=n_checkpoints)
    with files_of_at_most(8192), pytest.raises(MedSAEError, match="cannot be written"):
        train_saes(store, specs, config, tmp_path / "full", progress=False)
    assert not (tmp_path / "full" / "a").exists()
    resumed = train_saes(store, specs, config, tmp_path / "full", progress=False)
    whole = train_saes(store, specs, config, tmp_path / "whole", progress=False)
    weights = "sae_weights.safetensors"
    assert (resumed["a"] / weights).read_bytes() == (whole["a"] / weights).read_bytes()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF, errno.ENOSYS])
def test_a_drive_that_cannot_flush_a_folder_is_no_error(tmp_path, monkeypatch, code):
    real, asked = os.fsync, []

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112
            asked.append(handle)
            raise OSError(code, os.strerror(code))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").read_text() == "text" and asked


def test_a_failing_disk_is_an_error_when_a_file_is_flushed(tmp_path, monkeypatch):
    def fsync(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(MedSAEError, match=r"a\.txt cannot be written: Input/output error"):
        write_text(tmp_path / "a.txt", "text")
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL])
def test_a_drive_that_refuses_modes_is_no_error(tmp_path, monkeypatch, code):
    def chmod(path: object, mode: int, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "chmod", chmod)
    write_text(tmp_path / "a.txt", "text")
    with replacing_folder(tmp_path / "b") as folder:
        (folder / "c").write_text("text")
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "b" / "c").read_text() == "text"


def test_a_folder_that_is_none_and_a_name_too_long_are_errors_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MedSAEError, match="cannot be written: Not a directory"):
        write_text(tmp_path / "file" / "a.json", "{}")
    with pytest.raises(MedSAEError, match="cannot be written: File name too long"):
        write_text(tmp_path / ("n" * 255), "{}")


def test_what_fails_while_a_file_is_written_keeps_its_own_words(tmp_path):
    for error in (
        KeyError("k"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        OSError(errno.ENOENT, "no", "/other"),
    ):
        with pytest.raises(type(error)), replacing(tmp_path / "a"):
            raise error


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe{}"])
def test_a_damaged_json_file_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(MedSAEError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")
    with pytest.raises(MedSAEError, match=r"b\.json cannot be read: No such file"):
        read_json(tmp_path / "b.json")
