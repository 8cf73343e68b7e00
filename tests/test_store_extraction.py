"""What extraction stores, and what it refuses."""

import itertools
import os
import shutil
import signal
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.extraction_case import (
    EMBEDDING,
    SPATIAL,
    before_each_pass,
    expected_activations,
    make_images,
    tiny_encoder,
)
from hypothesis import given
from hypothesis import strategies as st

from medsae_plugin.encoders import HookSpec
from medsae_plugin.errors import MedSAEError
from medsae_plugin.store import ActivationStore, extract, extraction, parse_positions
from medsae_plugin.store.decoding import Request, decode
from medsae_plugin.store.extraction import _ShardBuffer
from medsae_plugin.store.writer import StoreWriter

TOKENS = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def swin():
    return tiny_encoder()


@pytest.fixture(scope="module")
def vit():
    return tiny_encoder("vit")


@pytest.fixture
def table(tmp_path):
    return make_images(tmp_path / "images", 14)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stored(store, hook):
    """Each image's rows, (images, rows, d)."""
    rows = torch.cat([rows for _, rows in store.image_batches(hook)])
    return rows.view(-1, store.hooks[hook].rows_per_image, rows.shape[1])


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("positions", ["all", "cls", "mean", "sample:5"])
def test_policies_keep_what_they_say(vit, table, tmp_path, positions):
    store = extract(vit, table, [EMBEDDING, TOKENS], tmp_path / "store", positions=positions, workers=0, progress=False)
    assert list(store.hooks) == [TOKENS, EMBEDDING]
    rows = stored(store, TOKENS)
    for image in range(len(table)):
        tokens = expected_activations(vit, table, TOKENS, image)  # CLS and 4 x 4 patches
        close(stored(store, EMBEDDING)[image], expected_activations(vit, table, EMBEDDING, image)[None])
        if positions == "all":
            close(rows[image], tokens)
        elif positions == "cls":
            close(rows[image], tokens[:1])
        elif positions == "mean":
            close(rows[image], tokens[1:].sum(0, keepdim=True) / 16)
        else:
            near = torch.cdist(rows[image], tokens).argmin(1)
            close(rows[image], tokens[near])
            assert len(near) == 5 and (near.diff() > 0).all()


def test_samples_depend_on_seed_and_image_alone(swin, table, tmp_path):
    def sample(name, images=table, **options):
        options = {"positions": "sample:4", "workers": 0, "progress": False, **options}
        return stored(extract(swin, images, SPATIAL, tmp_path / name, **options), SPATIAL)

    first = sample("a")
    close(first, sample("b", batch_size=3, images_per_shard=4))
    assert (first - sample("c", seed=1)).abs().amax((1, 2)).gt(1e-3).float().mean() > 0.8


@given(n=st.integers(1, 60), p=st.integers(1, 50), seed=st.integers(0, 2**32))
def test_a_sample_is_distinct_sorted_and_at_most_all(n, p, seed):
    spec = HookSpec("h", 2, (1, p), 0)
    policy = parse_positions(f"sample:{n}")
    x = torch.arange(p).view(1, p, 1).expand(3, p, 2).float()
    rows, positions = policy.select(x, spec, [5, 6, 5], seed)
    assert len(rows) == len(positions) == 3 * policy.rows_per_image(spec) == 3 * min(n, p)
    assert torch.equal(rows[:, 0], torch.from_numpy(positions).float())
    a, b, c = positions.reshape(3, -1)
    assert (np.diff(a) > 0).all() and (np.diff(b) > 0).all() and (a == c).all()


def test_samples_reach_every_position():
    spec, policy = HookSpec("h", 1, (3, 3), 1), parse_positions("sample:2")
    positions = policy.select(torch.zeros(900, 10, 1), spec, range(900), 0)[1]
    counts = np.bincount(positions, minlength=10)  # 180 expected of each, standard deviation 12
    assert counts.min() > 120 and counts.max() < 240


@pytest.mark.parametrize("text", ["", "ALL", "sample", "sample:0", "sample:-1", "sample:1.5", "patches"])
def test_unknown_policies(text):
    with pytest.raises(MedSAEError, match="use all, cls, mean or sample:N"):
        parse_positions(text)


def test_cls_needs_a_prefix_token(swin, table, tmp_path):
    with pytest.raises(MedSAEError, match=rf"{SPATIAL} has no prefix token"):
        extract(swin, table, [SPATIAL], tmp_path / "store", positions="cls", progress=False)
    assert (
        extract(swin, table, [EMBEDDING], tmp_path / "store", positions="cls", progress=False).n_rows(EMBEDDING) == 14
    )


