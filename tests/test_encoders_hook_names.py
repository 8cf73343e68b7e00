"""Hook points by ranges, globs and `all`: in `medsae extract`, in `extract`, and wherever an encoder takes names."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.extraction_case import make_images, tiny_encoder

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.encoders import HookedVisionEncoder, describe_encoder, list_cards
from medsae_plugin.encoders.hook_names import collapsed, select_hooks
from medsae_plugin.store import ActivationStore, extract

KNOWN = [
    "hook_embed",
    *(f"blocks.{i}.hook_{kind}" for i in range(12) for kind in ("mlp_out", "resid_post")),
    "hook_pooled",
]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("hook_pooled", ["hook_pooled"]),
        ("all", KNOWN),
        (["hook_pooled", "all"], KNOWN),
        ("blocks.{0..2}.hook_resid_post", [f"blocks.{i}.hook_resid_post" for i in range(3)]),
        ("blocks.{9..11}.hook_mlp_out", [f"blocks.{i}.hook_mlp_out" for i in (9, 10, 11)]),
        ("blocks.{11..9}.hook_mlp_out", [f"blocks.{i}.hook_mlp_out" for i in (9, 10, 11)]),
        ("blocks.*.hook_mlp_out", [f"blocks.{i}.hook_mlp_out" for i in range(12)]),
        ("blocks.?.hook_mlp_out", [f"blocks.{i}.hook_mlp_out" for i in range(10)]),
        ("blocks.1[01].hook_mlp_out", [f"blocks.{i}.hook_mlp_out" for i in (10, 11)]),
        ("hook_*", ["hook_embed", "hook_pooled"]),
        (["hook_pooled", "blocks.0.*", "hook_pooled"], [*KNOWN[1:3], "hook_pooled"]),
    ],
)
def test_patterns_stand_for_hook_points_in_the_order_of_the_pass(asked, expected):
    assert select_hooks(asked, KNOWN, "it") == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash to compare with")
@pytest.mark.parametrize(
    "pattern",
    [
        "blocks.{0..11}.hook_mlp_out",
        "blocks.{0..10..2}.hook_mlp_out",
        "blocks.{1..11..3}.hook_resid_post",
        "blocks.{3,7}.hook_{mlp_out,resid_post}",
        "blocks.1{0,1}.hook_mlp_out",
        "blocks.{1..1}.hook_mlp_out",
    ],
)
def test_braces_are_those_of_a_shell(pattern):
    shell = subprocess.run(["bash", "-c", f"echo {pattern}"], capture_output=True, text=True, check=True)
    assert set(select_hooks(pattern, KNOWN, "it")) == set(shell.stdout.split())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("hook_poled", "it has no hook point 'hook_poled'; near it: hook_pooled"),
        (["hook_embed", "blocks.3.hook_resid_pots"], "'blocks.3.hook_resid_pots'; near it: .*blocks.3.hook_resid_post"),
        ("blocks.{10..12}.hook_mlp_out", "'blocks.12.hook_mlp_out', which 'blocks.{10..12}.hook_mlp_out' asks for"),
        ("blocks.{0..999999999999}.hook_mlp_out", "'blocks.12.hook_mlp_out', which"),
        ("blocks.*.hook_mlp_ouch", "no hook point that fits 'blocks.*.hook_mlp_ouch'; near it: blocks"),
        ("blocks.{0..2.hook_mlp_out", "no hook point 'blocks.{0..2.hook_mlp_out'; near it"),
        ("blocks.{}.hook_mlp_out", "no hook point 'blocks.{}.hook_mlp_out'; near it: blocks"),
        ("", "no hook point ''"),
        ("ALL", "no hook point 'ALL'"),
    ],
)
def test_what_stands_for_none_is_an_error_that_names_near_ones(asked, message):
    with pytest.raises(MedSAEError, match=re.escape(message).replace(r"\.\*blocks", ".*blocks")):
        select_hooks(asked, KNOWN, "it")


@pytest.mark.parametrize("numbers", [[4], [0, 1, 2], [0, 2, 5], [3, 4]])
def test_what_is_printed_can_be_asked_for(numbers):
    asked = f"blocks.{collapsed(numbers)}.hook_mlp_out"
    assert select_hooks(asked, KNOWN, "it") == [f"blocks.{i}.hook_mlp_out" for i in numbers]


@pytest.mark.parametrize("name", [n for n in list_cards() if n != "xrv-densenet121"])
def test_every_line_of_a_cards_hook_points_can_be_asked_for_as_printed(name: str, capsys):
    assert main(["encoders", name]) == 0
    table = capsys.readouterr().out.split("\nhook point")[1].split("\n\n")[0].splitlines()[1:]
    known = [*describe_encoder(name)[0]]
    printed = [line.split()[0] for line in table]
    assert select_hooks(printed, known, name) == known
    assert sum(len(select_hooks(line, known, name)) for line in printed) == len(known)


def test_extract_takes_patterns(tmp_path: Path, capsys):
    table = make_images(tmp_path / "images", 9)
    vit = tiny_encoder("vit")
    store = extract(vit, table, ["blocks.{0..1}.hook_mlp_out", "hook_pooled"], tmp_path / "a", workers=0)
    assert [*store.hooks] == ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out", "hook_pooled"]
    assert [*extract(vit, table, "all", tmp_path / "all", workers=0).hooks] == [*vit.hook_specs]
    with pytest.raises(MedSAEError, match=r"no hook point 'blocks\.2\.hook_mlp_out', which .* asks for; near it: "):
        extract(vit, table, "blocks.{0..2}.hook_mlp_out", tmp_path / "b", workers=0)
    assert not (tmp_path / "b").exists()
    line = ["extract", "phantom-swin", "--images", str(tmp_path / "images"), "--workers", "0", "--quiet", "--hooks"]
    asked = "stages.2.blocks.{0..3}.hook_resid_post, stages.1.blocks.{0,1}.hook_*,hook_embedding"
    assert main([*line, asked, "--out", str(tmp_path / "cli")]) == 0
    kinds = ("mlp_out", "resid_post")
    assert [*ActivationStore(tmp_path / "cli").hooks] == [
        *(f"stages.1.blocks.{i}.hook_{kind}" for i in (0, 1) for kind in kinds),
        *(f"stages.2.blocks.{i}.hook_resid_post" for i in range(4)),
        "hook_embedding",
    ]
    capsys.readouterr()
    assert main([*line, "stages.{0..2}.hook_resid_post", "--out", str(tmp_path / "no")]) == 1
    assert "near it: stages." in capsys.readouterr().err


def test_an_encoder_takes_patterns_wherever_it_takes_names():
    encoder: HookedVisionEncoder = tiny_encoder("vit")
    x = torch.randn(2, 3, 32, 32)
    mlps = ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"]
    assert [*encoder.activations(x, ["blocks.*.hook_mlp_out"])] == mlps
    assert [*encoder.run_with_cache(x, names_filter="blocks.{0..1}.hook_mlp_out")[1]] == mlps
    fired: list[str] = []
    encoder.run_with_hooks(x, fwd_hooks=[("blocks.*.hook_mlp_out", lambda a, hook: fired.append(hook.name))])
    assert fired == mlps
    encoder.add_hook("blocks.{0,1}.hook_mlp_out", lambda a, hook: fired.append(hook.name))
    encoder(x)
    assert fired == 2 * mlps
    encoder.reset_hooks()
    with pytest.raises(MedSAEError, match=r"a pass stops at one hook point; .* stands for 2"):
        encoder(x, stop_at_hook="blocks.*.hook_mlp_out")
    for use in (encoder.add_hook, encoder.add_perma_hook):
        with pytest.raises(MedSAEError, match=r"no hook point .blocks\.7\.hook_mlp_out."):
            use("blocks.7.hook_mlp_out", lambda a, hook: a)
