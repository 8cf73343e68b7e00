"""Reading an activation store."""

import itertools
import json
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.extraction_case import EMBEDDING, SPATIAL, expected_activations, make_images, tiny_encoder
from safetensors import safe_open

from medsae_plugin.errors import MedSAEError
from medsae_plugin.store import ActivationStore, extract
from medsae_plugin.store.layout import EncoderInfo, HookInfo, ImagesInfo, Manifest
from medsae_plugin.store.writer import StoreWriter

N, BROKEN = 40, (0, 13, 14, 39)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    table, encoder = make_images(folder / "images", N, BROKEN), tiny_encoder()
    store = extract(encoder, table, [SPATIAL, EMBEDDING], folder / "store", images_per_shard=7, progress=False)
    return store, table, encoder


@pytest.fixture
def copy(case, tmp_path):
    """The store's files, to damage."""
    return shutil.copytree(case[0].path, tmp_path / "store")


def rows_of(store, hook, split=None):
    return torch.cat([rows for _, rows in store.image_batches(hook, split)])


def test_by_image_gives_each_readable_image_once_in_order(case):
    store, table, encoder = case
    for hook, split in itertools.product((SPATIAL, EMBEDDING), (None, "train", "test")):
        wanted = [i for i in range(N) if i not in BROKEN and split in (None, table.frame["split"][i])]
        seen = []
        per_image = store.hooks[hook].rows_per_image
        for ids, rows in store.image_batches(hook, split, batch_images=4):
            assert len(ids) <= 4 and rows.dtype == torch.float32 and len(rows) == len(ids) * per_image
            for place, image in enumerate(ids):
                expected = expected_activations(encoder, table, hook, image).reshape(-1, rows.shape[1])
                torch.testing.assert_close(rows[place * per_image :][:per_image], expected, atol=1e-5, rtol=1e-4)
            seen += list(ids)
        assert seen == wanted
        assert store.n_rows(hook, split) == len(wanted) * store.hooks[hook].rows_per_image


