"""What an extraction says that it will take, beside what it took; and a disk that cannot hold it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.extraction_case import EMBEDDING, SPATIAL, make_images, tiny_encoder
from helpers.repository_scripts import script

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.store import extract, plan_extraction
from medsae_plugin.text import byte_size, clock

HOOKS = [SPATIAL, EMBEDDING]


@pytest.mark.parametrize(("positions", "dtype"), [("all", torch.float32), ("sample:2", torch.bfloat16)])
def test_the_planned_bytes_are_those_of_the_tensors_on_disk(tmp_path, positions, dtype):
    encoder, table = tiny_encoder(), make_images(tmp_path / "images", 20)
    options = {"positions": positions, "dtype": dtype, "workers": 0, "images_per_shard": 8, "batch_size": 2}
    plan = plan_extraction(encoder, table, HOOKS, tmp_path / "store", **options)
    assert plan.seconds is not None and plan.seconds > 0 and plan.images_left == 20
    assert not (tmp_path / "store").exists()
    store = extract(encoder, table, HOOKS, tmp_path / "store", **options, progress=False)
    on_disk = 0
    for shard in store.path.glob("shard-*"):
        header = int.from_bytes(shard.read_bytes()[:8], "little") + 8
        on_disk += shard.stat().st_size - header
    assert plan.bytes == on_disk
    done = plan_extraction(encoder, table, HOOKS, tmp_path / "store", **options)
    assert done.images_left == 0 and done.bytes == plan.bytes
    (store.path / "shard-00002.safetensors").unlink()
    left = plan_extraction(encoder, table, HOOKS, tmp_path / "store", **options)
    assert left.images_left == 4 and f"of which {byte_size(left.bytes_left)} are to be written" in str(left)


def test_a_disk_that_cannot_hold_the_store_is_told_before_anything_begins(tmp_path):
    """An encoder that is said to be so wide at a hook that no disk holds its rows."""
    encoder, table = tiny_encoder(), make_images(tmp_path / "images", 9)
    encoder.hook_specs[SPATIAL] = replace(encoder.hook_specs[SPATIAL], d=10**15)
    with pytest.raises(MedSAEError) as told:
        extract(encoder, table, HOOKS, tmp_path / "store", workers=0, progress=False)
    rows = encoder.hook_specs[SPATIAL].n_positions
    assert f"would take {byte_size(9 * rows * 4e15)} more (9 images); nothing was begun" in str(told.value)
    assert f"--dtype bfloat16 ({byte_size(9 * rows * 2e15)})" in str(told.value)
    assert "--positions sample:8" in str(told.value)
    assert not (tmp_path / "store").exists()


def test_the_command_plans_writes_nothing_and_tells_the_same_before_it_extracts(tmp_path, capsys):
    make_images(tmp_path / "images", 12)
    images = ["--images", str(tmp_path / "images"), "--patients-are-images", "--workers", "0", "--batch-size", "2"]
    command = ["extract", "phantom-swin", *images, "--dtype", "float16", "--out", str(tmp_path / "store")]
    assert main([*command, "--plan"]) == 0
    plan = capsys.readouterr().out
    size = 12 * (96 * 2 + 8)
    assert re.match(rf"12 images, 1 hook, 1 row an image: {byte_size(size)} on disk as float16; .* free; memory ", plan)
    assert re.search(r"in the first batches\); 0:0\d at [\d,.]+ images/s$", plan.strip())
    assert not (tmp_path / "store").exists()
    assert main(command) == 0
    assert f"extraction: 12 images, 1 hook, 1 row an image: {byte_size(size)}" in capsys.readouterr().err
    assert main([*command, "--quiet"]) == 0
    assert "extraction:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("n", "said"), [(0, "0 B"), (999, "999 B"), (999_600, "1 MB"), (265_432_000_000, "265 GB"), (3.2e16, "32 PB")]
)
def test_bytes_are_told_in_units_of_a_thousand(n, said):
    assert byte_size(n) == said


def test_durations_are_told_as_on_a_clock():
    assert [clock(s) for s in (6.6, 760, 11_100)] == ["0:07", "12:40", "3:05:00"]


def test_the_page_on_sizes_has_what_its_script_prints(capsys):
    script("sizing").main(["medclip-swin", "medclip-resnet50"])
    printed = capsys.readouterr().out
    page = (Path(__file__).parents[1] / "docs" / "sizing.md").read_text(encoding="utf-8")
    for table in printed.strip().split("\n\n"):
        assert table in page
    images, rows, d = 1_000_000, 49, 768
    line = next(line for line in printed.splitlines() if "stages.3" in line and "`all`" in line)
    assert line.endswith(f" {byte_size(images * rows * (4 * d + 8))} / {byte_size(images * rows * (2 * d + 8))} |")
    assert "| 10 | 6:12:21 |" in printed and pytest.approx(6 * 3600 + 12 * 60 + 21, abs=1) == 223_414 / 10
