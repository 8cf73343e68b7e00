"""`medsae encoders`: the list, an encoder's hook points, and cards that are wrong, line by line."""

import re
from pathlib import Path

import pytest
import transformers as tf
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.encoders import list_cards, load_card
from medsae_plugin.encoders.card_checks import CheckedCard

CARD = """\
name: mine
description: a ViT of our own
licence: MIT
family: vit
source:
  format: transformers
  path: ./model
vision: {image_size: 32, patch_size: 8, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2}
preprocessing:
  mode: L
  size: 32
  fit: pad
  resample: bicubic
  mean: [0.5]
  std: [0.25]
hooks:
  - name: blocks.{}.hook_mlp_in
    path: layers.{}.layernorm_after
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = tf.ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    tf.ViTModel(config).save_pretrained(tmp_path / "model")
    return tmp_path


def check(folder: Path, card: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], str]:
    """The exit status, the problems as `line: problem`, and stderr."""
    path = folder / "mine.yaml"
    path.write_text(card)
    status = main(["encoders", "check", str(path)])
    out, err = capsys.readouterr()
    return status, [line.removeprefix(f"{path}:") for line in out.splitlines()], err


def test_every_card_is_listed(capsys: pytest.CaptureFixture[str]):
    assert main(["encoders"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["encoder", *list_cards()]
    terms = [line.split()[0] for line in lines if " terms " in line]
    assert terms == ["medgemma-4b-vision", "medsiglip-448"]


def test_an_encoders_hook_points_are_shown_with_width_grid_and_prefix(capsys: pytest.CaptureFixture[str]):
    assert main(["encoders", "dinov2-registers-base"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^blocks\.\{0\.\.11\}\.hook_resid_post +768 +16 x 16 +5$", out, re.MULTILINE)
    assert re.search(r"^hook_embedding +768 +image$", out, re.MULTILINE)
    assert "no weights were read" in out and "licence: Apache-2.0" in out


def test_a_sound_card(folder: Path, capsys: pytest.CaptureFixture[str]):
    status, lines, _ = check(folder, CARD, capsys)
    assert status == 0 and len(lines) == 1
    assert "is sound" in lines[0] and "its 15 hook points on the shapes of config.json in ./model" in lines[0]


def test_a_card_of_the_package_can_be_checked_too(capsys: pytest.CaptureFixture[str]):
    assert main(["encoders", "check", "phantom-swin"]) == 0
    assert "phantom-swin is sound. Checked: its fields, its 19 hook points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("family: vit", "family: vitt", 4, "family 'vitt' is not one of"),
        ("licence: MIT\n", "", 1, "lacks licence"),
        ("licence: MIT", "license: MIT", 3, "unknown field license; do you mean licence"),
        ("format: transformers", "format: pickle", 6, "format is not one of medclip, medsae, transformers"),
        ("  path: ./model\n", "", 5, "source lacks path"),
        ("./model", "./modle", 7, "there is nothing at ./modle"),
        ("  path: ./model", "  path: ./model\n  sha256: abc", 8, "sha256 is 64 digits"),
        ("mode: L", "mode: CMYK", 10, "mode is L or RGB, not 'CMYK'"),
        ("size: 32\n", "size: large\n", 11, "size is a count of pixels"),
        ("fit: pad", "fit: padd", 12, "fit is one of pad, crop, stretch"),
        ("fit: pad", "fit: crop\n  resize: 16", 13, "resize is a count of pixels, not less than size"),
        ("bicubic", "cubic", 13, "resample 'cubic'"),
        ("mean: [0.5]", "mean: 0.5", 14, "mean is a list of one number, or of three"),
        ("std: [0.25]", "std: [0.0]", 15, "std is above zero"),
        ("std: [0.25]", "std: [0.2, 0.2, 0.2]", 15, "std is a list of one number in mode L"),
        ("blocks.{}.hook_mlp_in", "mlp_in", 17, "a name is like hook_embed or blocks.{}.hook_resid_post, not 'mlp_in'"),
        ("blocks.{}.hook_mlp_in", "blocks.{}.hook_mlp_out", 17, "blocks.0.hook_mlp_out is the name of two hook points"),
        ("size: 32\n", "size: 48\n", 11, "cannot take an image of 48 x 48 pixels"),
        ("layers.{}.layernorm_after", "layers.layernorm_after", 18, "different counts of {}"),
        ("layers.{}.layernorm_after", "layer.{}.layernorm_after", 18, "near it: layers.{}.layernorm_after"),
        (
            "layers.{}.layernorm_after",
            "layers.{}.layernorm_after\n    layout: map",
            17,
            "its module gives 3 axes, not a map",
        ),
        ("hooks:", "name: again\nhooks:", 16, "name is given twice"),
        ("hooks:", "pooling: max\nhooks:", 16, "pooling is cls or mean"),
        ("hooks:", "prefix_tokens: two\nhooks:", 16, "should be a whole number"),
        ("hooks:", "prefix_tokens: 3\nhooks:", 16, "which are 3 prefix tokens and no grid"),
        ("hooks:", "text: {max_tokens: 77}\nhooks:", 16, "family vit has no text tower"),
        ("hooks:", "outputs: {mean: layernorm}\nhooks:", 16, "outputs lacks logvar"),
        ("hooks:", "outputs: {mean: pooler_output, logvar: spread}\nhooks:", 16, "no field 'spread' of the output"),
        ("  path: ./model", "  path: [./model", 8, "not YAML"),
    ],
)
def test_what_is_wrong_is_said_at_its_line(folder: Path, capsys, old: str, new: str, line: int, problem: str):
    assert old in CARD
    status, lines, err = check(folder, CARD.replace(old, new, 1), capsys)
    assert status == 1 and "has 1 problem\n" in err and "Traceback" not in err
    (found,) = lines
    assert found.startswith(f"{line}: ") and problem in found


def test_all_problems_are_told_at_once_in_the_order_of_their_lines(folder: Path, capsys):
    card = CARD.replace("family: vit", "family: vitt").replace("fit: pad", "fit: padd").replace("MIT", "7")
    status, lines, err = check(folder, card, capsys)
    assert status == 1 and "has 3 problems" in err
    assert [line.split(":")[0] for line in lines] == ["3", "4", "12"]
    with pytest.raises(MedSAEError, match=r"(?s)mine\.yaml:3: .*mine\.yaml:4: .*mine\.yaml:12: "):
        load_card(folder / "mine.yaml")


def test_wrong_shapes_on_the_card_are_told_without_a_traceback(tmp_path: Path, capsys):
    card = CARD.replace("./model", "lab/vit").replace("hidden_size: 16", "hidden_size: wide")
    status, lines, _ = check(tmp_path, card, capsys)
    assert status == 1 and lines[0].startswith("8: ")
    card = CARD.replace("./model", "lab/vit").replace("image_size: 32", "image_size: 48")
    status, lines, _ = check(tmp_path, card, capsys)
    assert status == 1 and "cannot take an image of 32 x 32 pixels" in lines[0]


@pytest.mark.parametrize(
    ("source", "more", "problem"),
    [
        ("{format: medclip, url: 'https://a/b.zip'}", "text: {}\nprojection_dim: 8", "text lacks config"),
        ("{format: medclip, url: 'https://a/b.zip'}", "", "format medclip needs projection_dim"),
        ("{format: open_clip, path: lab/clip}", "projection_dim: 8\npooling: cls", "format open_clip needs text"),
        ("{format: open_clip, path: a/b}", "projection_dim: 8\ntext: {config: {}}", "open_clip needs pooling: cls"),
        ("{format: torchxrayvision}", "", "source lacks path or url"),
        ("{format: medsae, path: absent}", "", "there is nothing at absent"),
    ],
)
def test_each_format_says_what_it_needs(tmp_path: Path, capsys, source: str, more: str, problem: str):
    card = re.sub(r"source:\n( .*\n)+", f"source: {source}\n{more}\n", CARD)
    status, lines, _ = check(tmp_path, card, capsys)
    assert status == 1 and len(lines) == 1 and problem in lines[0]


def test_mistakes_in_the_command_are_told(capsys):
    for arguments, message in (
        (["check", "absent.yaml"], "no card named 'absent.yaml'"),
        (["medsiglip"], "no card named 'medsiglip'"),
    ):
        assert main(["encoders", *arguments]) == 1
        assert message in capsys.readouterr().err
    for arguments, message in ((["check"], "required: CARD"), (["rad-dino", "vit-base"], "unrecognized arguments")):
        with pytest.raises(SystemExit, match="2"):
            main(["encoders", *arguments])
        assert message in capsys.readouterr().err


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 600) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_card_whatever_crashes_the_check(data: st.DataObject):
    card = yaml.safe_load(CARD)
    for _ in range(data.draw(st.integers(1, 3))):
        place = card
        while isinstance(place, dict) and place and data.draw(st.booleans()):
            key = data.draw(st.sampled_from(sorted(place, key=str)))
            if not isinstance(place[key], dict):
                break
            place = place[key]
        place[data.draw(st.sampled_from(sorted(place, key=str)) if place else st.just("name"))] = data.draw(values)
    for problem in CheckedCard(yaml.safe_dump(card, sort_keys=False), "card").problems:
        assert re.match(r"card:\d+: .", problem)


@given(st.text())
def test_no_text_whatever_crashes_the_check(text: str):
    assert CheckedCard(text, "card").problems
