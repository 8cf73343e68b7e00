"""`medsae table`: what is printed of a table, and of its images."""

import subprocess
import sys

import numpy as np
from helpers.pictures import drawn
from PIL import Image

from medsae_plugin.cli import main
from medsae_plugin.phantoms import generate

TEXT = """Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position
a.png,Mass|Nodule,1,61,F,PA
b.png,No Finding,1,62,F,AP
c.png,Mass,2,30,M,PA
d.png,Hernia,3,,M,PA
"""


def table(tmp_path, *names):
    (tmp_path / "t.csv").write_text(TEXT)
    for name in names:
        Image.fromarray(drawn(most=255).astype(np.uint8)).save(tmp_path / name)
    return str(tmp_path / "t.csv")


def test_what_is_understood_is_printed_without_opening_an_image(tmp_path, capsys):
    path = table(tmp_path, "a.png", "b.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    assert main(["table", path]) == 0
    said, err = capsys.readouterr()
    assert err == ""
    rows = [line.split() for line in said.splitlines()]
    assert ["Mass", "2", "2", "0"] in rows and ["Hernia", "1", "3", "0"] in rows
    for line in (
        "4 images of 3 patients",
        "dialect nih",
        "images a patient: 1: 2, 2: 1; median 1, most 2",
        "sex: F 2, M 2; unknown 0",
        "age: 30 to 62, median 61, half of them 45.5 to 61.5; unknown 1",
        "projection: PA 3, AP 1; unknown 0",
        f"files: 1 of 4 are not under {tmp_path}, such as d.png",
    ):
        assert line in said
    assert "opened" not in said


def test_images_that_cannot_be_read_are_listed(tmp_path, capsys):
    path = table(tmp_path, "a.png", "b.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    for workers in ("0", "2"):
        assert main(["table", path, "--check", "--workers", workers, "--quiet"]) == 0
        said = capsys.readouterr().out
        assert "opened: 2 of 4 images can be read" in said
        assert "c.png: no image of a format that is taken" in said and "d.png: no such file or directory" in said


def test_options_of_tables_and_their_mistakes(tmp_path, capsys):
    path = table(tmp_path)
    (tmp_path / "test.txt").write_text("c.png\n")
    options = ["--where", "age > 18", "--split-file", f"test={tmp_path}/test.txt", "--chexpert-names"]
    assert main(["table", path, *options, "--out", str(tmp_path / "o.csv")]) == 0
    said = capsys.readouterr().out
    assert "--where age > 18: 3 of 4 images" in said and "patients a split: none 1, test 1" in said
    written = (tmp_path / "o.csv").read_text().splitlines()
    assert written[0].startswith("path,patient,split,sex,age,view,projection,") and len(written) == 4
    cases = {
        ("table",): "give either FILE or --images DIR",
        ("table", path, "--images", "."): "give either FILE or --images DIR",
        ("table", path, "--dicom-tags"): "--dicom-tags is of a folder",
        ("table", path, "--where", "age >"): "cannot be read",
        ("table", path, "--region-format", "nih"): "--region-format says how --regions is written",
        ("table", path, "--regions", path): "has regions in no format that is known here",
        ("table", path, "--regions", str(tmp_path / "none")): "there are no regions at",
        ("table", "hf:" + str(tmp_path), "--root", "."): "--root is of tables in files",
        ("table", "hf:" + str(tmp_path / "none")): "cannot be loaded",
    }
    for words, message in cases.items():
        assert main([*words]) == 1
        err = capsys.readouterr().err
        assert message in err and "Traceback" not in err


def test_a_folder_of_images_is_told_of_too(tmp_path, capsys):
    generate(2, tmp_path / "cxr", seed=0, size=64, workers=0)
    assert main(["table", "--images", str(tmp_path / "cxr"), "--check", "--workers", "0"]) == 0
    said, err = capsys.readouterr()
    assert "images a patient" in said and "images can be read" in said and "opening" in err


def test_phantoms_table_is_chexperts(tmp_path):
    generate(3, tmp_path / "cxr", seed=0, size=64, workers=0)
    words = [sys.executable, "-W", "ignore", "-m", "medsae_plugin", "table", str(tmp_path / "cxr" / "labels.csv")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and "dialect chexpert" in done.stdout and "files: all" in done.stdout