def test_workers_and_order_of_hooks_change_nothing(swin, table, tmp_path):
    hooks = [SPATIAL, EMBEDDING, "hook_embed"]
    for name, order, workers in (("a", hooks, 0), ("b", hooks[::-1], 2)):
        extract(swin, table, order, tmp_path / name, workers=workers, batch_size=3, images_per_shard=5, progress=False)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_unreadable_images_are_left_out_with_reasons(swin, tmp_path):
    table = make_images(tmp_path / "images", 14, broken=(4, 5, 6, 7, 13))  # a whole shard among them
    table.image_path(0).unlink()
    store = extract(swin, table, EMBEDDING, tmp_path / "store", images_per_shard=4, progress=False)
    assert list(store.failures["image_id"]) == [0, 4, 5, 6, 7, 13]
    assert store.failures["reason"][0] == "no such file or directory"
    assert store.n_rows(EMBEDDING) == 8 and store.verify() == []
    assert "6 unreadable" in store.summary()


def test_strict_stops_at_an_unreadable_image_and_keeps_shards(swin, tmp_path):
    table = make_images(tmp_path / "images", 14, broken=(9,))
    options = {"images_per_shard": 4, "batch_size": 2, "progress": False}
    with pytest.raises(MedSAEError, match=r"patient00003/view0\.png: .*image"):
        extract(swin, table, EMBEDDING, tmp_path / "store", strict=True, **options)
    assert sorted(path.name for path in (tmp_path / "store").glob("shard*"))[0] == "shard-00000.safetensors"
    assert len(extract(swin, table, EMBEDDING, tmp_path / "store", **options).failures) == 1
    with pytest.raises(MedSAEError, match=r"patient00003/view0\.png"):
        extract(swin, table, EMBEDDING, tmp_path / "store", strict=True, **options)


def test_nothing_readable_is_an_error(swin, tmp_path):
    table = make_images(tmp_path / "images", 12, broken=range(12))
    with pytest.raises(MedSAEError, match="none of the 12 images could be read"):
        extract(swin, table, EMBEDDING, tmp_path / "store", progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": "mean"}, r"positions: 'all' in the store, 'mean' now"),
        ({"seed": 1}, r"seed: 0 in the store, 1 now"),
        ({"images_per_shard": 3}, r"images\.per_shard: 4 in the store, 3 now"),
        ({"dtype": torch.float16}, r"dtype: 'float32' in the store, 'float16' now"),
        ({"hooks": [EMBEDDING]}, rf"hooks\.{SPATIAL}\.d: 16 in the store, None now"),
        ({"encoder": tiny_encoder(seed=1)}, r"encoder\.weights_sha256: '0+' in the store, '0+1' now"),
        ({"shuffled": True}, r"images\.sha256"),
    ],
)
def test_a_store_of_another_extraction_is_refused(swin, table, tmp_path, change, message):
    options = {"encoder": swin, "hooks": [SPATIAL, EMBEDDING], "images_per_shard": 4, "workers": 0, "progress": False}
    extract(images=table, out=tmp_path / "store", **options)
    before = files(tmp_path / "store")
    if change.pop("shuffled", False):
        change["images"] = table.with_splits(list(table.frame["split"])[::-1])
    with pytest.raises(MedSAEError, match=message):
        extract(**{"images": table, "out": tmp_path / "store", **options, **change})
    assert files(tmp_path / "store") == before


def test_a_folder_of_other_things_is_left_alone(swin, table, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    with pytest.raises(MedSAEError, match="not empty and holds no activation store"):
        extract(swin, table, EMBEDDING, tmp_path / "mine", progress=False)
    with pytest.raises(MedSAEError, match="not a folder"):
        extract(swin, table, EMBEDDING, tmp_path / "mine" / "thesis.tex", progress=False)
    assert files(tmp_path / "mine") == {"thesis.tex": b"..."}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hooks": ["hook_nowhere"]}, "no hook point 'hook_nowhere'; near it: hook_"),
        ({"hooks": []}, "no hook was asked for"),
        ({"batch_size": 0}, "at least 1"),
        ({"seed": -1}, "at least 0"),
        ({"dtype": torch.int8}, "cannot be stored as torch.int8"),
    ],
)
def test_bad_arguments(swin, table, tmp_path, options, message):
    with pytest.raises(MedSAEError, match=message):
        extract(swin, table, **{"hooks": EMBEDDING, "out": tmp_path / "store", "progress": False, **options})
    assert not (tmp_path / "store").exists()


def test_activations_that_are_not_finite_name_image_and_hook(table, tmp_path):
    encoder = tiny_encoder()
    encoder.projection_head.weight.data *= 1e6
    with pytest.raises(MedSAEError, match=r"patient00000/view0\.png: activations at hook_embedding .* float16"):
        extract(encoder, table, EMBEDDING, tmp_path / "store", dtype=torch.float16, progress=False)


