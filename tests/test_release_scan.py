"""The scan of what would be published: paths wherever they stand, and no false alarm on clinical text."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae_plugin.encoders.cards import pretrained_folder
from medsae_plugin.release.scan import scan

WORD = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_", min_size=1, max_size=8)
BEFORE = st.sampled_from(["", "see ", "root=", "root:", '"', "(", "'", "file ", "\n", "; "])
AFTER = st.sampled_from(["", " and more", '"', ")", ".", ", then"])


def found_in(text: str, suffix: str = ".md") -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_text(text, encoding="utf-8")
        return list(scan(path, f"file{suffix}"))


@settings(max_examples=80, deadline=None)
@given(st.lists(WORD, min_size=2, max_size=5), BEFORE, AFTER, st.sampled_from(["unix", "windows", "share", "home"]))
def test_an_absolute_path_is_found_in_any_text(parts, before, after, kind):
    path = {
        "unix": "/" + "/".join(parts),
        "windows": "D:\\" + "\\".join(parts),
        "share": "\\\\" + "\\".join(parts),
        "home": "~/" + "/".join(parts),
    }[kind]
    text = before + path + after
    assert any("absolute path" in line for line in found_in(text))
    assert any("absolute path" in line for line in found_in(json.dumps({"a": [{"b": text}]}), ".json"))


@pytest.mark.parametrize(
    "text",
    [
        "Pleural effusion and/or consolidation, 3/10 of cases; r = 0.5 (H 2.1)",
        "https://huggingface.co/org/name and https://github.com/decoderesearch/SAELens",
        "SAE.from_pretrained('org/name', 'hook_embedding/x') at stages.3.blocks.1.hook_resid_post",
        "428 images of 176 patients, study of patients, subject to change; s = 12, p = 0.00000001",
        "version 6.54.12, arXiv 2510.26411, sha256 5b8efdef08c2cf707a7ba95cdbda46fd0ede06edd81183be86f8731c4f67b5be",
        "</div> <b>x</b> AP/PA frontal/lateral N/A",
        "Enlarged Cardiomediastinum | Lung/Pleura | 1:2",
    ],
)
def test_clinical_text_and_links_are_no_alarm(text):
    assert found_in(text) == [] and found_in(json.dumps({"x": text}), ".json") == []


def test_the_bundled_release_passes_but_for_its_counts():
    """Phantoms are no patients, and 2000 of them have few of the rare findings."""
    release = pretrained_folder() / "medsae-phantom"
    files = [path for path in release.rglob("*") if path.is_file()]
    assert len(files) == 10
    assert [line for path in files for line in scan(path, path.name, small=0)] == []


def test_counts_of_labels_alone_are_counted():
    entry = {"label": "Edema", "positives": 3, "known": 40, "patients": 12, "latent": 2, "r": 0.1}
    lines = found_in(json.dumps({"l0": 3, "significant": 1, "k": 2, "observations": [entry]}), ".json")
    assert lines == ["file.json: observations, Edema: positives is 3, fewer than 10"]
    rare = found_in(json.dumps({**entry, "positives": 35}), ".json")
    assert rare == ["file.json, Edema: negatives is 5, fewer than 10"]


def test_a_count_of_none_discloses_no_one_but_where_all_have_the_finding():
    entry = {"label": "Fracture", "positives": 0, "known": 40, "patients": 12}
    assert found_in(json.dumps(entry), ".json") == []
    assert found_in(json.dumps({"positives": {"Fracture": 0, "Edema": 1}}), ".json") == [
        "file.json, Edema: positives is 1, fewer than 10"
    ]
    assert found_in(json.dumps({**entry, "known": 0}), ".json") == []  # a label that is known of no image
    everyone = found_in(json.dumps({**entry, "positives": 40}), ".json")
    assert everyone == ["file.json, Fracture: all 40 have it, so each of them is known to"]