def test_an_epoch_of_batches_holds_each_row_of_the_split_once(case):
    store, _, _ = case
    for hook in (SPATIAL, EMBEDDING):
        rows = rows_of(store, hook, "train")
        n = len(rows)
        batches = list(itertools.islice(store.batches(hook, 7), 2 * n // 7 + 1))
        assert {len(batch[hook]) for batch in batches} == {7}
        stream = torch.cat([batch[hook] for batch in batches])
        for epoch in (stream[:n], stream[n : 2 * n]):
            assert sorted(map(tuple, epoch.tolist())) == sorted(map(tuple, rows.tolist()))
            assert not torch.equal(epoch, rows)


def test_same_seed_same_stream_from_any_step(case):
    store, _, _ = case
    whole = list(itertools.islice(store.batches([SPATIAL, EMBEDDING], 16, seed=3), 80))
    again = ActivationStore(store.path).batches([EMBEDDING, SPATIAL], 16, seed=3, start_step=31)
    for expected, batch in zip(whole[31:], again, strict=False):
        assert all(torch.equal(expected[hook], batch[hook]) for hook in (SPATIAL, EMBEDDING))
    other = next(iter(store.batches(SPATIAL, 16, seed=4)))
    assert not torch.equal(whole[0][SPATIAL], other[SPATIAL])


def test_starting_late_reads_nothing_before(case, monkeypatch):
    store, _, _ = case
    read = []
    rows = ActivationStore._rows
    monkeypatch.setattr(
        ActivationStore, "_rows", lambda self, hook, *args: read.append(hook) or rows(self, hook, *args)
    )
    next(store.batches(SPATIAL, 8, start_step=10**12))
    assert read == [SPATIAL]


def test_hooks_of_one_row_count_come_in_pairs(tmp_path):
    table, encoder = make_images(tmp_path / "images", 20), tiny_encoder()
    store = extract(encoder, table, ["hook_pooled", EMBEDDING], tmp_path / "store", images_per_shard=6, progress=False)
    batch = next(store.batches(["hook_pooled", EMBEDDING], 12))
    with torch.no_grad():
        embedding = encoder.projection_head(batch["hook_pooled"])
    torch.testing.assert_close(embedding, batch[EMBEDDING], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("hook", [SPATIAL, EMBEDDING])
def test_mean_and_scale(case, hook, monkeypatch):
    monkeypatch.setattr("medsae_plugin.store.reader._CHUNK_ELEMENTS", 1000)
    store, _, _ = case
    x = rows_of(store, hook, "train").numpy().astype(np.float64)
    mean, scale = store.mean_and_scale(hook)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12, atol=1e-14)
    assert np.square(scale * (x - x.mean(0))).sum(1).mean() == pytest.approx(store.hooks[hook].d, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_float32(tmp_path, dtype):
    table, encoder = make_images(tmp_path / "images", 8), tiny_encoder()
    full = extract(encoder, table, SPATIAL, tmp_path / "full", progress=False)
    half = extract(encoder, table, SPATIAL, tmp_path / "half", dtype=dtype, progress=False)
    assert torch.equal(rows_of(half, SPATIAL), rows_of(full, SPATIAL).to(dtype).float())


def test_files_say_what_they_hold(case):
    store, table, _ = case
    images = pd.read_csv(store.path / "images.csv")
    assert list(images.columns) == ["image_id", "path", "patient", "split"]
    assert list(images["path"]) == list(table.frame["path"])
    assert list(store.failures["image_id"]) == list(BROKEN)
    assert list(store.failures["path"]) == [table.frame["path"][i] for i in BROKEN]
    assert store.failures["reason"].str.len().gt(5).all()
    assert store.manifest.images == ImagesInfo(count=N, sha256=table.content_hash(), per_shard=7)
    assert str(table.root).encode() not in b"".join(path.read_bytes() for path in store.path.iterdir())
    with safe_open(store.path / "shard-00001.safetensors", "pt") as shard:
        readable = [i for i in range(7, 14) if i not in BROKEN]
        index, position = shard.get_tensor(f"{SPATIAL}/image_index"), shard.get_tensor(f"{SPATIAL}/position")
        assert index.tolist() == np.repeat(readable, 16).tolist()
        assert position.tolist() == list(range(16)) * len(readable)
        assert shard.get_tensor(f"{EMBEDDING}/image_index").tolist() == readable


def test_standard_tools_check_the_sums(case):
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=case[0].path, check=True)
    listed = {line.split("  ")[1] for line in (case[0].path / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in case[0].path.iterdir()} - {"SHA256SUMS"}


def test_verify_names_what_is_wrong(case, copy):
    assert case[0].verify() == []
    (copy / "shard-00001.safetensors").write_bytes((copy / "shard-00001.safetensors").read_bytes()[:-3])
    content = bytearray((copy / "shard-00002.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "shard-00002.safetensors").write_bytes(content)
    (copy / "shard-00003.safetensors").unlink()
    (copy / "notes.txt").write_text("mine")
    with (copy / "images.csv").open("a") as file:
        file.write("\n")
    problems = ActivationStore(copy).verify()
    assert [problem.split(":")[0] for problem in problems] == [
        "images.csv",
        "shard-00001.safetensors",
        "shard-00002.safetensors",
        "shard-00003.safetensors",
        "notes.txt",
    ]
    assert "truncated" in problems[1] and "changed" in problems[2] and "missing" in problems[3]


def test_reading_a_damaged_shard_is_an_error(copy):
    path = copy / "shard-00001.safetensors"
    content = path.read_bytes()
    for damaged in (content[:-3], content[:20], b"", b"\xff" * 100, content + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(MedSAEError, match=r"shard-00001\.safetensors"):
            list(ActivationStore(copy).image_batches(SPATIAL))
    path.unlink()
    with pytest.raises(MedSAEError, match="missing"):
        list(ActivationStore(copy).image_batches(SPATIAL))


def test_a_shard_with_other_shapes_is_an_error(copy):
    (copy / "shard-00002.safetensors").write_bytes((copy / "shard-00005.safetensors").read_bytes())
    with pytest.raises(MedSAEError, match=r"shard-00002\.safetensors does not hold"):
        list(ActivationStore(copy).image_batches(EMBEDDING))


def test_what_is_no_whole_store_is_refused(copy, tmp_path):
    with pytest.raises(MedSAEError, match="not an activation store"):
        ActivationStore(tmp_path)
    (copy / "SHA256SUMS").rename(tmp_path / "sums")
    (copy / "shard-00002.safetensors").unlink()
    with pytest.raises(MedSAEError, match="unfinished: 5 of 6 shards"):
        ActivationStore(copy)
    (tmp_path / "sums").rename(copy / "SHA256SUMS")
    (copy / "images.csv").write_text("image_id,path,patient,split\n0,a.png,p,train\n")
    with pytest.raises(MedSAEError, match="damaged"):
        ActivationStore(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(MedSAEError, match="schema version 99"):
        ActivationStore(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(MedSAEError, match="damaged"):
        ActivationStore(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["images"].update(per_shard=0), r"images\.per_shard: Input should be greater than 0"),
        (lambda m: m["hooks"][SPATIAL].update(dtype="int8"), r"dtype: String should match"),
        (lambda m: m["encoder"].pop("weights_sha256"), r"encoder\.weights_sha256: Field required"),
        (lambda m: m.update(precision="int4"), r"precision: Extra inputs are not permitted"),
    ],
)
def test_a_manifest_that_extraction_does_not_write_is_refused_in_words(copy, change, said):
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MedSAEError, match=rf"manifest\.json is not what medsae extract writes \(.*{said}"):
        ActivationStore(copy)


def test_a_manifest_is_typed_and_takes_its_old_keys_for_one_release(case):
    manifest = case[0].manifest
    assert Manifest.read(json.loads((case[0].path / "manifest.json").read_text())) == manifest
    assert manifest.text() == (case[0].path / "manifest.json").read_text()
    with pytest.warns(DeprecationWarning, match=r"take \.images for \['images'\]"):
        assert manifest["images"]["per_shard"] == manifest.images.per_shard
    with pytest.raises(KeyError):
        manifest["image"]


def test_unknown_hooks_and_splits(case):
    store, _, _ = case
    assert store.n_rows(SPATIAL, "holdout") == 0
    with pytest.raises(MedSAEError, match=r"no readable images in split 'holdout' \(splits it has: test, train, val\)"):
        store.batches(SPATIAL, 8, split="holdout")
    with pytest.raises(MedSAEError, match=r"no hook 'hook_embed'; it has stages\.1\.blocks\.0\.hook_resid_post"):
        store.image_batches("hook_embed")


def open_files():
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0


def test_many_shards_keep_few_files_open(tmp_path, monkeypatch):
    monkeypatch.setattr("medsae_plugin.store.reader._MAX_MAPPED", 3)
    table = make_images(tmp_path / "images", 30)
    store = extract(tiny_encoder(), table, SPATIAL, tmp_path / "store", images_per_shard=1, progress=False)
    before = open_files()
    rows = torch.cat([batch[SPATIAL] for batch in itertools.islice(store.batches(SPATIAL, 16, split=None), 30)])
    assert len(rows.unique(dim=0)) == 30 * 16
    assert open_files() <= before + 4


def test_reading_never_holds_the_store(tmp_path):
    n, per_shard, d = 40_000, 1000, 256
    manifest = Manifest(
        encoder=EncoderInfo(name="planted", weights_sha256="0" * 64, dtype="float32"),
        preprocessing={},
        hooks={"h": HookInfo(d, 1, None, 0, 1, "float32")},
        positions="all",
        seed=0,
        images=ImagesInfo(count=n, sha256="1" * 64, per_shard=per_shard),
    )
    frame = pd.DataFrame({"image_id": range(n), "path": "x.png", "patient": "p", "split": "train"})
    writer = StoreWriter(tmp_path / "store", manifest, frame)
    for shard in writer.claims():
        rows = torch.arange(per_shard * d, dtype=torch.float32).view(per_shard, d) + shard
        writer.write(shard, {"h/activations": rows}, [])
        writer.release(shard)
    writer.finish()
    store = ActivationStore(tmp_path / "store")
    tracemalloc.start()
    for _ in itertools.islice(store.batches("h", 500), n // 500):
        pass
    store.mean_and_scale("h")
    for _ in store.image_batches("h"):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = n * d * 4
    assert peak < size / 2, "chunks and the order of rows, of a store of 41 MB"
