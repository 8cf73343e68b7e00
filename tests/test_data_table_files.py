"""Table files as people have them: separators, encodings, packed, quotations that are not closed."""

import bz2
import gzip
import io
import lzma
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.data.table_files import read_raw

TEXT = "path,patient,nodule,report\ntrain\\p1\\a.png,1,1,clear\ntrain\\p2\\a.png,2,0,ill\n"


def zipped(content: bytes, name: str = "t.csv") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def parquet(text: str) -> bytes:
    buffer = io.BytesIO()
    pd.read_csv(io.StringIO(text)).assign(picture=b"\0").to_parquet(buffer)
    return buffer.getvalue()


FORMS = {
    "mark and CRLF": ("\ufeff" + TEXT).replace("\n", "\r\n").encode(),
    "CR": TEXT.replace("\n", "\r").encode(),
    "semicolons": TEXT.replace(",", ";").encode(),
    "tabs": TEXT.replace(",", "\t").encode(),
    "bars": TEXT.replace(",", "|").encode(),
    "sep=;": b"sep=;\r\n" + TEXT.replace(",", ";").encode(),
    "sep=tab": b'"sep=\t"\n' + TEXT.replace(",", "\t").encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "gzip": gzip.compress(TEXT.encode()),
    "bzip2": bz2.compress(TEXT.encode()),
    "xz": lzma.compress(TEXT.encode()),
    "zip": zipped(TEXT.encode()),
    "parquet": parquet(TEXT),
    "blank lines and empty columns": TEXT.replace("\n", ",,\n").replace("\n", "\n,,,,,\n", 1).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_usual_form_of_a_table_is_read(tmp_path, form):
    (tmp_path / "t.csv").write_bytes(FORMS[form])
    table = read_table(tmp_path / "t.csv", report_column="report")
    assert table.frame["path"].tolist() == ["train/p1/a.png", "train/p2/a.png"] and table.label_names == ("nodule",)
    assert table.labels[:, 0].tolist() == [1, 0] and table.frame["report"].tolist() == ["clear", "ill"]


WRONG = {
    "is not UTF-8 text .*line 4": (TEXT + "aufn\xe4hme.png,3,0,x\n").encode("latin-1"),
    "a spreadsheet's workbook": zipped(b"<xml/>", "[Content_Types].xml"),
    "packed, and damaged": gzip.compress(TEXT.encode())[:-9],
    "a damaged Parquet file": b"PAR1" + bytes(50),
    "git-lfs pointer in the table's place.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    r"a web page \(HTML\) in the table's place": b"\n<!DOCTYPE html><html><body>Log in, please</body></html>\n",
    "is JSON; save it as CSV or Parquet": b'[{"path": "a.png", "patient": 1}]',
    "JSON; save": gzip.compress(b'{"path": "a.png", "patient": 1}\n{"path": "b.png", "patient": 2}\n'),
    "text: it holds zero bytes": b"path,patient,nodule\na.png,1,1\0\n",
    "zero bytes": b"path,patient\n" + b"a.png,1\n" * 200 + b"b\0.png,1\n",
    "line 3, has a row of 2 cells under 4": b"path,patient,nodule,report\na.png,1,1,x\nb.png,2\n",
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_a_file_is_said(tmp_path, message):
    (tmp_path / "t.csv").write_bytes(WRONG[message])
    with pytest.raises(MedSAEError, match=message):
        read_table(tmp_path / "t.csv")


HEAD = "path,patient,nodule,report\na.png,1,1,ok\n"
UNCLOSED = {
    "in the last cell": HEAD + 'b.png,2,0,"1 view, no 2nd\nc.png,3,0,ok\nd.png,4,1,ok\n',
    "in the middle, closed by the next quotation": HEAD + 'b.png,2,0,"open\nc.png,3,0,ok\nd.png,4,1,"ok"\n',
    "closed by an inch sign two rows later": HEAD + 'b.png,2,0,"open\nc.png,3,0,ok\nd.png,4,1,tube 5"\n',
    "in a cell within, closed there": 'path,patient,report,nodule\nb.png,2,"open,0\nc.png,3,5",1\n',
    "in the first cell": HEAD + '"b.png,2,0,ok\nc.png,3,0,ok\n',
    "in the header": 'path,patient,nodule,"report\na.png,1,1,ok\nb.png,2,0,ok\n',
    "paths without suffix": 'path,patient,nodule,report\n0001,1,1,"x\n0002,2,0,ok\n0003,3,0,5"\n0004,4,1,ok\n',
}


@pytest.mark.parametrize("where", UNCLOSED)
def test_a_quotation_that_is_not_closed_is_an_error_and_swallows_no_row(tmp_path, where):
    (tmp_path / "t.csv").write_text(UNCLOSED[where])
    with pytest.raises(MedSAEError, match="quotation"):
        read_table(tmp_path / "t.csv")


def test_where_no_column_is_a_path_rows_are_known_by_the_first(tmp_path):
    (tmp_path / "t.csv").write_text('scan,nodule,said\ns1,1,"open\ns2,0,a\ns3,1,"ok"\n')
    with pytest.raises(MedSAEError, match="quotation"):
        read_table(tmp_path / "t.csv")


def test_quotation_marks_that_are_right_are_kept(tmp_path):
    report = 'FINDINGS:\n1. clear, ""no"" effusion, of the lungs, at all\n2. a 5"" tube, seen, well, there'
    (tmp_path / "t.csv").write_text(
        f'path,patient,nodule,report\n"a, b.png","O""Neil",1,"{report}"\nb.png,2,0,a 5" tube\n'
    )
    table = read_table(tmp_path / "t.csv", report_column="report")
    assert table.frame["report"].tolist() == [report.replace('""', '"'), 'a 5" tube']
    assert table.frame["path"].tolist() == ["a, b.png", "b.png"] and table.frame["patient"][0] == 'O"Neil'


def test_a_long_cell_is_read(tmp_path):
    (tmp_path / "t.csv").write_text("path,patient,nodule,report\na.png,1,1," + "x" * 300_000 + "\n")
    assert len(read_table(tmp_path / "t.csv", report_column="report").frame["report"][0]) == 300_000


def test_an_image_that_comes_twice_is_found_in_linear_time(tmp_path):
    n = 60_000
    rows = [f"patient{i:05d}/view{i % 3}.png,{i % 2}" for i in range(n)]
    (tmp_path / "t.csv").write_text("\n".join(["path,nodule", *rows, rows[-1]]) + "\n")
    start = time.perf_counter()
    with pytest.raises(MedSAEError, match=rf"twice \(line {n + 1} and line {n + 2}\).* 1 of {n + 1} rows"):
        read_table(tmp_path / "t.csv")
    assert time.perf_counter() - start < 60  # counting each path among all took minutes


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)] * 3),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(",;\t|"),
)
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, cells, separator):
    import csv

    path: Path = tmp_path_factory.mktemp("csv") / "t.csv"
    rows = [[f"p{i}.png", *row] for i, row in enumerate(cells)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows([["path", "a", "b", "c"], *rows])
    np.testing.assert_array_equal(read_raw(path).frame.to_numpy(), np.array(rows, dtype=object))
