"""A user's own dialect, an entry of `DIALECTS`, reads the tables of another data set."""

from helpers.extending import run

from medsae_plugin.phantoms import generate

DIALECT = """
from medsae_plugin.data.dialects import DIALECTS, Dialect

def ward(columns, paths):
    return "its column 'ward'" if "ward" in columns else None

DIALECTS.append(Dialect("ward", ward, ("Edema", "Pleural Effusion"), 0.0, "0, not seen", {"fluid": "Pleural Effusion"}))
"""


def test_an_own_dialect_is_recognised_before_the_packages_and_taken_by_name(tmp_path):
    import pandas as pd

    generate(4, tmp_path / "cxr", seed=0, size=64, workers=0)
    frame = pd.read_csv(tmp_path / "cxr" / "labels.csv", dtype=str, keep_default_na=False)
    own = frame[["Path"]].assign(ward="3", fluid=["1", "", "0", "1"], edema=["", "1", "1", ""], other="1")
    own.to_csv(tmp_path / "cxr" / "own.csv", index=False)
    own.drop(columns="ward").to_csv(tmp_path / "cxr" / "unmarked.csv", index=False)
    (tmp_path / "my_dialect.py").write_text(DIALECT)
    extract = ["extract", "phantom-swin", "--workers", "0", "--splits", "train=1", "--table"]
    done = run(tmp_path, "--import", "my_dialect", *extract, "cxr/own.csv", "--out", "store")
    assert done.returncode == 0, done.stderr
    assert "dialect ward (its column 'ward'): an empty label is 0, not seen" in done.stderr
    rows = [line.split() for line in done.stderr.splitlines()]
    assert ["Edema", "2", "2", "0"] in rows and ["Pleural", "Effusion", "2", "2", "0"] in rows
    done = run(tmp_path, *extract, "cxr/own.csv", "--out", "theirs")
    assert "dialect chexpert" in done.stderr
    named = [*extract, "cxr/unmarked.csv", "--dialect", "ward", "--out", "named"]
    assert "dialect ward (as was said)" in run(tmp_path, "--import", "my_dialect", *named).stderr
    done = run(tmp_path, *named)
    assert done.returncode == 1 and "no dialect 'ward'; there are chexpert, plain" in done.stderr