def test_an_error_in_the_encoder_keeps_finished_shards(table, tmp_path):
    whole = extract(tiny_encoder(), table, EMBEDDING, tmp_path / "whole", images_per_shard=4, progress=False)
    encoder, passes = tiny_encoder(), itertools.count()

    def fail():
        if next(passes) == 3:
            raise RuntimeError("the cable came loose")

    before_each_pass(encoder, fail)
    with pytest.raises(RuntimeError, match="the cable came loose"):
        extract(encoder, table, EMBEDDING, tmp_path / "store", images_per_shard=4, progress=False)
    assert len(list((tmp_path / "store").glob("shard*"))) == 3
    extract(encoder, table, EMBEDDING, tmp_path / "store", images_per_shard=4, progress=False)
    assert next(passes) == 5, "the last of the four shards alone was computed again"
    assert files(tmp_path / "store") == files(whole.path)


class Deadly:
    """A preprocessor whose process dies at the tenth image."""

    def __init__(self, preprocessor, parent):
        self.preprocessor, self.config, self.normalize = preprocessor, preprocessor.config, preprocessor.normalize
        self.parent, self.images = parent, itertools.count(1)

    def to_array(self, image):
        if next(self.images) == 10:
            assert os.getpid() != self.parent
            os.kill(os.getpid(), signal.SIGKILL)
        return self.preprocessor.to_array(image)


def test_a_killed_worker_keeps_finished_shards(table, tmp_path):
    encoder = tiny_encoder()
    options = {"images_per_shard": 2, "batch_size": 2, "workers": 1, "progress": False}
    whole = extract(encoder, table, EMBEDDING, tmp_path / "whole", **options)
    sound, encoder.preprocessor = encoder.preprocessor, Deadly(encoder.preprocessor, os.getpid())
    with pytest.raises(MedSAEError, match="a decoding process died"):
        extract(encoder, table, EMBEDDING, tmp_path / "store", **options)
    encoder.preprocessor = sound
    extract(encoder, table, EMBEDDING, tmp_path / "store", **options)
    assert files(tmp_path / "store") == files(whole.path)


def test_a_lost_shard_is_made_again(swin, table, tmp_path):
    options = {"images_per_shard": 4, "batch_size": 4, "workers": 0, "progress": False}
    store = extract(swin, table, [SPATIAL, EMBEDDING], tmp_path / "store", **options)
    shutil.copytree(store.path, tmp_path / "sound")
    (store.path / "shard-00001.safetensors").unlink()
    assert extract(swin, table, [SPATIAL, EMBEDDING], tmp_path / "store", **options).verify() == []
    assert files(store.path) == files(tmp_path / "sound")


def test_a_finished_store_is_not_touched(swin, table, tmp_path):
    store = extract(swin, table, EMBEDDING, tmp_path / "store", progress=False)
    before = {path: path.stat().st_mtime_ns for path in store.path.iterdir()}
    moved = replace(table, root=tmp_path / "elsewhere")  # the root is not part of it, nor are images read again
    assert isinstance(extract(swin, moved, EMBEDDING, tmp_path / "store", progress=False), ActivationStore)
    assert {path: path.stat().st_mtime_ns for path in store.path.iterdir()} == before


def test_progress_goes_to_stderr_with_speed_and_time_left(swin, table, tmp_path, capsys):
    extract(swin, table, EMBEDDING, tmp_path / "store", images_per_shard=4)
    out, err = capsys.readouterr()
    assert out == "" and "14/14" in err and "image/s" in err


def test_the_callers_random_numbers_are_left_alone(swin, table, tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    extract(swin, table, EMBEDDING, tmp_path / "store", positions="sample:2", progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_a_slow_disk_holds_the_encoder_up_instead_of_filling_memory(table, tmp_path, monkeypatch):
    alive, most = weakref.WeakSet(), []
    monkeypatch.setattr(extraction, "_ShardBuffer", lambda *args: alive.add(b := _ShardBuffer(*args)) or b)
    write = StoreWriter.write
    monkeypatch.setattr(StoreWriter, "write", lambda *args: time.sleep(0.02) or write(*args))
    encoder = tiny_encoder()
    before_each_pass(encoder, lambda: most.append(len(alive)))
    extract(encoder, table, EMBEDDING, tmp_path / "store", images_per_shard=1, batch_size=1, progress=False)
    assert len(most) == 14 and max(most) <= 2, "one shard being filled, one being written"


def test_decoding_stays_a_few_batches_ahead(table):
    asked, encoder = [], tiny_encoder()
    requests = (asked.append(i) or Request(i, range(i, i + 1), True) for i in range(14))
    batches = decode(table.root, table.frame["path"].tolist(), encoder.preprocessor, requests, workers=2)
    for done, batch in enumerate(batches):
        assert batch.image_ids == [done]
        assert len(asked) <= done + 1 + 2 * 2
