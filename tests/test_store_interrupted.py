"""Extractions that are killed or shared leave the files of an unbroken one."""

import multiprocessing
import time
from functools import partial

import numpy as np
import pytest
from helpers.extraction_case import extract_slowly, make_images

from medsae_plugin.errors import MedSAEError
from medsae_plugin.store import ActivationStore

N, BROKEN = 45, (3, 20, 21, 44)
PRELOADED = ["transformers.models.swin.modeling_swin", "medsae_plugin.encoders.loading", "medsae_plugin.data.tables"]
PASSES = 15  # 7 shards of 6 images and one of 3, in batches of 4


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with the libraries loaded and none of this one's state."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@pytest.fixture(scope="module")
def start(processes, tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    make_images(root, N, BROKEN)

    def start(out, seconds=0.0):
        log = out.with_suffix(".log")
        process = processes.Process(target=extract_slowly, args=(root, N, BROKEN, out, log, seconds))
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "store"
    finish(start(out))
    assert ActivationStore(out).verify() == []
    return files(out)


def finish(*processes):
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")}


def kill_when(process, condition, delay):
    while not condition():
        assert process.is_alive(), "it was to be killed on the way"
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    process.join()


def n_shards(out):
    return len(list(out.glob("shard*")))


def has_shards(out, n):
    return n_shards(out) >= n


def passes(out):
    return len(out.with_suffix(".log").read_text().splitlines())


def test_killed_again_and_again(start, unbroken, tmp_path):
    out, rng = tmp_path / "store", np.random.default_rng()
    for stage in range(6):  # first as soon as the folder is there, then after another shard or two
        kill_when(
            start(out, seconds=0.03),
            (lambda: out.exists()) if stage == 0 else partial(has_shards, out, n_shards(out) + 1),
            delay=rng.uniform(0, 0.08),
        )
        with pytest.raises(MedSAEError, match=r"unfinished|not an activation store"):
            ActivationStore(out)
        assert {
            name: (out / name).read_bytes() for name in unbroken if (out / name).exists()
        }.items() <= unbroken.items()
    finish(start(out))
    assert files(out) == unbroken
    assert passes(out) <= PASSES + 6 * 6, "each kill costs the unfinished shards alone: one filling, two ahead"


def test_two_writers_share_the_work(start, unbroken, tmp_path):
    out = tmp_path / "store"
    finish(start(out, seconds=0.02), start(out, seconds=0.02))
    assert files(out) == unbroken
    assert passes(out) == PASSES, "no shard was computed twice"


def test_one_of_two_writers_is_killed(start, unbroken, tmp_path):
    out = tmp_path / "store"
    survivor, victim = start(out, seconds=0.03), start(out, seconds=0.03)
    kill_when(victim, lambda: n_shards(out) >= 2, delay=0.03)
    finish(survivor)
    assert files(out) == unbroken


def test_killed_between_the_last_shard_and_the_end(start, unbroken, tmp_path):
    out = tmp_path / "store"
    out.mkdir()
    (out / ".partial").mkdir()
    for name, content in unbroken.items():
        if name not in ("SHA256SUMS", "failures.csv"):
            (out / name).write_bytes(content)
    for line in unbroken["SHA256SUMS"].decode().splitlines():
        (out / ".partial" / f"{line.split('  ')[1]}.sha256").write_text(line + "\n")
    (out / ".partial" / "SHA256SUMS.new").write_text("torn")
    finish(start(out))
    assert files(out) == unbroken
    assert not out.with_suffix(".log").exists(), "no image was computed again"
